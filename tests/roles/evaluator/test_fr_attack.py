from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from roles.evaluator.attacks import fr_attack
from roles.evaluator.measures import psnr, ssim


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, height: int, width: int, seed: int) -> Tensor:
    return torch.randint(256, (count, 3, height, width), generator=stream(seed), dtype=torch.uint8)


def negated(images: Tensor, seed: int) -> Tensor:
    return images ^ (torch.randint(2, images.shape, generator=stream(seed), dtype=torch.uint8) * 255)


def shuffled(images: Tensor, seed: int) -> Tensor:
    return images.gather(1, torch.rand(images.shape, generator=stream(seed)).argsort(dim=1))


def smooth() -> Tensor:
    """Three dark gradients whose channels lie apart, ``(3, 3, 32, 32)``."""
    across = torch.linspace(0, 1, 32).expand(32, 32)
    down = across.T
    images = [
        torch.stack([90 + 30 * across, 45 + 30 * down, 5 + 25 * across]),
        torch.stack([5 + 25 * down, 90 + 30 * across, 45 + 30 * down]),
        torch.stack([45 + 30 * across, 5 + 25 * across, 90 + 30 * down]),
    ]
    return torch.stack(images).round().to(torch.uint8)


def published(image: list[list[list[int]]]) -> list[list[list[int]]]:
    """The attack as its authors tell it, on rows of pixels of three bytes: 6 orders with 8 flips for every pixel."""
    estimate = [[[min(byte, 255 - byte) for byte in pixel] for pixel in row] for row in image]
    for i, row in enumerate(image):
        for j, pixel in enumerate(row):
            if i == j == 0:
                continue
            before = estimate[i - 1][j] if i else estimate[i][j - 1]
            estimate[i][j] = min(
                (
                    [abs(255 * flip - byte) for flip, byte in zip(flips, ordered, strict=True)]
                    for ordered in permutations(min(byte, 255 - byte) for byte in pixel)
                    for flips in product((0, 1), repeat=3)
                ),
                key=lambda candidate, before=before: sum(abs(a - b) for a, b in zip(candidate, before, strict=True)),
            )
    return estimate


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 4), width=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_the_estimate_is_that_of_the_published_attack_which_tries_flips_as_well(
    height: int, width: int, seed: int
) -> None:
    protected = pictures(3, height, width, seed)
    for image, estimate in zip(protected, fr_attack(protected, shuffle=True), strict=True):
        assert estimate.permute(1, 2, 0).tolist() == published(image.permute(1, 2, 0).tolist())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), key=st.integers(0, 10_000))
def test_without_a_shuffle_no_key_hides_anything_but_the_side_of_each_byte(seed: int, key: int) -> None:
    images = pictures(2, 4, 5, seed)
    estimate = fr_attack(negated(images, key), shuffle=False)
    assert torch.equal(estimate, torch.minimum(images, 255 - images))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_with_a_shuffle_each_pixel_keeps_its_three_folded_values(seed: int) -> None:
    protected = pictures(2, 4, 5, seed)
    estimate = fr_attack(protected, shuffle=True)
    assert estimate.dtype == torch.uint8
    folded = torch.minimum(protected, 255 - protected)
    assert torch.equal(estimate.sort(dim=1).values, folded.sort(dim=1).values)


def test_each_pixel_is_ordered_as_the_one_above_it_and_the_first_row_as_the_one_on_the_left() -> None:
    rows = [[[10, 60, 90], [91, 9, 61], [120, 247, 70]], [[60, 90, 10], [180, 20, 194], [99, 1, 30]]]
    protected = torch.tensor(rows, dtype=torch.uint8).permute(2, 0, 1).unsqueeze(0)
    estimate = fr_attack(protected, shuffle=True)[0].permute(1, 2, 0)
    assert estimate.tolist() == [
        [[10, 60, 90], [9, 61, 91], [8, 70, 120]],
        [[10, 60, 90], [20, 61, 75], [1, 30, 99]],
    ]


def test_dark_smooth_images_come_back_whole_but_for_the_colours_of_the_first_pixel() -> None:
    plain = smooth()
    assert torch.equal(fr_attack(negated(plain, 0), shuffle=False), plain)
    estimate = fr_attack(shuffled(negated(plain, 0), 1), shuffle=True)
    for image, recovered in zip(plain, estimate, strict=True):
        assert any(torch.equal(recovered[list(order)], image) for order in permutations(range(3)))


@pytest.mark.parametrize("shuffle", [False, True])
def test_dark_smooth_images_come_nearer_than_what_is_encrypted(shuffle: bool) -> None:
    plain = smooth()
    protected = negated(plain, 0)
    protected = shuffled(protected, 1) if shuffle else protected
    estimate = fr_attack(protected, shuffle=shuffle)
    assert bool((psnr(estimate, plain) > psnr(protected, plain) + 3).all())
    assert bool((ssim(estimate, plain) > ssim(protected, plain) + 0.5).all())


def test_the_estimate_of_an_image_does_not_depend_on_the_others() -> None:
    protected = pictures(4, 5, 6, 0)
    whole = fr_attack(protected, shuffle=True)
    assert torch.equal(torch.cat([fr_attack(image, shuffle=True) for image in protected.split(1)]), whole)
