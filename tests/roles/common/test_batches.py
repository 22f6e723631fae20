import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.common.batches import Batches

counts, sizes, seeds = st.integers(2, 60), st.integers(2, 20), st.integers(0, 100)


@settings(max_examples=60, deadline=None)
@given(count=counts, size=sizes, seed=seeds)
def test_every_image_comes_exactly_once_an_epoch_and_no_batch_holds_a_single_one(
    count: int, size: int, seed: int
) -> None:
    ids = torch.arange(count) * 7 + 3
    batches = Batches(ids, size, seed)
    for epoch in range(2):
        got = [batches.ids_at(epoch * batches.per_epoch + position) for position in range(batches.per_epoch)]
        assert torch.equal(torch.cat(got).sort().values, ids)
        assert all(2 <= len(batch) <= size + 1 for batch in got)
        assert all(len(batch) == size for batch in got[:-1])


@settings(max_examples=60, deadline=None)
@given(count=counts, size=sizes, seed=seeds, data=st.data())
def test_no_batch_is_smaller_than_the_least_unless_all_images_are_fewer(
    count: int, size: int, seed: int, data: st.DataObject
) -> None:
    least = data.draw(st.integers(1, size))
    batches = Batches(torch.arange(count), size, seed, least)
    got = [len(batches.ids_at(position)) for position in range(batches.per_epoch)]
    assert sum(got) == count
    assert all(min(count, least) <= length < size + max(2, least) for length in got)


@settings(max_examples=30, deadline=None)
@given(count=counts, size=sizes, seed=seeds, steps=st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_a_batch_depends_on_seed_and_step_alone(count: int, size: int, seed: int, steps: list[int]) -> None:
    asked_before = Batches(torch.arange(count), size, seed)
    for step in steps:
        fresh = Batches(torch.arange(count), size, seed)
        assert torch.equal(asked_before.ids_at(step), fresh.ids_at(step))


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [(6, 3, [3, 3]), (8, 3, [3, 3, 2]), (7, 3, [3, 4]), (3, 2, [3]), (4, 9, [4]), (2, 2, [2])],
)
def test_a_single_image_left_over_joins_the_batch_before_it(count: int, size: int, lengths: list[int]) -> None:
    batches = Batches(torch.arange(count), size, seed=0)
    assert [len(batches.ids_at(step)) for step in range(batches.per_epoch)] == lengths


def test_epochs_and_seeds_differ_in_order() -> None:
    first, other = Batches(torch.arange(50), 50, seed=0), Batches(torch.arange(50), 50, seed=1)
    assert not torch.equal(first.ids_at(0), first.ids_at(1))
    assert not torch.equal(first.ids_at(0), other.ids_at(0))
