"""Every message that crosses between nodes, encoded and decoded in one place.

========================  =========  ===================================  ==========================================
type                      to         carries                              reply
========================  =========  ===================================  ==========================================
``query.role``            any        the job                              role, index within it, simulated or not
``train.classifier``      provider   the job                              psi's accuracy, digest and learning curve
``train``                 user       the job, round, theta or nothing     metrics, and theta where one was sent
``evaluate``              user       the job, theta or nothing            loss and accuracy on validation images
``query.publish``         user       the job, the average or nothing      the theta that goes public, curve, traffic
``evaluate.test``         user       the job, theta                       predicted labels of protected test images
``evaluate.itn``          evaluator  the job, theta, predicted labels     measures per image, curves, pictures
``evaluate.study``        evaluator  the job, who has published           rows of a study's table
``query.images``          provider   user index                           ids of X' and of validation images
``query.loss_gradient``   provider   x_hat, ids, user, images before      dL_class/dx_hat, loss, number correct
``query.loss``            provider   x_hat, ids                           loss, number correct
``query.lesson``          provider   user, number, bitmaps, ids           loss, number correct
``query.exam``            provider   user, number, bitmaps, ids           loss, number correct
``query.classify``        provider   bitmaps, user or psi                 predicted labels
``query.recall``          provider   user                                 protected images that it saw, ids
``query.published``       ServerApp  user                                 the theta that the user has published
``query.psi``             provider   the job                              psi's digest; load, in direct exchange
``train.resume``          user       the job, ticket, provider's answer   the next request, or the final reply
``evaluate.resume``       user,      the job, ticket, provider's answer   the next request, or the final reply
                          evaluator
========================  =========  ===================================  ==========================================

A message to the provider may hold the requests of many users, numbered; its reply holds their answers under the same
numbers, or one line of text where a request could not be answered. No message to a user has a field for labels of X'.
What is asked of the ServerApp is a request like the others, answered from the run folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor

from roles.common.exchange import (
    Answer,
    Classify,
    Exam,
    ExchangeError,
    Gradient,
    ImageIds,
    Lesson,
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
)
from roles.common.weights import State
from sim.config import Experiment, one_line

JOB, ARRAYS, METRICS, REQUEST, ANSWER = "config", "arrays", "metrics", "request", "answer"
LOAD = "load"
PUBLISHED = "query.published"
"""The request that the ServerApp answers, and not the provider."""


class MessageError(ValueError):
    """A message that cannot be understood; one line that says what is wrong with it."""


@dataclass(frozen=True)
class _Shape:
    """What a tensor field of a message must look like."""

    dtype: torch.dtype
    dimensions: int


_IMAGES = _Shape(torch.float32, 4)
_BITMAPS = _Shape(torch.uint8, 4)
_INDICES = _Shape(torch.int64, 1)

_Schema = dict[str, _Shape | type]
"""The fields of a message: tensors of one shape, numbers, and a ``dict`` for named tensors of any shape."""

_REQUESTS: dict[type[Request], tuple[str, _Schema]] = {
    TrainingImages: ("query.images", {"user": int}),
    LossGradient: ("query.loss_gradient", {"protected": _IMAGES, "ids": _INDICES, "user": int, "asked": int}),
    Losses: ("query.loss", {"protected": _IMAGES, "ids": _INDICES}),
    Lesson: ("query.lesson", {"user": int, "number": int, "images": _BITMAPS, "ids": _INDICES}),
    Exam: ("query.exam", {"user": int, "number": int, "images": _BITMAPS, "ids": _INDICES}),
    Classify: ("query.classify", {"images": _BITMAPS, "user": int}),
    Recall: ("query.recall", {"user": int}),
    Published: (PUBLISHED, {"user": int}),
}
_ANSWERS: dict[type[Answer], tuple[str, _Schema]] = {
    ImageIds: ("images", {"train": _INDICES, "validation": _INDICES}),
    Gradient: ("loss_gradient", {"gradient": _IMAGES, "loss": float, "correct": int}),
    LossValues: ("loss", {"loss": float, "correct": int}),
    Predictions: ("classify", {"labels": _INDICES}),
    Memories: ("recall", {"protected": _BITMAPS, "ids": _INDICES}),
    Theta: ("published", {"theta": dict}),
}
REQUEST_TYPES = tuple(name for name, _ in _REQUESTS.values())
PROVIDER_TYPES = tuple(name for name in REQUEST_TYPES if name != PUBLISHED)


# ---- theta and other tensors -------------------------------------------------------------------------------------


def encode_tensors(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Encode named tensors."""
    return ArrayRecord({name: Array(value.detach().cpu().numpy()) for name, value in tensors.items()})


