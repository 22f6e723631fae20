"""What a party may ask of the provider, and what it gets: the exchange of Section III-B as plain data.

A party's work is written as a generator that yields requests and is sent answers, so the same code runs whether the
provider is a function call away or behind a network. The rule that makes this work across processes: **a generator
started anew from the same state yields the same first request again.** Whoever runs it may therefore drop it at any
yield, keep the state, and go on elsewhere.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from roles.common.images import all_finite
from roles.common.weights import State

ResultT = TypeVar("ResultT")
PSI = -1
"""In place of a user's number: psi, which serves all."""


def other_classifier(number: int) -> int:
    """Return what stands in place of a user's number for the other classifiers of the provider, counted from 0.

    >>> other_classifier(0), other_classifier(1)
    (-2, -3)
    """
    return PSI - 1 - number


class ExchangeError(ValueError):
    """A request or an answer that does not make sense; the message says what and what would be right."""


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Ask which images of X' are this user's, and which validation images to select by."""

    user: int


@dataclass(frozen=True, eq=False)
class ImageIds:
    """The provider's answer to :class:`TrainingImages`: positions in the train and validation sets, int64 ``(M,)``."""

    train: Tensor
    validation: Tensor


@dataclass(frozen=True, eq=False)
class LossGradient:
    """Ask for L_class of protected training images and its gradient.

    ``protected`` is float32 ``(N, 3, H, W)`` in [0, 1]; ``ids`` int64 ``(N,)`` are positions in the train set; ``user``
    is who asks, and ``asked`` for how many images it has had gradients before. No answer depends on these two, but a
    curious provider takes note; after an interruption the same request may come again.
    """

    protected: Tensor
    ids: Tensor
    user: int
    asked: int


@dataclass(frozen=True, eq=False)
class Gradient:
    """dL_class/dx_hat for the batch mean of L_class (Eq. 5), float32 like x_hat; the loss; how many were correct."""

    gradient: Tensor
    loss: float
    correct: int


@dataclass(frozen=True, eq=False)
class Losses:
    """Ask for L_class of protected validation images, without a gradient.

    ``protected`` is as in :class:`LossGradient`; ``ids`` int64 ``(N,)`` are positions in the validation set.
    """

    protected: Tensor
    ids: Tensor


@dataclass(frozen=True, eq=False)
class LossValues:
    """The mean loss of the images of :class:`Losses`, :class:`Lesson` or :class:`Exam`; how many were correct."""

    loss: float
    correct: int


LESSON_IMAGES = 7680
"""What a lesson holds, but for the last of an epoch: 24 MB of 32-pixel images, and whole batches of most sizes."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """Ask the provider to train this user's own classifier on protected training bitmaps, uint8 ``(N, 3, H, W)``.

    For the conventional protections, which change the classifier and not the images. An epoch is all of X', in lessons
    of :data:`LESSON_IMAGES` as :func:`roles.common.batches.batch_sizes` cuts it. ``ids`` are as in
    :class:`LossGradient`. ``number`` counts the user's lessons and exams from 0: the same number again is the same
    request again, and is answered as before.
    """

    user: int
    number: int
    images: Tensor
    ids: Tensor


@dataclass(frozen=True, eq=False)
class Exam:
    """Ask how this user's own classifier does on protected validation bitmaps, after an epoch of lessons.

    Fields as in :class:`Lesson`. The provider keeps the classifier with the lowest loss.
    """

    user: int
    number: int
    images: Tensor
    ids: Tensor


@dataclass(frozen=True, eq=False)
class Classify:
    """Ask for the service itself: the predicted labels of bitmaps, uint8 ``(N, 3, H, W)``, protected or plain.

    ``user`` names whose own classifier is to be used, the one with the best exam; ``PSI`` is psi, and what
    :func:`other_classifier` returns is another that the provider has trained on plain images.
    """

    images: Tensor
    user: int = PSI


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted labels, int64 ``(N,)``."""

    labels: Tensor


@dataclass(frozen=True, eq=False)
class Published:
    """Ask for the theta that a user has published; it is public, and whoever runs the experiment answers."""

    user: int


@dataclass(frozen=True, eq=False)
class Theta:
    """A published theta; empty where the user's protection is a key, or none."""

    theta: State


@dataclass(frozen=True, eq=False)
class Recall:
    """Ask a curious provider what it remembers of a user's training."""

    user: int


@dataclass(frozen=True, eq=False)
class Memories:
    """The last protected images that a user was given gradients for, and which images of the train set they show.

    ``protected`` is uint8 ``(M, 3, H, W)``, in no order; ``ids`` int64 ``(M,)``. M may be 0.
    """

    protected: Tensor
    ids: Tensor


Request = TrainingImages | LossGradient | Losses | Lesson | Exam | Classify | Published | Recall
Answer = ImageIds | Gradient | LossValues | Predictions | Theta | Memories
AnswerT = TypeVar("AnswerT", ImageIds, Gradient, LossValues, Predictions, Theta, Memories)
Work = Generator[Request, Answer, ResultT]


def expect(answer: Answer, kind: type[AnswerT]) -> AnswerT:
    """Return ``answer`` if it is of the kind that was asked for.

    Raises:
        ExchangeError: it is of another kind, or its loss is not finite.
    """
    if not isinstance(answer, kind):
        raise ExchangeError(f"the provider answered with {type(answer).__name__}, expected {kind.__name__}")
    if isinstance(answer, Gradient | LossValues) and not math.isfinite(answer.loss):
        raise ExchangeError(f"the provider answered with a loss of {answer.loss}, expected a finite one")
    return answer


def checked_gradient(answer: Answer, like: Tensor) -> Gradient:
    """Return ``answer`` if it is a usable gradient for the batch ``like``.

    Raises:
        ExchangeError: wrong kind, shape or dtype, or values that are not finite.
    """
    gradient = expect(answer, Gradient)
    value = gradient.gradient
    if value.shape != like.shape or value.dtype != torch.float32:
        raise ExchangeError(
            f"gradient is {value.dtype} {tuple(value.shape)}, expected torch.float32 {tuple(like.shape)}"
        )
    if not all_finite(value):
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
