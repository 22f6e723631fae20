import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from roles.common.augment import Augmentation, augment, crop, draw_flips, mirror

shapes = st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
seeds = st.integers(0, 1000)


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    return mirror(images, draw_flips(len(images), generator))


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    return augment(images, padding, generator, flip=False)


def pictures(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(1, 256, shape, generator=stream(seed), dtype=torch.uint8)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, seed=seeds)
def test_each_image_is_mirrored_or_left_as_it_is(shape: tuple[int, ...], seed: int) -> None:
    images = pictures(shape, seed)
    for image, flipped in zip(images, random_flip(images, stream(seed)), strict=True):
        assert torch.equal(flipped, image) or torch.equal(flipped, image.flip(2))


def test_about_half_of_the_images_are_mirrored() -> None:
    images = torch.tensor([0, 1], dtype=torch.uint8).expand(1000, 1, 1, 2)
    mirrored = int(random_flip(images, stream(0))[:, 0, 0, 0].sum())
    assert 440 < mirrored < 560


@settings(max_examples=40, deadline=None)
@given(shape=shapes, padding=st.integers(0, 3), seed=seeds)
def test_a_crop_is_a_window_of_the_image_padded_with_black(shape: tuple[int, ...], padding: int, seed: int) -> None:
    images = pictures(shape, seed)
    height, width = shape[2:]
    cropped = random_crop(images, padding, stream(seed))
    assert cropped.shape == images.shape
    assert cropped.dtype == torch.uint8
    padded = F.pad(images, (padding,) * 4)
    for index in range(shape[0]):
        windows = [
            padded[index, :, row : row + height, column : column + width]
            for row in range(2 * padding + 1)
            for column in range(2 * padding + 1)
        ]
        assert any(torch.equal(cropped[index], window) for window in windows)


def test_every_shift_up_to_the_padding_occurs() -> None:
    images = torch.zeros(1000, 1, 5, 5, dtype=torch.uint8)
    images[:, :, 2, 2] = 1
    places = random_crop(images, 2, stream(0)).view(1000, 25).argmax(1)
    assert set(places.tolist()) == set(range(25))


def test_a_crop_without_padding_is_the_image_itself_and_draws_nothing() -> None:
    images, generator = pictures((3, 3, 4, 4), 0), stream(0)
    before = generator.get_state()
    assert torch.equal(random_crop(images, 0, generator), images)
    assert torch.equal(generator.get_state(), before)


@settings(max_examples=20, deadline=None)
@given(shape=shapes, padding=st.integers(0, 3), flip=st.booleans(), seed=seeds)
def test_the_same_generator_gives_the_same_images(shape: tuple[int, ...], padding: int, flip: bool, seed: int) -> None:
    images = pictures(shape, seed)
    kept = images.clone()
    once, again = (augment(images, padding, stream(seed), flip=flip) for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(images, kept)


def test_what_is_drawn_can_be_applied_later() -> None:
    images = pictures((8, 3, 6, 6), 1)
    drawn = Augmentation.draw(8, 2, stream(5), flip=True)
    assert torch.equal(drawn.of(images, 2), augment(images, 2, stream(5), flip=True))
    assert torch.equal(drawn.of(images, 2), mirror(crop(images, 2, drawn.shifts), drawn.flipped))


def test_augmentation_is_crop_then_flip_and_flip_can_be_off() -> None:
    images = pictures((8, 3, 6, 6), 1)
    generator = stream(5)
    cropped = random_crop(images, 2, generator)
    assert torch.equal(augment(images, 2, stream(5), flip=True), random_flip(cropped, generator))
    assert torch.equal(augment(images, 2, stream(5), flip=False), cropped)
