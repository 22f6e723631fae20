from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.common.exchange import LossGradient
from roles.provider.memory import Memory

CAPACITY, SIDE, USER = 7, 2, 3


def request(ids: list[int], asked: int) -> LossGradient:
    """Images of one grey each, which is their id."""
    numbers = torch.tensor(ids, dtype=torch.int64)
    return LossGradient((numbers.float() / 255).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE), numbers, USER, asked)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=12), max_size=5))
def test_the_last_images_are_kept_with_their_ids_whatever_the_batches(batches: list[list[int]]) -> None:
    with TemporaryDirectory() as folder:
        asked = 0
        for ids in batches:
            for _ in range(2):  # a new object each time, as in another process, and as if the first had been cut off
                Memory(Path(folder), CAPACITY, SIDE).note(request(ids, asked))
            asked += len(ids)
        kept = Memory(Path(folder), CAPACITY, SIDE).recall(USER)
    everything = [identifier for ids in batches for identifier in ids]
    assert sorted(kept.ids.tolist()) == sorted(everything[-CAPACITY:])
    assert torch.equal(kept.protected, kept.ids.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE))


def test_of_a_user_who_never_asked_nothing_is_kept(tmp_path: Path) -> None:
    memory = Memory(tmp_path, CAPACITY, SIDE)
    memory.note(request([1], 0))
    kept = memory.recall(USER + 1)
    assert kept.protected.shape == (0, 3, SIDE, SIDE)
    assert kept.ids.shape == (0,)
    assert kept.ids.dtype == torch.int64
