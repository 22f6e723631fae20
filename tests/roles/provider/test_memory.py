from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.provider.memory import Memory

CAPACITY, SIDE = 7, 2


def batch(ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one grey each, which is their id."""
    numbers = torch.tensor(ids, dtype=torch.int64)
    return (numbers.float() / 255).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE), numbers


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=12), max_size=5))
def test_the_last_images_are_kept_with_their_ids_whatever_the_batches(batches: list[list[int]]) -> None:
    with TemporaryDirectory() as folder:
        for ids in batches:
            Memory(Path(folder), CAPACITY, SIDE).note(3, *batch(ids))  # a new object each time, as in another process
        kept = Memory(Path(folder), CAPACITY, SIDE).recall(3)
    everything = [identifier for ids in batches for identifier in ids]
    assert sorted(kept.ids.tolist()) == sorted(everything[-CAPACITY:])
    assert torch.equal(kept.protected, kept.ids.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE))


def test_of_a_user_who_never_asked_nothing_is_kept(tmp_path: Path) -> None:
    memory = Memory(tmp_path, CAPACITY, SIDE)
    memory.note(0, *batch([1]))
    kept = memory.recall(1)
    assert kept.protected.shape == (0, 3, SIDE, SIDE)
    assert kept.ids.shape == (0,)
    assert kept.ids.dtype == torch.int64
