"""What crosses a line to the provider's endpoint."""

import contextlib
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.exchange.line import ACCESS, Access, access_in, from_bytes, to_bytes
from sim.exchange.messages import MessageError, decode_tensors


def test_an_access_arrives_as_it_was_sent() -> None:
    access = Access("host:1", "certificate", "token")
    assert access_in(RecordDict({ACCESS: access.encode()})) == access
    assert access_in(RecordDict()) is None


def test_half_an_access_is_refused() -> None:
    with pytest.raises(MessageError, match="in part"):
        access_in(RecordDict({ACCESS: ConfigRecord({"address": "host:1", "token": 3})}))


@given(
    kind=st.text(max_size=30),
    numbers=st.dictionaries(st.text(min_size=1, max_size=8), st.integers(-(2**63), 2**63 - 1), max_size=3),
    values=st.lists(st.floats(width=32, allow_nan=False), max_size=20),
)
def test_a_message_arrives_as_it_was_sent(kind: str, numbers: dict[str, int], values: list[float]) -> None:
    content = RecordDict(
        {
            "numbers": ConfigRecord(dict(numbers)),
            "metrics": MetricRecord(dict(numbers)),
            "arrays": ArrayRecord({"values": Array(np.array(values, dtype=np.float32))}),
        }
    )
    assert from_bytes(to_bytes(kind, content)) == (kind, content)


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_message_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        from_bytes(data)
    assert "\n" not in str(caught.value)


@settings(max_examples=300)
@given(st.data())
def test_a_message_with_changed_bytes_is_read_or_refused(data: st.DataObject) -> None:
    sent = bytearray(to_bytes("query.loss", RecordDict({"arrays": ArrayRecord({"x": Array(np.ones(3))})})))
    for _ in range(data.draw(st.integers(1, 4))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MessageError):
        _, content = from_bytes(bytes(sent))
        for record in content.array_records.values():
            decode_tensors(record)


def test_a_header_that_claims_10_gb_is_refused_before_memory_is_taken() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2500000000,), }\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
    record = ArrayRecord({"x": Array("float32", (2500000000,), "numpy.ndarray", data)})
    tracemalloc.start()
    with pytest.raises(MessageError, match="claims 10000000000 bytes of float32, 64 follow"):
        decode_tensors(record)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()