def decode_tensors(record: ArrayRecord) -> State:
    """Decode named tensors.

    Raises:
        MessageError: an array is not what its own header says.
    """
    return {name: _tensor(name, array) for name, array in record.items()}


def _tensor(name: str, array: Array) -> Tensor:
    try:
        values = array.numpy()
        if str(values.dtype) != array.dtype or values.shape != tuple(array.shape):
            raise ValueError(f"header says {array.dtype} {tuple(array.shape)}, data are {values.dtype} {values.shape}")
        return torch.from_numpy(values)
    except Exception as error:  # whatever numpy raises on bytes that another party has made up
        raise MessageError(f"array {name!r} cannot be decoded ({one_line(error)})") from error


# ---- requests and answers ----------------------------------------------------------------------------------------


def encode_request(request: Request) -> tuple[str, RecordDict]:
    """Return the message type and the content of a request."""
    message_type, schema = _REQUESTS[type(request)]
    return message_type, _encode_fields(request, message_type, schema)


def decode_request(message_type: str, content: RecordDict) -> Request:
    """Decode a request.

    Raises:
        MessageError: unknown type, a field missing, of the wrong dtype or number of dimensions.
    """
    for kind, (name, schema) in _REQUESTS.items():
        if name == message_type:
            return kind(**_decode_fields(content, name, schema))
    raise MessageError(f"unknown message type {message_type!r}: must be one of {', '.join(REQUEST_TYPES)}")


def encode_answer(answer: Answer) -> RecordDict:
    """Encode the provider's answer."""
    name, schema = _ANSWERS[type(answer)]
    return _encode_fields(answer, name, schema)


def encode_refusal(error: Exception) -> RecordDict:
    """Encode why a request could not be answered."""
    return RecordDict({ANSWER: ConfigRecord({"kind": "refusal", "reason": one_line(error)})})


def decode_answer(content: RecordDict) -> Answer:
    """Decode the provider's answer.

    Raises:
        ExchangeError: the provider refused the request; its reason.
        MessageError: not an answer, or a field missing or of the wrong form.
    """
    config = content.config_records.get(ANSWER)
    kind_name = None if config is None else config.get("kind")
    if config is not None and kind_name == "refusal":
        raise ExchangeError(f"the provider refused: {config.get('reason')!s}")
    for kind, (name, schema) in _ANSWERS.items():
        if name == kind_name:
            return kind(**_decode_fields(content, name, schema))
    raise MessageError(f"unknown kind of answer {kind_name!r}")


def _encode_fields(message: Request | Answer, kind: str, schema: _Schema) -> RecordDict:
    values = {field.name: getattr(message, field.name) for field in fields(message)}
    tensors = {name: values[name] for name, form in schema.items() if isinstance(form, _Shape)}
    named = {name: encode_tensors(values[name]) for name, form in schema.items() if form is dict}
    numbers = {name: values[name] for name in schema if name not in tensors and name not in named}
    return RecordDict({ARRAYS: encode_tensors(tensors), ANSWER: ConfigRecord({"kind": kind, **numbers}), **named})


def _decode_fields(content: RecordDict, kind: str, schema: _Schema) -> dict[str, Any]:
    arrays, config = content.array_records.get(ARRAYS), content.config_records.get(ANSWER)
    decoded: dict[str, Any] = {}
    for name, form in schema.items():
        if form is dict:
            if name not in content.array_records:
                raise MessageError(f"{kind}: field {name!r} is missing")
            decoded[name] = decode_tensors(content.array_records[name])
            continue
        holder: Mapping[str, Any] | None = arrays if isinstance(form, _Shape) else config
        if holder is None or name not in holder:
            raise MessageError(f"{kind}: field {name!r} is missing")
        if isinstance(form, _Shape):
            value = _tensor(name, holder[name])
            if value.dtype != form.dtype or value.dim() != form.dimensions:
                raise MessageError(
                    f"{kind}: {name!r} is {value.dtype} with {value.dim()} dimensions, "
                    f"expected {form.dtype} with {form.dimensions}"
                )
            decoded[name] = value
        else:
            if type(holder[name]) is not form:
                raise MessageError(f"{kind}: {name!r} is {type(holder[name]).__name__}, expected {form.__name__}")
            decoded[name] = holder[name]
    return decoded


def content_bytes(content: RecordDict) -> int:
    """Return the size of the arrays of a message: what the wire carries, but for some hundred bytes of headers."""
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())


def content_images(content: RecordDict) -> int:
    """Return the number of images in an encoded request; 0 where it asks without any."""
    arrays = (array for record in content.array_records.values() for array in record.values())
    return sum(array.shape[0] for array in arrays if len(array.shape) == _IMAGES.dimensions)


# ---- many requests in one message --------------------------------------------------------------------------------


