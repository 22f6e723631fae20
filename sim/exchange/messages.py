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
``evaluate.itn``          evaluator  the job, subject, attacks on it      measures per image, curves, pictures
                                     that are known, theta, labels
``evaluate.study``        evaluator  the job, study, who has published    rows of a study's table, pictures
``query.images``          provider   user index                           ids of X' and of validation images
``query.loss_gradient``   provider   x_hat, ids, user, images before      dL_class/dx_hat, loss, number correct
``query.loss``            provider   x_hat, ids, user                     loss, number correct
``query.fit``             provider   user, number, bitmaps, ids           loss, number correct
``query.validate``        provider   user, number, bitmaps, ids           loss, number correct
``query.classify``        provider   bitmaps, user or psi                 predicted labels
``query.recall``          provider   user                                 protected images that it saw, ids
``query.reconstruct``     provider   user, bitmaps                        estimates of what they were made of
``query.published``       ServerApp  user                                 the theta that the user has published
``query.psi``             provider   the job                              psi's digest; load, unless relayed
``query.endpoint``        provider   the job                              how each node reaches its endpoint
``query.hang_up``         provider   the job                              nothing: the endpoint is closed
``train.resume``          user       the job, session, ticket, answer     the next request, or the final reply
``evaluate.resume``       user,      the job, session, ticket, answer     the next request, or the final reply
                          evaluator
========================  =========  ===================================  ==========================================

A message to the provider may hold the requests of many users, numbered; its reply holds their answers under the same
numbers, or one line of text where a request could not be answered. No message to a user has a field for labels of X'.
What is asked of the ServerApp is a request like the others, answered from the run folder.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from io import BytesIO
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from roles.common import exchange
from roles.common.exchange import Answer, ExchangeError, Request
from roles.common.weights import State
from sim.config.errors import one_line

JOB, ARRAYS, METRICS, ANSWER, LOAD = "config", "arrays", "metrics", "answer", "load"
"""Names of records in messages; those that Flower's strategies read have Flower's names."""
PUBLISHED = "query.published"
"""The request that the ServerApp answers, and not the provider."""


class MessageError(ValueError):
    """A message that cannot be understood; one line that says what is wrong with it."""


@dataclass(frozen=True)
class _Shape:
    """What a tensor field of a message must look like."""

    dtype: torch.dtype
    dimensions: int


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_IMAGES = _Shape(torch.float32, 4)
_BITMAPS = _Shape(torch.uint8, 4)
_INDICES = _Shape(torch.int64, 1)

_Schema = dict[str, _Shape | type]
"""The fields of a message: tensors of one shape, numbers, and a ``dict`` for named tensors of any shape."""

_FITTED: _Schema = {"user": int, "number": int, "images": _BITMAPS, "ids": _INDICES}
_REQUESTS: dict[str, tuple[type[Request], _Schema]] = {
    "query.images": (exchange.TrainingImages, {"user": int}),
    "query.loss_gradient": (
        exchange.LossGradient,
        {"protected": _IMAGES, "ids": _INDICES, "user": int, "asked": int},
    ),
    "query.loss": (exchange.Losses, {"protected": _IMAGES, "ids": _INDICES, "user": int}),
    "query.fit": (exchange.FitClassifier, _FITTED),
    "query.validate": (exchange.ValidateClassifier, _FITTED),
    "query.classify": (exchange.Classify, {"images": _BITMAPS, "user": int}),
    "query.recall": (exchange.Recall, {"user": int}),
    "query.reconstruct": (exchange.Reconstruct, {"user": int, "images": _BITMAPS}),
    PUBLISHED: (exchange.Published, {"user": int}),
}
_ANSWERS: dict[str, tuple[type[Answer], _Schema]] = {
    "images": (exchange.ImageIds, {"train": _INDICES, "validation": _INDICES}),
    "loss_gradient": (exchange.Gradient, {"gradient": _IMAGES, "loss": float, "correct": int}),
    "loss": (exchange.LossValues, {"loss": float, "correct": int}),
    "classify": (exchange.Predictions, {"labels": _INDICES}),
    "recall": (exchange.Memories, {"protected": _BITMAPS, "ids": _INDICES}),
    "reconstruct": (exchange.Reconstructions, {"images": _BITMAPS}),
    "published": (exchange.Theta, {"theta": dict}),
}
_REQUEST_NAMES = {kind: name for name, (kind, _) in _REQUESTS.items()}
_ANSWER_NAMES = {kind: name for name, (kind, _) in _ANSWERS.items()}
REQUEST_TYPES = tuple(_REQUESTS)
PROVIDER_TYPES = tuple(name for name in REQUEST_TYPES if name != PUBLISHED)


