import dataclasses
import io
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
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
    Request,
    Theta,
    TrainingImages,
    ValidateClassifier,
)
from roles.common.labels import load_labels
from roles.evaluator.results import AttackResult, Measured
from sim.config.experiment import Experiment
from sim.exchange import messages
from sim.exchange.job import Job, decode_job, encode_job
from sim.exchange.messages import (
    ANSWER,
    ARRAYS,
    JOB,
    METRICS,
    MessageError,
    content_bytes,
    decode_answer,
    decode_request,
    decode_tensors,
    encode_answer,
    encode_refusal,
    encode_request,
    encode_tensors,
    merge,
    split,
)
from sim.exchange.payloads import decode_attack, decode_curve, encode_attack, encode_curve
from sim.exchange.suspension import REQUEST, Suspension, Ticket, decode_resume, resume_content, suspension_of
from sim.nodes.provider.serving import answer_one, build_provider
from sim.run.machine import store_of

INT64 = st.integers(-(2**63), 2**63 - 1)
FINITE = st.floats(allow_nan=False)
PIXELS = hnp.arrays(np.float32, st.tuples(*[st.integers(0, 3)] * 4), elements=st.floats(-2, 2, width=32))
BITMAPS = hnp.arrays(np.uint8, st.tuples(*[st.integers(0, 3)] * 4))
INDICES = hnp.arrays(np.int64, st.integers(0, 5), elements=INT64)


def tensors(arrays: st.SearchStrategy[np.ndarray]) -> st.SearchStrategy[Tensor]:
    return arrays.map(lambda array: torch.from_numpy(array.copy()))


REQUESTS = st.one_of(
    st.builds(TrainingImages, user=INT64),
    st.builds(LossGradient, protected=tensors(PIXELS), ids=tensors(INDICES), user=INT64, asked=INT64),
    st.builds(Losses, protected=tensors(PIXELS), ids=tensors(INDICES)),
    st.builds(FitClassifier, user=INT64, number=INT64, images=tensors(BITMAPS), ids=tensors(INDICES)),
    st.builds(ValidateClassifier, user=INT64, number=INT64, images=tensors(BITMAPS), ids=tensors(INDICES)),
    st.builds(Classify, images=tensors(BITMAPS), user=INT64),
    st.builds(Published, user=INT64),
    st.builds(Recall, user=INT64),
)
ANSWERS = st.one_of(
    st.builds(ImageIds, train=tensors(INDICES), validation=tensors(INDICES)),
    st.builds(Gradient, gradient=tensors(PIXELS), loss=FINITE, correct=INT64),
    st.builds(LossValues, loss=FINITE, correct=INT64),
    st.builds(Predictions, labels=tensors(INDICES)),
    st.builds(Theta, theta=st.dictionaries(st.text(max_size=5), tensors(PIXELS), max_size=3)),
    st.builds(Memories, protected=tensors(BITMAPS), ids=tensors(INDICES)),
)


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


# ---- round trips -------------------------------------------------------------------------------------------------


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
    names = ("images", "loss_gradient", "loss", "fit", "validate", "classify", "recall", "published")
    assert tuple(f"query.{name}" for name in names) == messages.REQUEST_TYPES


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


ROWS = st.lists(st.dictionaries(st.sampled_from(["epoch", "loss", "accuracy"]), FINITE), max_size=4)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_a_curve_arrives_as_it_was_sent_whatever_its_rows_lack(rows: list[dict[str, float]]) -> None:
    complete = [{"step": float(number), **row} for number, row in enumerate(rows)]
    assert decode_curve(encode_curve(complete)) == complete


def test_a_value_that_is_not_a_number_is_left_out_of_its_row_and_of_no_other() -> None:
    rows = [{"epoch": 1.0, "loss": math.nan}, {"epoch": 2.0, "loss": 0.5}, {"loss": math.nan}]
    assert decode_curve(encode_curve(rows)) == [{"epoch": 1.0}, {"epoch": 2.0, "loss": 0.5}, {}]


def test_an_empty_curve_is_an_empty_curve() -> None:
    assert decode_curve(encode_curve([])) == []


def test_a_job_arrives_as_it_was_sent(experiment: Experiment) -> None:
    job = Job(experiment, Path("/runs/one two"), first_round=2, server_round=3, rounds=4)
    assert decode_job(RecordDict({JOB: encode_job(job)})) == job
    assert job.round == 5


def test_a_job_of_which_a_strategy_knows_nothing_begins_at_round_zero(experiment: Experiment) -> None:
    record = encode_job(Job(experiment, Path("/runs/one")))
    for key in ("first-round", "server-round", "rounds"):
        del record[key]
    assert decode_job(RecordDict({JOB: record})) == Job(experiment, Path("/runs/one"))


