"""Requests to the provider and its answers."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from roles.common.exchange import (
    Answer,
    Classify,
    ExchangeError,
    FitClassifier,
    Gradient,
    ImageIds,
    Losses,
    LossGradient,
    LossValues,
    Memories,
    Predictions,
    Published,
    Recall,
    Reconstruct,
    Reconstructions,
    Request,
    Theta,
    TrainingImages,
    ValidateClassifier,
)
from sim.exchange import messages
from sim.exchange.messages import (
    ANSWER,
    ARRAYS,
    content_size,
    decode_answer,
    decode_request,
    encode_answer,
    encode_refusal,
    encode_request,
    merge,
    size_of,
    split,
)
from tests.sim.exchange.wire import FINITE, PIXELS, assert_same, one_line, tensors

INT64 = st.integers(-(2**63), 2**63 - 1)
BITMAPS = hnp.arrays(np.uint8, st.tuples(*[st.integers(0, 3)] * 4))
INDICES = hnp.arrays(np.int64, st.integers(0, 5), elements=INT64)
REQUESTS = st.one_of(
    st.builds(TrainingImages, user=INT64),
    st.builds(LossGradient, protected=tensors(PIXELS), ids=tensors(INDICES), user=INT64, asked=INT64),
    st.builds(Losses, protected=tensors(PIXELS), ids=tensors(INDICES), user=INT64),
    st.builds(FitClassifier, user=INT64, number=INT64, images=tensors(BITMAPS), ids=tensors(INDICES)),
    st.builds(ValidateClassifier, user=INT64, number=INT64, images=tensors(BITMAPS), ids=tensors(INDICES)),
    st.builds(Classify, images=tensors(BITMAPS), user=INT64),
    st.builds(Published, user=INT64),
    st.builds(Recall, user=INT64),
    st.builds(Reconstruct, user=INT64, images=tensors(BITMAPS)),
)
ANSWERS = st.one_of(
    st.builds(ImageIds, train=tensors(INDICES), validation=tensors(INDICES)),
    st.builds(Gradient, gradient=tensors(PIXELS), loss=FINITE, correct=INT64),
    st.builds(LossValues, loss=FINITE, correct=INT64),
    st.builds(Predictions, labels=tensors(INDICES)),
    st.builds(Theta, theta=st.dictionaries(st.text(max_size=5), tensors(PIXELS), max_size=3)),
    st.builds(Memories, protected=tensors(BITMAPS), ids=tensors(INDICES)),
    st.builds(Reconstructions, images=tensors(BITMAPS)),
)


@settings(max_examples=60, deadline=None)
@given(REQUESTS)
def test_a_request_arrives_as_it_was_sent(request: Request) -> None:
    message_type, content = encode_request(request)
    assert_same(request, decode_request(message_type, content))


@settings(max_examples=60, deadline=None)
@given(ANSWERS)
def test_an_answer_arrives_as_it_was_sent(answer: Answer) -> None:
    assert_same(answer, decode_answer(encode_answer(answer)))


def test_every_request_has_a_type_of_its_own() -> None:
    names = ("images", "loss_gradient", "loss", "fit", "validate", "classify", "recall", "reconstruct", "published")
    assert tuple(f"query.{name}" for name in names) == messages.REQUEST_TYPES


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.integers(0, 1000), REQUESTS, max_size=4))
def test_requests_of_many_users_travel_in_one_message(requests: dict[int, Request]) -> None:
    encoded = {number: encode_request(request) for number, request in requests.items()}
    parts = split(merge({number: content for number, (_, content) in encoded.items()}))
    assert list(parts) == list(requests)
    for number, request in requests.items():
        assert_same(request, decode_request(encoded[number][0], parts[number]))


def test_the_size_of_a_message_is_that_of_its_arrays() -> None:
    # 2 * 3 * 4 * 5 floats of 4 bytes and 2 indices of 8.
    assert size_of(LossGradient(torch.zeros(2, 3, 4, 5), torch.zeros(2, dtype=torch.int64), 0, 0)) == (2, 480 + 16)
    assert size_of(LossValues(1.0, 2)) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(REQUESTS)
def test_a_request_has_the_same_size_on_the_wire_and_in_one_process(request: Request) -> None:
    assert content_size(encode_request(request)[1]) == size_of(request)


@settings(max_examples=60, deadline=None)
@given(ANSWERS)
def test_an_answer_has_the_same_size_on_the_wire_and_in_one_process(answer: Answer) -> None:
    assert content_size(encode_answer(answer)) == size_of(answer)


def test_a_loss_that_is_a_tensor_arrives_as_a_number() -> None:
    answer = Gradient(torch.zeros(1, 3, 4, 4), torch.tensor(0.5).double(), torch.tensor(3))
    arrived = decode_answer(encode_answer(answer))
    assert isinstance(arrived, Gradient)
    assert (arrived.loss, arrived.correct) == (0.5, 3)
    assert size_of(answer) == size_of(arrived)


def gradient_request() -> RecordDict:
    return encode_request(LossGradient(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), 0, 0))[1]


def with_array(name: str, array: Array) -> RecordDict:
    content = gradient_request()
    content.array_records[ARRAYS][name] = array
    return content


def test_an_unknown_message_type_is_named_and_the_known_ones_listed() -> None:
    text = one_line(lambda: decode_request("query.labels", gradient_request()))
    assert "'query.labels'" in text
    assert all(known in text for known in messages.REQUEST_TYPES)


@pytest.mark.parametrize("name", ["protected", "ids"])
def test_a_missing_field_is_named(name: str) -> None:
    content = gradient_request()
    del content.array_records[ARRAYS][name]
    assert one_line(lambda: decode_request("query.loss_gradient", content)) == (
        f"query.loss_gradient: field {name!r} is missing"
    )


@pytest.mark.parametrize(("message_type", "field"), [("query.images", "user"), ("query.loss", "protected")])
def test_a_content_without_any_record_lacks_its_first_field(message_type: str, field: str) -> None:
    text = one_line(lambda: decode_request(message_type, RecordDict()))
    assert text == f"{message_type}: field {field!r} is missing"


@pytest.mark.parametrize(
    ("field", "value", "found", "expected"),
    [
        ("protected", torch.zeros(2, 3, 4, 4, dtype=torch.float64), "float64 with 4", "float32 with 4"),
        ("protected", torch.zeros(3, 4, 4), "float32 with 3", "float32 with 4"),
        ("ids", torch.zeros(2, dtype=torch.int32), "int32 with 1", "int64 with 1"),
        ("ids", torch.tensor(1), "int64 with 0", "int64 with 1"),
    ],
)
def test_a_tensor_of_the_wrong_form_is_refused(field: str, value: Tensor, found: str, expected: str) -> None:
    content = with_array(field, Array(value.numpy()))
    assert one_line(lambda: decode_request("query.loss_gradient", content)) == (
        f"query.loss_gradient: {field!r} is torch.{found} dimensions, expected torch.{expected}"
    )


@pytest.mark.parametrize("value", [1.0, "1", True, [1]])
def test_a_number_of_the_wrong_type_is_refused(value: float | str | bool | list[int]) -> None:
    content = RecordDict({ARRAYS: ArrayRecord(), ANSWER: ConfigRecord({"user": value})})
    text = one_line(lambda: decode_request("query.images", content))
    assert text == f"query.images: 'user' is {type(value).__name__}, expected int"


def test_a_refusal_is_an_exchange_error_with_its_reason_in_one_line() -> None:
    with pytest.raises(ExchangeError, match=r"^the provider refused: image id 9 is\s+unknown$"):
        decode_answer(encode_refusal(ValueError("image id 9 is\n  unknown")))


def test_what_is_no_answer_is_refused() -> None:
    assert one_line(lambda: decode_answer(RecordDict())) == "unknown kind of answer None"
    for kind, shown in (("labels", "'labels'"), ([1, 2], "[1, 2]")):
        strange = RecordDict({ANSWER: ConfigRecord({"kind": kind})})
        assert one_line(lambda strange=strange: decode_answer(strange)) == f"unknown kind of answer {shown}"
    text = one_line(lambda: decode_answer(RecordDict({ANSWER: ConfigRecord({"kind": "loss", "correct": 1})})))
    assert text == "loss: field 'loss' is missing"


@pytest.mark.parametrize("key", ["arrays", "one/arrays", "/arrays", "-1/arrays", "²/arrays"])
def test_a_record_for_the_provider_without_a_number_is_refused(key: str) -> None:
    text = one_line(lambda: split(RecordDict({"0/arrays": ArrayRecord(), key: ArrayRecord()})))
    assert text.startswith(f"record {key!r} has no number")