# ---- theta and other tensors -------------------------------------------------------------------------------------


def encode_tensors(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Encode named tensors."""
    return ArrayRecord({name: Array(value.detach().cpu().contiguous().numpy()) for name, value in tensors.items()})


def decode_tensors(record: ArrayRecord) -> State:
    """Decode named tensors.

    Raises:
        MessageError: an array is not what its own header says.
    """
    return {name: _tensor(name, array) for name, array in record.items()}


def _tensor(name: str, array: Array) -> Tensor:
    try:
        if array.stype != "numpy.ndarray":
            raise ValueError(f"it is {array.stype!r}, expected 'numpy.ndarray'")
        values = _unpacked(array.data)
        if str(values.dtype) != array.dtype or values.shape != tuple(array.shape):
            raise ValueError(f"header says {array.dtype} {tuple(array.shape)}, data are {values.dtype} {values.shape}")
        return torch.from_numpy(values)
    except Exception as error:  # whatever numpy raises on bytes that another party has made up
        raise MessageError(f"array {name!r} cannot be decoded ({one_line(error)})") from error


def _unpacked(data: bytes) -> NDArray[Any]:
    """Return the array of ``data`` in numpy's format, whose header is believed only if as many bytes follow it.

    ``numpy.load`` takes the memory that a header claims before it looks for the values.
    """
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"numpy's format {version}: must be one of {', '.join(map(str, _HEADERS))}")
    shape, fortran, dtype = _HEADERS[version](stream)
    claimed, found = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if dtype.hasobject or claimed != found:
        raise ValueError(f"its header claims {claimed} bytes of {dtype}, {found} follow")
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C").copy()


# ---- requests and answers ----------------------------------------------------------------------------------------


def encode_request(request: Request) -> tuple[str, RecordDict]:
    """Return the message type and the content of a request."""
    message_type = _REQUEST_NAMES[type(request)]
    return message_type, _encode_fields(request, message_type, _REQUESTS[message_type][1])


def decode_request(message_type: str, content: RecordDict) -> Request:
    """Decode a request.

    Raises:
        MessageError: unknown type, a field missing, of the wrong dtype or number of dimensions.
    """
    if message_type not in _REQUESTS:
        raise MessageError(f"unknown message type {message_type!r}: must be one of {', '.join(REQUEST_TYPES)}")
    kind, schema = _REQUESTS[message_type]
    return kind(**_decode_fields(content, message_type, schema))


def user_of(content: RecordDict) -> int:
    """Return the user that an encoded request names, without decoding the rest.

    Raises:
        MessageError: it names none.
    """
    user = content.config_records.get(ANSWER, ConfigRecord()).get("user")
    if type(user) is not int:
        raise MessageError(f"the request names user {user!r}: must be a number")
    return user


def encode_answer(answer: Answer) -> RecordDict:
    """Encode the provider's answer."""
    name = _ANSWER_NAMES[type(answer)]
    return _encode_fields(answer, name, _ANSWERS[name][1])


def refused(reason: str) -> ExchangeError:
    """Return what whoever asked is to raise where the provider has refused."""
    return ExchangeError(f"the provider refused: {reason}")


def encode_refusal(error: Exception) -> RecordDict:
    """Encode why a request could not be answered."""
    return RecordDict({ANSWER: ConfigRecord({"kind": "refusal", "reason": one_line(error)})})


def decode_answer(content: RecordDict) -> Answer:
    """Decode the provider's answer.

    Raises:
        ExchangeError: the provider refused the request; its reason.
        MessageError: not an answer, or a field missing or of the wrong form.
    """
    config = content.config_records.get(ANSWER, ConfigRecord())
    name = str(config.get("kind"))
    if name == "refusal":
        raise refused(str(config.get("reason")))
    if name not in _ANSWERS:
        raise MessageError(f"unknown kind of answer {config.get('kind')!r}")
    kind, schema = _ANSWERS[name]
    return kind(**_decode_fields(content, name, schema))


def _encode_fields(message: Request | Answer, kind: str, schema: _Schema) -> RecordDict:
    values = {field.name: getattr(message, field.name) for field in fields(message)}
    tensors = {name: values[name] for name, form in schema.items() if isinstance(form, _Shape)}
    named = {name: encode_tensors(values[name]) for name, form in schema.items() if form is dict}
    # A loss that was computed on a GPU may be a tensor still.
    numbers = {name: form(values[name]) for name, form in schema.items() if form in (int, float)}
    return RecordDict({ARRAYS: encode_tensors(tensors), ANSWER: ConfigRecord({"kind": kind, **numbers}), **named})


def _decode_fields(content: RecordDict, kind: str, schema: _Schema) -> dict[str, Any]:
    return {name: _decode_field(content, kind, name, form) for name, form in schema.items()}


def _decode_field(content: RecordDict, kind: str, name: str, form: _Shape | type) -> Any:
    holder: Any = content.config_records.get(ANSWER)
    if form is dict or isinstance(form, _Shape):
        holder = content.array_records if form is dict else content.array_records.get(ARRAYS)
    if holder is None or name not in holder:
        raise MessageError(f"{kind}: field {name!r} is missing")
    found = holder[name]
    if form is dict:
        return decode_tensors(found)
    if isinstance(form, _Shape):
        value = _tensor(name, found)
        if value.dtype != form.dtype or value.dim() != form.dimensions:
            found = f"{value.dtype} with {value.dim()} dimensions"
            raise MessageError(f"{kind}: {name!r} is {found}, expected {form.dtype} with {form.dimensions}")
        return value
    if type(found) is not form:
        raise MessageError(f"{kind}: {name!r} is {type(found).__name__}, expected {form.__name__}")
    return found


def content_size(content: RecordDict) -> tuple[int, int]:
    """Return the images and the bytes of the arrays of a message: what the wire carries, but for headers."""
    arrays = [array for record in content.array_records.values() for array in record.values()]
    images = sum(max(0, array.shape[0]) for array in arrays if len(array.shape) == _IMAGES.dimensions)
    return images, sum(len(array.data) - _header_size(array.data) for array in arrays)


def _header_size(data: bytes) -> int:
    """Return how long the header of an array in numpy's format is; of anything else, which is refused later, 0."""
    size = 10 + int.from_bytes(data[8:10], "little") if data.startswith(b"\x93NUMPY") else 0
    return min(size, len(data))


def size_of(message: Request | Answer) -> tuple[int, int]:
    """Return the :func:`content_size` that a request or an answer has once it is encoded."""
    values = [getattr(message, field.name) for field in fields(message)]
    # A loss may be a tensor without dimensions; the wire carries it as a number.
    tensors = [value for value in values if isinstance(value, Tensor) and value.dim()]
    tensors += [tensor for value in values if isinstance(value, dict) for tensor in value.values()]
    images = sum(len(tensor) for tensor in tensors if tensor.dim() == _IMAGES.dimensions)
    return images, sum(tensor.nbytes for tensor in tensors)


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