def result() -> AttackResult:
    def measured(value: float, lpips: bool, accuracy: float | None) -> Measured:
        return Measured(torch.full((3,), value), torch.full((3,), -value), torch.ones(3) if lpips else None, accuracy)

    return AttackResult(
        protected=measured(1, lpips=True, accuracy=0.25),
        estimates={"paper": measured(2, lpips=False, accuracy=0.0), "strong": measured(3, lpips=True, accuracy=1.0)},
        baselines={"mean_image": measured(4, lpips=False, accuracy=None)},
        curves={"paper": [{"epoch": 1.0, "train_loss": 0.5}], "strong": []},
        pictures={"plain": torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)},
    )


def test_the_result_of_an_attack_arrives_as_it_was_sent() -> None:
    sent = result()
    got = decode_attack(encode_attack(sent))
    for mine, theirs in (
        (sent.protected, got.protected),
        *((sent.estimates[name], got.estimates[name]) for name in ("paper", "strong")),
        (sent.baselines["mean_image"], got.baselines["mean_image"]),
    ):
        assert_same(mine, theirs)
    assert list(got.estimates) == ["paper", "strong"]
    assert list(got.baselines) == ["mean_image"]
    assert got.curves == sent.curves
    assert torch.equal(got.pictures["plain"], sent.pictures["plain"])


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.integers(0, 1000), REQUESTS, max_size=4))
def test_requests_of_many_users_travel_in_one_message(requests: dict[int, Request]) -> None:
    encoded = {number: encode_request(request) for number, request in requests.items()}
    parts = split(merge({number: content for number, (_, content) in encoded.items()}))
    assert list(parts) == list(requests)
    for number, request in requests.items():
        assert_same(request, decode_request(encoded[number][0], parts[number]))


def reply_with(content: RecordDict) -> Message:
    return Message(content, reply_to=Message(RecordDict(), 7, "train"))


def test_a_reply_that_asks_holds_the_request_and_the_ticket_to_go_on_with() -> None:
    message_type, content = encode_request(TrainingImages(4))
    ticket = Ticket("train", 9)
    suspension = suspension_of(reply_with(Suspension(message_type, ticket, content).encode()))
    assert suspension is not None
    assert (suspension.message_type, suspension.ticket) == ("query.images", ticket)
    assert_same(TrainingImages(4), decode_request(suspension.message_type, suspension.request))


def test_a_reply_that_asks_nothing_is_final() -> None:
    assert suspension_of(reply_with(RecordDict({METRICS: MetricRecord({"loss": 1.0})}))) is None


def test_an_answer_goes_back_with_job_and_ticket(experiment: Experiment) -> None:
    job = Job(experiment, Path("/runs/one"), server_round=1)
    ticket = Ticket("attack-user-0001", 9)
    content = resume_content(encode_job(job), ticket, encode_answer(LossValues(0.5, 3)))
    assert decode_job(content) == job
    found, answer = decode_resume(content)
    assert found == ticket
    assert list(answer) == [ANSWER, ARRAYS] or list(answer) == [ARRAYS, ANSWER]
    assert_same(LossValues(0.5, 3), decode_answer(answer))


def test_the_size_of_a_content_is_that_of_its_arrays() -> None:
    # numpy's format: a header of 128 bytes, then 2 * 3 * 4 * 5 floats of 4 bytes and 2 indices of 8.
    _, content = encode_request(LossGradient(torch.zeros(2, 3, 4, 5), torch.zeros(2, dtype=torch.int64), 0, 0))
    assert content_bytes(content) == (128 + 480) + (128 + 16)
    assert content_bytes(encode_answer(LossValues(1.0, 2))) == 0


# ---- nonsense ----------------------------------------------------------------------------------------------------


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


def test_a_message_without_a_job_is_refused() -> None:
    for content in (RecordDict(), RecordDict({JOB: ConfigRecord({"run": "/runs/one"})})):
        assert "carries no job" in one_line(lambda content=content: decode_job(content))


@pytest.mark.parametrize(
    "change",
    [
        {"experiment": "{"},
        {"experiment": '{"name": "a/b"}'},
        {"first-round": "one"},
        {"server-round": [1]},
    ],
)
def test_a_job_that_cannot_be_read_is_refused(experiment: Experiment, change: dict[str, str | list[int]]) -> None:
    record = encode_job(Job(experiment, Path("/runs/one")))
    for key, value in change.items():
        record[key] = value
    assert "the job of the message cannot be read" in one_line(lambda: decode_job(RecordDict({JOB: record})))


@pytest.mark.parametrize(
    "record", [{}, {"session": "train", "ticket": "1"}, {"ticket": 1}, {"session": "../../psi", "ticket": 1}]
)
def test_a_resume_message_without_a_sessions_name_and_ticket_is_refused(record: dict[str, str | int]) -> None:
    content = RecordDict({REQUEST: ConfigRecord(record)}) if record else RecordDict()
    assert "must be a session's name and a number" in one_line(lambda: decode_resume(content))


