"""Requests to the provider's endpoint that no honest user would send."""

from collections.abc import Callable
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from roles.common.exchange import (
    PSI,
    Classify,
    FitClassifier,
    Losses,
    LossGradient,
    Recall,
    Reconstruct,
    Request,
    TrainingImages,
    ValidateClassifier,
    guest,
)
from sim.exchange.messages import ANSWER, ARRAYS, encode_request


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def bitmaps(count: int = 4) -> Tensor:
    return (255 * images(count)).byte()


def huge(own: Tensor, user: int = 0) -> RecordDict:
    """A request whose header claims 10 GB of images, few enough and of one user's."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (60, 3, 4000, 3500), }\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
    content = encode_request(LossGradient(images(), own[:4], user, 0))[1]
    content.array_records[ARRAYS]["protected"] = Array("float32", (60, 3, 4000, 3500), "numpy.ndarray", data)
    return content


def with_field(own: Tensor, name: str, value: Any) -> RecordDict:
    """A request for a gradient with one field of another kind, or without it."""
    content = encode_request(LossGradient(images(), own[:4], 0, 0))[1]
    if isinstance(value, Tensor):
        content.array_records[ARRAYS][name] = Array(value.numpy())
    elif name in ("protected", "ids"):
        del content.array_records[ARRAYS][name]
    elif value is None:
        del content.config_records[ANSWER][name]
    else:
        content.config_records[ANSWER][name] = value
    return content


HOSTILE: dict[str, Callable[[Tensor, Tensor], Request | tuple[str, RecordDict] | bytes]] = {
    "another user's ids": lambda own, other: TrainingImages(1),
    "nobody's ids": lambda own, other: TrainingImages(7),
    "a gradient as another user": lambda own, other: LossGradient(images(), other[:4], 1, 0),
    "a gradient as a guest": lambda own, other: LossGradient(images(), own[:4], guest(0), 0),
    "another user's images": lambda own, other: LossGradient(images(), other[:4], 0, 0),
    "one image of another user": lambda own, other: LossGradient(images(), torch.cat([own[:3], other[:1]]), 0, 0),
    "an id that is none": lambda own, other: LossGradient(images(), own[:4] + 10**6, 0, 0),
    "a negative id": lambda own, other: LossGradient(images(), own[:4] - 10**6, 0, 0),
    "too few ids": lambda own, other: LossGradient(images(), own[:2], 0, 0),
    "no image": lambda own, other: LossGradient(images(0), own[:0], 0, 0),
    "larger images": lambda own, other: LossGradient(torch.rand(4, 3, 9, 9), own[:4], 0, 0),
    "flat images": lambda own, other: LossGradient(torch.rand(4, 192), own[:4], 0, 0),
    "grey images": lambda own, other: LossGradient(images()[:, :1], own[:4], 0, 0),
    "bitmaps for images": lambda own, other: LossGradient(bitmaps(), own[:4], 0, 0),
    "double precision": lambda own, other: LossGradient(images().double(), own[:4], 0, 0),
    "values above 1": lambda own, other: LossGradient(images() + 1, own[:4], 0, 0),
    "values below 0": lambda own, other: LossGradient(images() - 1, own[:4], 0, 0),
    "no number": lambda own, other: LossGradient(images() * torch.nan, own[:4], 0, 0),
    "infinite values": lambda own, other: LossGradient(images() + torch.inf, own[:4], 0, 0),
    "more images than a request may have": lambda own, other: LossGradient(
        images(65), own[torch.zeros(65).long()], 0, 0
    ),
    "losses as another user": lambda own, other: Losses(images(), torch.arange(4), 1),
    "losses as psi": lambda own, other: Losses(images(), torch.arange(4), PSI),
    "losses of images that are not there": lambda own, other: Losses(images(), torch.arange(4) + 10**6, 0),
    "to train another's classifier": lambda own, other: FitClassifier(1, 0, bitmaps(), other[:4]),
    "to train a classifier it has not": lambda own, other: FitClassifier(0, 0, bitmaps(), own[:4]),
    "to validate another's classifier": lambda own, other: ValidateClassifier(1, 0, bitmaps(), torch.arange(4)),
    "to validate a classifier it has not": lambda own, other: ValidateClassifier(0, 0, bitmaps(), torch.arange(4)),
    "labels by another's classifier": lambda own, other: Classify(bitmaps(), 1),
    "labels by a classifier it has not": lambda own, other: Classify(bitmaps(), 0),
    "labels by the evaluator's classifier": lambda own, other: Classify(bitmaps(), -2),
    "labels of no image": lambda own, other: Classify(bitmaps(0), PSI),
    "what was seen of another": lambda own, other: Recall(1),
    "what was seen of itself": lambda own, other: Recall(0),
    "another's reconstructions": lambda own, other: Reconstruct(1, bitmaps()),
    "its own reconstructions": lambda own, other: Reconstruct(0, bitmaps()),
    "a header that claims 10 GB": lambda own, other: ("query.loss_gradient", huge(own)),
    "no images at all": lambda own, other: ("query.loss_gradient", with_field(own, "protected", None)),
    "no ids at all": lambda own, other: ("query.loss_gradient", with_field(own, "ids", None)),
    "no user at all": lambda own, other: ("query.loss_gradient", with_field(own, "user", None)),
    "a user that is text": lambda own, other: ("query.loss_gradient", with_field(own, "user", "0")),
    "a user that is a fraction": lambda own, other: ("query.loss_gradient", with_field(own, "user", 0.0)),
    "a count that is text": lambda own, other: ("query.loss_gradient", with_field(own, "asked", "0")),
    "ids that are fractions": lambda own, other: ("query.loss_gradient", with_field(own, "ids", own[:4].double())),
    "a message that there is not": lambda own, other: ("query.theta", RecordDict()),
    "a message of another node": lambda own, other: ("train", RecordDict()),
    "the ServerApp's answer": lambda own, other: ("query.published", RecordDict({ANSWER: ConfigRecord({"user": 0})})),
    "nothing": lambda own, other: b"",
    "nonsense": lambda own, other: b"nonsense" * 100,
    "arrays that are none": lambda own, other: (
        "query.loss_gradient",
        RecordDict(
            {
                ANSWER: ConfigRecord({"user": 0, "asked": 0}),
                ARRAYS: ArrayRecord({"protected": Array("float32", (1,), "numpy.ndarray", b"nonsense")}),
            }
        ),
    ),
}