def merge(contents: Mapping[int, RecordDict]) -> RecordDict:
    """Put several numbered contents into one."""
    return RecordDict(
        {f"{number}/{name}": record for number, part in contents.items() for name, record in part.items()}
    )


def split(content: RecordDict) -> dict[int, RecordDict]:
    """Undo :func:`merge`.

    Raises:
        MessageError: a record is not numbered.
    """
    parts: dict[int, RecordDict] = {}
    for key, record in content.items():
        number, slash, name = key.partition("/")
        if not slash or not number.isdecimal():
            raise MessageError(f"record {key!r} has no number: records for the provider are named <number>/<name>")
        parts.setdefault(int(number), RecordDict())[name] = record
    return parts


# ---- jobs: what every message to a node starts with ----------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What a node needs to know to do its part."""

    experiment: Experiment
    run: Path
    """The run folder, where nodes keep state between messages."""
    first_round: int = 0
    """Rounds that were finished before this process began (a resumed run)."""
    server_round: int = 0
    """The round as the strategy counts it, from 1."""
    rounds: int = 1
    """How many rounds a user trains through on its own, from this one on."""
    subject: str = ""
    """What an evaluator attacks: ``user-0003``, or the name of a control; of a study, ``<kind>/<part>``."""

    @property
    def round(self) -> int:
        """The round as the experiment counts it, from 1."""
        return self.first_round + self.server_round


def encode_job(job: Job) -> ConfigRecord:
    """Encode a job; a strategy adds ``server-round`` to it, as Flower's strategies do."""
    return ConfigRecord(
        {
            "experiment": job.experiment.model_dump_json(),
            "run": str(job.run),
            "first-round": job.first_round,
            "server-round": job.server_round,
            "rounds": job.rounds,
            "subject": job.subject,
        }
    )


def job_content(job: Job, **records: ArrayRecord | ConfigRecord) -> RecordDict:
    """Return the content of a message that carries a job, and ``records`` beside it."""
    return RecordDict({JOB: encode_job(job), **records})


def decode_job(content: RecordDict) -> Job:
    """Decode the job of a message.

    Raises:
        MessageError: there is none, or it is not one.
    """
    record = content.config_records.get(JOB)
    if record is None or "experiment" not in record or "run" not in record:
        raise MessageError("the message carries no job (a config record with 'experiment' and 'run')")
    try:
        return Job(
            experiment=Experiment.model_validate_json(str(record["experiment"])),
            run=Path(str(record["run"])),
            first_round=int(cast(int, record.get("first-round", 0))),
            server_round=int(cast(int, record.get("server-round", 0))),
            rounds=int(cast(int, record.get("rounds", 1))),
            subject=str(record.get("subject", "")),
        )
    except (ValueError, TypeError) as error:
        raise MessageError(f"the job of the message cannot be read ({one_line(error)})") from error


def suspended(request: RecordDict, message_type: str, ticket: int) -> RecordDict:
    """Encode a node's reply that asks for something: a request, and the ticket to go on with."""
    asked = ConfigRecord({"type": message_type, "ticket": ticket})
    return RecordDict({REQUEST: asked, **dict(request.items())})


@dataclass(frozen=True)
class Suspension:
    """A node's reply that asks for something, decoded."""

    message_type: str
    ticket: int
    request: RecordDict


def suspension_of(reply: Message) -> Suspension | None:
    """Return what a reply asks for, or nothing if it is final.

    Raises:
        MessageError: it asks for something that the provider does not answer, or has no ticket.
    """
    record = reply.content.config_records.get(REQUEST)
    if record is None:
        return None
    if record.get("type") not in REQUEST_TYPES or type(record.get("ticket")) is not int:
        raise MessageError(
            f"the node asks for {record.get('type')!r} with ticket {record.get('ticket')!r}: "
            f"must be one of {', '.join(REQUEST_TYPES)} with a number"
        )
    request = RecordDict({name: value for name, value in reply.content.items() if name != REQUEST})
    return Suspension(str(record["type"]), int(cast(int, record["ticket"])), request)


def resume_content(job: ConfigRecord, ticket: int, answer: RecordDict) -> RecordDict:
    """Encode the provider's answer for the node that asked, with the job it is working on."""
    return RecordDict({JOB: job, REQUEST: ConfigRecord({"ticket": ticket}), **dict(answer.items())})


def decode_ticket(content: RecordDict) -> int:
    """Return the ticket of a resume message.

    Raises:
        MessageError: it has none.
    """
    record = content.config_records.get(REQUEST)
    if record is None or type(record.get("ticket")) is not int:
        raise MessageError("a resume message needs the ticket of the request it answers")
    return cast(int, record["ticket"])
