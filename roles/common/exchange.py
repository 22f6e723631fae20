"""What a party may ask of the provider, and what it gets: the exchange of Section III-B as plain data.

A party's work is a generator that yields requests and is sent answers. **One started anew from the same state yields
the same first request again**: whoever runs it may drop it at any yield, keep the state, and go on elsewhere.

Protected images are float32 ``(N, 3, H, W)`` in [0, 1], bitmaps uint8 ``(N, 3, H, W)``; ``ids`` are their positions in
the train set or, in validation, in the validation set, int64 ``(N,)``, on the CPU. Images and gradients are wherever
their party computes.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from roles.common.compute import Number
from roles.common.images import all_finite
from roles.common.weights import State

ResultT = TypeVar("ResultT")
PSI = -1
"""In place of a user's number: psi, which serves all."""
FIT_IMAGES = 7680
"""Images of a :class:`FitClassifier`, but for the last of an epoch: 24 MB at 32 pixels, and whole batches mostly."""


def other_classifier(number: int) -> int:
    """Return what stands in place of a user's number for the provider's other classifiers of plain images, from 0.

    >>> other_classifier(0), other_classifier(1)
    (-2, -3)
    """
    return PSI - 1 - number


def guest(number: int) -> int:
    """Return what stands in place of a user's number for whoever asks for gradients and is none of the run's users.

    A hostile user is one: what it asks is not taken for what the user did whose images it has.

    >>> guest(0), guest(1)
    (-1, -2)
    """
    return -1 - number


class ExchangeError(ValueError):
    """A request or an answer that does not make sense; the message says what and what would be right."""


@dataclass(frozen=True, eq=False)
class _OfUser:
    user: int


@dataclass(frozen=True, eq=False)
class _Protected:
    protected: Tensor
    ids: Tensor


@dataclass(frozen=True, eq=False)
class _ForOwnClassifier:
    user: int
    number: int
    images: Tensor
    ids: Tensor


class TrainingImages(_OfUser):
    """Ask which images of X' are this user's, and which validation images to select by."""


@dataclass(frozen=True, eq=False)
class ImageIds:
    """The provider's answer to :class:`TrainingImages`: positions in the train and validation sets, int64 ``(M,)``."""

    train: Tensor
    validation: Tensor


@dataclass(frozen=True, eq=False)
class LossGradient(_Protected):
    """Ask for L_class of protected training images and its gradient.

    An honest provider's answer depends neither on the ``user``, or :func:`guest`, nor on how many images it has
    ``asked`` about before. But a curious one takes note, one with a budget
    (:class:`roles.common.config.provider.DefenceConfig`) counts by itself and refuses, and a hostile one has an answer
    for each user. After an interruption the same request may come again.
    """

    user: int
    asked: int


@dataclass(frozen=True, eq=False)
class Gradient:
    """dL_class/dx_hat for the batch mean of L_class (Eq. 5), float32 like x_hat; the loss; how many were correct.

    What a provider's terms (:class:`roles.common.config.provider.DefenceConfig`) leave of them, where it has any.
    """

    gradient: Tensor
    loss: Number
    correct: Number


@dataclass(frozen=True, eq=False)
class Losses(_Protected):
    """Ask for L_class of protected validation images, without a gradient; ``user`` is as in :class:`LossGradient`."""

    user: int = PSI


@dataclass(frozen=True, eq=False)
class LossValues:
    """The mean loss of the images of a request, and how many were classified correctly."""

    loss: Number
    correct: Number


class FitClassifier(_ForOwnClassifier):
    """Ask the provider to train this user's own classifier on protected training bitmaps: for a protection by a key.

    An epoch is all of X', in parts of :data:`FIT_IMAGES` (see :func:`roles.common.batches.batch_sizes`). ``number``
    counts these requests and :class:`ValidateClassifier` of a user from 0; the same again is answered as before.
    """


class ValidateClassifier(_ForOwnClassifier):
    """Ask how it does on protected validation bitmaps after an epoch; the provider keeps the best such classifier."""


@dataclass(frozen=True, eq=False)
class Classify:
    """Ask for the service itself: labels of bitmaps by psi, a user's own classifier or an :func:`other_classifier`."""

    images: Tensor
    user: int = PSI


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted labels, int64 ``(N,)``."""

    labels: Tensor


class Published(_OfUser):
    """Ask for the theta that a user has published; it is public, and whoever runs the experiment answers."""


@dataclass(frozen=True, eq=False)
class Theta:
    """A published theta; empty where the user's protection is a key, or none."""

    theta: State


class Recall(_OfUser):
    """Ask a curious provider what it remembers of a user's training."""


class Memories(_Protected):
    """The last protected bitmaps that a user was given gradients for, none or more, in no order, and their ids."""


@dataclass(frozen=True, eq=False)
class Reconstruct:
    """Ask a hostile provider what a hijacked user's protected bitmaps were made of."""

    user: int
    images: Tensor


@dataclass(frozen=True, eq=False)
class Reconstructions:
    """The provider's estimates, bitmaps like those that it was given."""

    images: Tensor


Request = (
    TrainingImages
    | LossGradient
    | Losses
    | FitClassifier
    | ValidateClassifier
    | Classify
    | Published
    | Recall
    | Reconstruct
)
Answer = ImageIds | Gradient | LossValues | Predictions | Theta | Memories | Reconstructions
AnswerT = TypeVar("AnswerT", ImageIds, Gradient, LossValues, Predictions, Theta, Memories, Reconstructions)
Work = Generator[Request, Answer, ResultT]


def expect(answer: Answer, kind: type[AnswerT]) -> AnswerT:
    """Return ``answer`` if it is of the kind that was asked for.

    Raises:
        ExchangeError: it is of another kind, or its loss is not finite (on a GPU, whoever reads it sees that).
    """
    if not isinstance(answer, kind):
        raise ExchangeError(f"the provider answered with {type(answer).__name__}, expected {kind.__name__}")
    loss = answer.loss if isinstance(answer, Gradient | LossValues) else 0.0
    if isinstance(loss, float) and not math.isfinite(loss):
        raise ExchangeError(f"the provider answered with a loss of {loss}, expected a finite one")
    return answer


def checked_gradient(answer: Answer, like: Tensor) -> Gradient:
    """Return ``answer`` if it is a usable gradient for the batch ``like``.

    Raises:
        ExchangeError: wrong kind, shape or dtype, or values that are not finite (not looked at on a GPU: the next loss
            is not finite then).
    """
    gradient = expect(answer, Gradient)
    value = gradient.gradient
    if value.shape != like.shape or value.dtype != torch.float32:
        expected = f"expected torch.float32 {tuple(like.shape)}"
        raise ExchangeError(f"gradient is {value.dtype} {tuple(value.shape)}, {expected}")
    if not value.is_cuda and not all_finite(value):
        raise ExchangeError("gradient holds values that are not finite")
    return gradient


def drive(work: Work[ResultT], answer: Callable[[Request], Answer]) -> ResultT:
    """Run ``work`` to its end with a provider that is a call away."""
    try:
        request = next(work)
        while True:
            request = work.send(answer(request))
    except StopIteration as end:
        result: ResultT = end.value
        return result
