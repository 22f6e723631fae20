"""What a person makes out in protected images, whatever they were moved by and recoloured with."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from roles.common.images import to_bitmap
from roles.evaluator.measures import ssim
from roles.evaluator.results import Seen
from roles.evaluator.seen import as_seen

COUNT, SIDE = 6, 32


def photographs(seed: int, count: int = COUNT, side: int = SIDE) -> Tensor:
    """Images that are smooth, as photographs are, uint8."""
    coarse = torch.rand(count, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)


def noise(count: int = COUNT, side: int = SIDE) -> Tensor:
    return torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)


def seen(protected: Tensor, plain: Tensor) -> Seen:
    return as_seen(protected, plain, torch.zeros(len(plain), dtype=torch.int64), ssim(protected, plain))


def with_classes(protected: Tensor, plain: Tensor, labels: Tensor) -> Seen:
    return as_seen(protected, plain, labels, ssim(protected, plain))


@pytest.mark.parametrize(
    ("protect", "way"),
    [
        (lambda x: x, (0, 0)),
        (lambda x: torch.roll(x, (-2, 3), (2, 3)), (-2, 3)),
        (lambda x: 255 - x, (0, 0)),
        (lambda x: (x.float() * torch.tensor([1.0, 0.4, 0.7]).view(3, 1, 1)).to(torch.uint8), (0, 0)),
        (lambda x: x[:, [2, 0, 1]], (0, 0)),
        (lambda x: 100 + x // 5, (0, 0)),
        (lambda x: torch.roll(255 - x[:, [1, 2, 0]], (1, 1), (2, 3)), (1, 1)),
    ],
    ids=["plain", "moved", "inverted", "tinted", "channels-swapped", "pale", "all-at-once"],
)
def test_a_photograph_that_is_moved_inverted_or_tinted_is_seen(protect: object, way: tuple[int, int]) -> None:
    assert callable(protect)
    plain = photographs(0)
    found = seen(protect(plain), plain)
    for measure in (found.ssim, found.shown):
        assert measure.shape == (COUNT,)
        assert measure.dtype == torch.float32
        assert measure.min() > 0.95
    assert (found.down, found.right) == way


@pytest.mark.parametrize(
    "protected", [noise(200), photographs(1, 200), torch.full((200, 3, 32, 32), 90, dtype=torch.uint8)]
)
def test_images_that_show_nothing_of_the_plain_ones_are_as_like_them_as_an_even_grey(protected: Tensor) -> None:
    plain = photographs(0, 200)
    grey = plain.float().mean((0, 2, 3), keepdim=True).expand_as(plain).to(torch.uint8)
    found = seen(protected, plain)
    assert found.shown.median() < 0.02
    assert found.ssim.median() < ssim(grey, plain).median() + 0.05
    assert (found.down, found.right) == (0, 0)


def test_the_class_is_no_leak_and_what_sets_an_image_apart_from_it_is() -> None:
    templates, labels = photographs(2, 4), torch.arange(4).repeat(50)
    plain = (0.7 * templates[labels].float() + 0.3 * photographs(0, 200).float()).to(torch.uint8)
    as_class = with_classes(templates[labels], plain, labels)
    assert as_class.shown.median() == 0
    assert seen(templates[labels], plain).shown.median() > 1 / 3  # without labels the same image is a leak
    assert with_classes(255 - plain, plain, labels).shown.median() > 0.99


def test_a_shape_without_its_shading_is_seen() -> None:
    plain = photographs(0, 50)[:, :1].expand(-1, 3, -1, -1)
    posterised = torch.where(plain > 127, 255, 0).to(torch.uint8)
    assert seen(posterised, plain).shown.median() > 1 / 3


def test_outlines_are_seen_and_neither_mean_colours_nor_a_coarse_mosaic() -> None:
    generator = torch.Generator().manual_seed(3)
    unit = F.interpolate(torch.rand(100, 3, 4, 4, generator=generator), (32, 32), mode="bicubic") * 0.6
    unit = (unit + 0.4 * F.interpolate(torch.rand(100, 3, 16, 16, generator=generator), (32, 32))).clamp(0, 1)
    plain = to_bitmap(unit)
    outlines = to_bitmap(unit - F.avg_pool2d(unit, 9, 1, 4, count_include_pad=False) + 0.5)
    assert seen(outlines, plain).shown.median() > 0.8
    mosaic = F.interpolate(F.avg_pool2d(unit, 8), (32, 32))
    assert seen(to_bitmap(mosaic), plain).shown.median() < 0.2  # a third would give it away
    colours = unit.mean((2, 3), keepdim=True).expand_as(unit)
    assert seen(to_bitmap(colours), plain).shown.median() < 0.01


def test_images_that_nothing_sets_apart_show_nothing_and_are_not_moved() -> None:
    alone = photographs(0, 3)
    found = with_classes(alone, alone, torch.arange(3))
    assert found.shown.tolist() == [0, 0, 0]
    assert (found.down, found.right) == (0, 0)
    assert found.ssim.min() == pytest.approx(1)


def test_recolouring_makes_no_image_less_like_the_plain_one_than_it_is() -> None:
    plain = photographs(0)
    # Another contrast in every image: no one map suits them, and a compromise would suit less than none.
    scales = torch.tensor([1.0, 1, 1, 1, 0.2, 0.2]).view(-1, 1, 1, 1)
    protected = (plain.float() * scales).to(torch.uint8)
    assert seen(protected, plain).ssim.median() >= ssim(protected, plain).median()


@pytest.mark.parametrize("side", [8, 16])
def test_small_images_are_moved_by_an_eighth_of_their_side(side: int) -> None:
    plain, reach = noise(3, side), side // 8
    found = seen(torch.roll(plain, (reach, -reach), (2, 3)), plain)
    assert found.ssim.min() > 0.99
    assert (found.down, found.right) == (reach, -reach)
    assert seen(torch.roll(plain, reach + 1, 2), plain).shown.median() < 0.5


@settings(max_examples=20, deadline=None)
@given(
    way=st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    share=st.floats(0.3, 1),
    height=st.integers(24, 33),
    classes=st.integers(1, 2),
    seed=st.integers(0, 999),
)
def test_way_and_colours_are_those_of_least_squares_window_by_window(
    way: tuple[int, int], share: float, height: int, classes: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(8, 3, height, 28, generator=generator)
    matrix = torch.rand(3, 3, generator=generator) / 3
    plain, other = torch.split(images.mul(255).to(torch.uint8), 4)
    recoloured = torch.einsum("nihw,ij->njhw", torch.roll(plain, way, (2, 3)).float(), matrix)
    protected = (share * recoloured + (1 - share) * other).to(torch.uint8)
    labels = torch.arange(4) % classes

    def apart(images: Tensor) -> Tensor:
        unit = images.double() / 255
        own = torch.stack([image - unit[labels == own].mean(0) for image, own in zip(unit, labels, strict=True)])
        reach = 3 * min(own.shape[2:]) // 16
        return own - F.avg_pool2d(own, 2 * reach + 1, 1, reach, count_include_pad=False)

    middle = apart(plain)[:, :, 3:-3, 3:-3]
    target = middle.movedim(1, -1).reshape(-1, 3).numpy()
    shown = {}
    for down in range(-3, 4):
        for right in range(-3, 4):
            window = apart(protected)[:, :, 3 + down :, 3 + right :][:, :, : height - 6, :22]
            colours = window.movedim(1, -1).reshape(-1, 3).numpy()
            left = colours @ np.linalg.lstsq(colours, target, rcond=None)[0] - target
            of_each = np.square(left).reshape(4, -1).sum(1) / np.square(target).reshape(4, -1).sum(1)
            shown[down, right] = np.square(left).sum(), 1 - of_each
    best = min(shown, key=lambda at: shown[at][0])
    gained = (shown[0, 0][0] - shown[best][0]) / np.square(target).sum()
    found = seen(protected, plain) if classes == 1 else with_classes(protected, plain, labels)
    if abs(gained - 0.05) > 1e-3:
        assert (found.down, found.right) == (best if gained > 0.05 else (0, 0))
        assert found.shown.numpy() == pytest.approx(shown[found.down, found.right][1].clip(0, 1), abs=1e-3)
