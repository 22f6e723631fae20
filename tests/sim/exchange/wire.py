"""What may be sent, whether it has come as it was sent, and how it is refused if not."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from sim.exchange.messages import MessageError

FINITE = st.floats(allow_nan=False)
PIXELS = hnp.arrays(np.float32, st.tuples(*[st.integers(0, 3)] * 4), elements=st.floats(-2, 2, width=32))


def tensors(arrays: st.SearchStrategy[np.ndarray]) -> st.SearchStrategy[Tensor]:
    return arrays.map(lambda array: torch.from_numpy(array.copy()))


def assert_same(one: object, other: object) -> None:
    assert type(one) is type(other)
    for field in dataclasses.fields(one):  # type: ignore[arg-type]
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, Tensor):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)
        elif isinstance(mine, dict):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        else:
            assert mine == theirs
            assert type(mine) is type(theirs)


def one_line(call: Callable[[], object]) -> str:
    with pytest.raises(MessageError) as caught:
        call()
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text
