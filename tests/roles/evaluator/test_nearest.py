"""Which images come nearest to others."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from roles.evaluator import nearest
from roles.evaluator.nearest import distances, retrieved


def bitmaps(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 100))
def test_distances_are_exact_however_near_images_are(queries: int, candidates: int, seed: int) -> None:
    a, b = bitmaps(queries, seed), bitmaps(candidates, seed + 1)
    b[0] = a[0]
    expected = (a.long().unsqueeze(1) - b.long().unsqueeze(0)).square().sum((2, 3, 4))
    assert torch.equal(distances(a, b), expected.double())


def test_images_find_themselves_and_those_of_another_order_do_not() -> None:
    plain = bitmaps(10)
    assert retrieved(plain, plain) == 1
    assert retrieved(plain.roll(1, 0), plain) == 0


def test_estimates_that_are_all_the_same_find_one_image() -> None:
    plain = bitmaps(10)
    assert abs(retrieved(plain[3:4].expand(10, -1, -1, -1), plain) - 0.1) < 1e-6


def test_of_more_images_than_there_are_places_the_first_are_looked_up() -> None:
    plain = bitmaps(1010)
    assert nearest._MOST_CANDIDATES == 1000
    estimates = torch.cat([plain[:1000], 255 - plain[1000:]])
    assert retrieved(estimates, plain) == 1