@pytest.mark.parametrize("key", ["arrays", "one/arrays", "/arrays", "-1/arrays", "²/arrays"])
def test_a_record_for_the_provider_without_a_number_is_refused(key: str) -> None:
    text = one_line(lambda: split(RecordDict({"0/arrays": ArrayRecord(), key: ArrayRecord()})))
    assert text.startswith(f"record {key!r} has no number")


@pytest.mark.parametrize("message_type", ["train.classifier", "query.psi"])
def test_a_node_can_ask_for_nothing_but_what_the_provider_answers(message_type: str) -> None:
    reply = reply_with(RecordDict({REQUEST: ConfigRecord({"type": message_type, "session": "train", "ticket": 1})}))
    assert f"asks for {message_type!r}" in one_line(lambda: suspension_of(reply))


def test_a_node_that_asks_without_a_ticket_is_refused() -> None:
    record = ConfigRecord({"type": "query.loss", "session": "train", "ticket": "1"})
    assert "session 'train' and ticket '1'" in one_line(
        lambda: suspension_of(reply_with(RecordDict({REQUEST: record})))
    )


def test_a_curve_with_ragged_columns_is_refused() -> None:
    for record in (MetricRecord({"a": [1.0, 2.0], "b": [1.0]}), MetricRecord({"a": [1.0], "b": 1.0})):
        assert "lists of one length: a, b" in one_line(lambda record=record: decode_curve(record))


@pytest.mark.parametrize("name", ["protected/psnr", "itn/paper/ssim"])
def test_a_reply_of_an_evaluator_that_lacks_a_measure_is_refused(name: str) -> None:
    content = encode_attack(result())
    del content.array_records[ARRAYS][name]
    assert one_line(lambda: decode_attack(content)) == f"the evaluator's reply lacks {name}"


def test_a_reply_without_measures_is_refused() -> None:
    assert one_line(lambda: decode_attack(RecordDict())) == "the evaluator's reply carries no measures"


# ---- what a user can learn ---------------------------------------------------------------------------------------


def test_no_answer_to_a_training_user_has_a_field_for_labels() -> None:
    kinds = dict(messages._ANSWERS.values())
    fields = {kind.__name__: [field.name for field in dataclasses.fields(kind)] for kind in kinds}
    assert fields == {
        "ImageIds": ["train", "validation"],
        "Gradient": ["gradient", "loss", "correct"],
        "LossValues": ["loss", "correct"],
        "Predictions": ["labels"],  # of the service itself, for whatever images are sent
        "Memories": ["protected", "ids"],
        "Theta": ["theta"],
    }
    for kind, schema in kinds.items():
        assert list(schema) == fields[kind.__name__]
    # Apart from ids, whatever is as long as the batch is the gradient; the rest is one number a batch.
    assert kinds[Gradient] == {"gradient": messages._IMAGES, "loss": float, "correct": int}
    assert kinds[LossValues] == {"loss": float, "correct": int}


def test_the_labels_of_a_batch_are_nowhere_in_the_providers_reply(job: Job) -> None:
    provider, store = build_provider(job), store_of(job.experiment)
    _, content = encode_request(TrainingImages(1))
    images = answer_one(provider, "query.images", content)
    assigned = decode_answer(images)
    assert isinstance(assigned, ImageIds)
    replies = [(images, load_labels(store.folder, "train")[assigned.train])]
    for split_name, ids in (("train", assigned.train), ("validation", assigned.validation)):
        batch = store.images(split_name)[ids].float() / 255  # type: ignore[index]
        request = LossGradient(batch, ids, 1, 0) if split_name == "train" else Losses(batch, ids)
        message_type, content = encode_request(request)
        replies.append((answer_one(provider, message_type, content), load_labels(store.folder, split_name)[ids]))  # type: ignore[arg-type]
    for reply, labels in replies:
        assert labels.unique().numel() > 5
        arrays = [array for record in reply.array_records.values() for array in record.values()]
        for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64):
            hidden = labels.to(dtype).numpy().tobytes()
            assert not any(hidden in array.data for array in arrays)
        values = [value for record in reply.config_records.values() for value in record.values()]
        assert all(isinstance(value, int | float | str) for value in values)
    # The gradient has the batch's shape and nothing besides; a loss has no array at all.
    gradient, loss = replies[1][0].array_records[ARRAYS], replies[2][0].array_records[ARRAYS]
    assert list(gradient) == ["gradient"]
    assert tuple(gradient["gradient"].shape) == (36, 3, store.side, store.side)
    assert list(loss) == []
