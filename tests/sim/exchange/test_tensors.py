"""Tensors in messages, and bytes that are none."""

import io
import warnings

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sim.exchange.messages import MessageError, decode_tensors, encode_tensors
from tests.sim.exchange.wire import PIXELS, one_line, tensors


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), tensors(PIXELS), max_size=3))
def test_tensors_keep_name_shape_and_value(state: dict[str, Tensor]) -> None:
    decoded = decode_tensors(encode_tensors(state))
    assert list(decoded) == list(state)
    assert all(torch.equal(decoded[name], state[name]) for name in state)


def test_scalars_and_integers_among_weights_stay_what_they_are() -> None:
    decoded = decode_tensors(encode_tensors({"tracked": torch.tensor(7), "weight": torch.ones(2, 2).t()}))
    assert torch.equal(decoded["tracked"], torch.tensor(7))
    assert decoded["tracked"].shape == ()
    assert torch.equal(decoded["weight"], torch.ones(2, 2))


@pytest.mark.parametrize(
    "value",
    [torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.rand(3, 4).t(), torch.rand(6, 4)[::2]],
    ids=["channels last", "transposed", "every other row"],
)
def test_a_tensor_arrives_contiguous_however_it_lay_in_memory(value: Tensor) -> None:
    assert not value.is_contiguous()
    arrived = decode_tensors(encode_tensors({"protected": value}))["protected"]
    assert arrived.is_contiguous()
    assert torch.equal(arrived, value)


def npy(header: str) -> bytes:
    line = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line


def archive() -> bytes:
    held = io.BytesIO()
    np.savez(held, a=np.zeros(3))
    return held.getvalue()


GOOD = Array(np.arange(6, dtype=np.float32).reshape(2, 3))
BROKEN = {
    "no bytes": b"",
    "a byte short": GOOD.data[:-1],
    "not numpy's": b"nonsense" * 30,
    "an archive of arrays": archive(),
    "a broken archive": b"PK\x03\x04nonsense",
    "a pickle": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"\x80\x04N.",
    "a header that ends early": npy("{'descr': '''"),
    "a header full of brackets": npy("(" * 300),
    "more values than memory": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,), }"),
    "more values than a number holds": npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**20},), }}"),
    "fewer values than none": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
    "text": Array(np.array(["a"])).data,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_bytes_that_are_no_array_are_refused_in_one_line(data: bytes) -> None:
    record = ArrayRecord({"weight": Array("float32", (2, 3), "numpy.ndarray", data)})
    assert one_line(lambda: decode_tensors(record)).startswith("array 'weight' cannot be decoded (")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_bytes_change_on_the_way_decoding_gives_a_tensor_or_one_line(data: st.DataObject) -> None:
    changed = bytearray(GOOD.data)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    record, said = ArrayRecord({"weight": Array("float32", (2, 3), "numpy.ndarray", bytes(changed))}), ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, on headers that Python 2 may have written
        try:
            shape = tuple(decode_tensors(record)["weight"].shape)
        except MessageError as error:
            shape, said = (2, 3), str(error)
    assert shape == (2, 3)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("dtype", "shape", "kind", "message"),
    [
        ("float64", (2, 3), "numpy.ndarray", r"header says float64 \(2, 3\), data are float32 \(2, 3\)"),
        ("float32", (3, 2), "numpy.ndarray", r"header says float32 \(3, 2\), data are float32 \(2, 3\)"),
        ("float32", (2, 3), "torch.pickle", "torch.pickle"),
    ],
)
def test_a_header_that_lies_is_refused(dtype: str, shape: tuple[int, ...], kind: str, message: str) -> None:
    record = ArrayRecord({"weight": Array(dtype, shape, kind, GOOD.data)})
    with pytest.raises(MessageError, match=message):
        decode_tensors(record)
