import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from roles.common.passing import passes_through


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def found(protected: Tensor, plain: Tensor) -> float:
    alike = passes_through(protected, plain)
    assert alike.shape == ()
    return alike.item()


def test_all_of_an_image_passes_through_where_it_is_left_as_it_is() -> None:
    plain = noise(0, 5, 3, 32, 32)
    assert found(plain, plain) == pytest.approx(1)


def test_all_of_an_image_passes_through_in_its_negative_and_in_less_contrast() -> None:
    plain = noise(0, 5, 3, 32, 32)
    assert found(1 - plain, plain) == pytest.approx(1)
    assert found(0.4 + 0.02 * plain, plain) == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(down=st.integers(-3, 3), right=st.integers(-3, 3), negative=st.booleans(), seed=st.integers(0, 99))
def test_images_that_were_moved_pass_through_as_well(down: int, right: int, negative: bool, seed: int) -> None:
    plain = noise(seed, 3, 3, 32, 32)
    moved = torch.roll(1 - plain if negative else plain, (down, right), (2, 3))
    assert found(moved, plain) == pytest.approx(1)


def test_small_images_are_moved_by_an_eighth_of_their_side() -> None:
    plain = noise(0, 5, 3, 8, 16)
    assert found(torch.roll(plain, (1, -1), (2, 3)), plain) == pytest.approx(1)
    assert found(torch.roll(plain, 2, 2), plain) < 0.5


def test_next_to_nothing_passes_through_where_protected_images_are_noise() -> None:
    assert found(noise(1, 200, 3, 32, 32), noise(2, 200, 3, 32, 32)) < 0.05


@pytest.mark.parametrize("level", [0.0, 0.3, 0.7, 1.0])
def test_nothing_passes_through_where_either_image_is_flat(level: float) -> None:
    images = noise(0, 5, 3, 30, 30)
    flat = torch.full_like(images, level)
    for protected, plain in ((flat, images), (images, flat), (flat, flat)):
        assert found(protected, plain) == 0
    flat[..., :3, :] = 1 - level  # beyond the pixels that are compared
    assert found(images, flat) == 0


def test_a_window_that_is_flat_in_an_image_that_is_not_correlates_with_nothing() -> None:
    plain, protected = noise(0, 5, 3, 32, 32), torch.full((5, 3, 32, 32), 0.3)
    protected[..., -1] = 1
    assert found(protected, plain) < 0.2  # of moves that leave this column out, nothing
    assert found(protected[..., :31], plain[..., :31]) == 0


def test_half_of_the_images_count_not_the_few_that_pass_through() -> None:
    plain = noise(0, 9, 3, 32, 32)
    protected = noise(1, 9, 3, 32, 32)
    protected[:4] = plain[:4]
    assert found(protected, plain) < 0.3
    protected[4] = 1 - plain[4]
    assert found(protected, plain) == pytest.approx(1)


def test_bitmaps_and_the_same_images_as_floats_pass_through_alike() -> None:
    plain = noise(0, 5, 3, 32, 32).mul(255).to(torch.uint8)
    protected = (plain // 2 + noise(1, 5, 3, 32, 32).mul(127).to(torch.uint8)).flip(3)
    as_floats = found(protected.float() / 255, plain.float() / 255)
    assert found(protected, plain) == pytest.approx(as_floats, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 9),
    height=st.integers(8, 33),
    width=st.integers(8, 33),
    share=st.floats(-1, 1),
    seed=st.integers(0, 999),
)
def test_what_passes_through_is_the_best_median_of_correlations_move_by_move(
    count: int, height: int, width: int, share: float, seed: int
) -> None:
    plain, other = noise(seed, 2 * count, 3, height, width).split(count)
    protected = (share * torch.roll(plain, (1, -1), (2, 3)) + other + 1) / 3

    reach = min(3, min(height, width) // 8)
    rows, columns = height - 2 * reach, width - 2 * reach
    middle = plain.double().mean(1)[:, reach : reach + rows, reach : reach + columns]
    alike = {}
    for down, right in itertools.product(range(-reach, reach + 1), repeat=2):
        window = protected.double().mean(1)[:, reach + down :, reach + right :][:, :rows, :columns]
        pairs = zip(window.flatten(1), middle.flatten(1), strict=True)
        alike[down, right] = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).abs().median()

    assert found(protected, plain) == pytest.approx(max(alike.values()).item(), abs=1e-5)


def test_nobody_waits_for_a_device_to_know_what_passes_through() -> None:
    images = torch.empty(5, 3, 32, 32, device="meta")  # has shapes and no values: to read one is an error
    assert passes_through(images, images).shape == ()
