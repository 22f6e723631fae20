"""The provider at work: psi frozen, answering users (Section III-B, "L_class is calculated by the cloud provider")."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.data import ImageStore
from roles.common.exchange import (
    PSI,
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
    Predictions,
    Published,
    Recall,
    Request,
    TrainingImages,
)
from roles.common.labels import load_labels
from roles.common.weights import State, cpu_state, digest, load_into
from roles.provider.classifiers import Classifier, ClassifierName
from roles.provider.memory import Memory
from roles.provider.pupils import Pupils
from roles.provider.training import predict


class Provider:
    """Holds psi, X' and Y, and gives away neither psi nor Y.

    Args:
        name: architecture of psi.
        state: weights of psi; frozen and in eval mode from here on.
        assignment: for each user, which images of the train set are its X', int64 ``(M,)``.
        validation: positions in the validation set by which users select their epoch, int64.
        pupils: the classifiers of users whose protection psi cannot read.
        memory: where a curious provider keeps what it is asked about; None: it keeps nothing.
        others: architecture and weights of further classifiers of plain images.

    Raises:
        ValueError: ``state`` does not fit ``name``.
    """

    def __init__(
        self,
        name: ClassifierName,
        state: State,
        store: ImageStore,
        compute: Compute,
        assignment: Sequence[Tensor],
        validation: Tensor,
        pupils: Pupils,
        memory: Memory | None = None,
        others: Sequence[tuple[ClassifierName, State]] = (),
    ) -> None:
        self._compute = compute
        self._side = store.side
        self._psi = _frozen(name, state, "psi", store, compute)
        self._others = [
            _frozen(kind, weights, f"other classifier {number}", store, compute)
            for number, (kind, weights) in enumerate(others)
        ]
        self._pupils, self._memory = pupils, memory
        self._assignment = assignment
        self._validation = validation
        self._labels = load_labels(store.folder, "train")
        self._validation_labels = load_labels(store.folder, "validation")

    def digest(self) -> str:
        """Return the SHA-256 of psi's weights: it never changes."""
        return digest(cpu_state(self._psi))

    def answer(self, request: Request) -> Answer:
        """Answer one request.

        Raises:
            ExchangeError: the request is malformed; the message says how. The provider is unharmed.
        """
        match request:
            case TrainingImages():
                return self._training_images(request)
            case LossGradient():
                return self._loss_gradient(request)
            case Losses():
                return self._losses(request)
            case Lesson():
                labels = self._labels_of_bitmaps(request, self._labels)
                return self._pupils.lesson(request.user, request.number, request.images, labels)
            case Exam():
                labels = self._labels_of_bitmaps(request, self._validation_labels)
                return self._pupils.exam(request.user, request.number, request.images, labels)
            case Classify():
                return self._classify(request)
            case Recall():
                if self._memory is None:
                    raise ExchangeError("this provider keeps nothing of what its users send")
                return self._memory.recall(request.user)
            case Published():
                raise ExchangeError("the provider does not know what users have published: the ServerApp does")

    def _training_images(self, request: TrainingImages) -> ImageIds:
        if not 0 <= request.user < len(self._assignment):
            raise ExchangeError(f"user {request.user} is unknown: users are 0 to {len(self._assignment) - 1}")
        return ImageIds(train=self._assignment[request.user], validation=self._validation)

    def _loss_gradient(self, request: LossGradient) -> Gradient:
        labels = self._labels_of(request.protected, request.ids, self._labels)
        protected = self._compute.batch(request.protected).detach().requires_grad_()
        with self._compute.autocast():
            logits = self._psi(protected)
        loss = F.cross_entropy(logits, labels)
        if self._memory is not None:
            self._memory.note(request)
        (gradient,) = torch.autograd.grad(loss, protected)
        return Gradient(
            gradient=gradient.float().cpu().contiguous(),
            loss=loss.item(),
            correct=int((logits.argmax(1) == labels).sum()),
        )

    def _losses(self, request: Losses) -> LossValues:
        labels = self._labels_of(request.protected, request.ids, self._validation_labels)
        with torch.no_grad(), self._compute.autocast():
            logits = self._psi(self._compute.batch(request.protected))
        return LossValues(loss=F.cross_entropy(logits, labels).item(), correct=int((logits.argmax(1) == labels).sum()))

    def _classify(self, request: Classify) -> Predictions:
        self._check_images(request.images, torch.uint8)
        if request.user >= 0:
            return Predictions(labels=self._pupils.classify(request.user, request.images))
        # psi is PSI, and the others follow it downwards.
        shared = [self._psi, *self._others]
        number = PSI - request.user
        if number >= len(shared):
            raise ExchangeError(f"other classifier {number - 1} is unknown: there are {len(self._others)}")
        return Predictions(labels=predict(shared[number], request.images, self._compute).argmax(1))

    def _check_images(self, images: Tensor, dtype: torch.dtype) -> None:
        expected = (3, self._side, self._side)
        if images.dtype != dtype or images.dim() != 4 or tuple(images.shape[1:]) != expected or len(images) == 0:
            raise ExchangeError(
                f"images are {images.dtype} {tuple(images.shape)}, expected {dtype} (N, {expected[0]}, "
                f"{expected[1]}, {expected[2]}) with N > 0"
            )

    def _labels_of(self, protected: Tensor, ids: Tensor, labels: Tensor) -> Tensor:
        self._check_images(protected, torch.float32)
        lowest, highest = protected.aminmax()
        # A comparison with NaN is false, so this catches values that are not finite as well.
        if not bool((lowest >= 0) & (highest <= 1)):
            raise ExchangeError("protected images must hold finite values in [0, 1]")
        return _looked_up(ids, len(protected), labels).to(self._compute.device)

    def _labels_of_bitmaps(self, request: Lesson | Exam, labels: Tensor) -> Tensor:
        self._check_images(request.images, torch.uint8)
        return _looked_up(request.ids, len(request.images), labels)


def _frozen(name: ClassifierName, state: State, source: str, store: ImageStore, compute: Compute) -> Classifier:
    classifier = Classifier(name, len(store.classes))
    load_into(classifier, state, source)
    return compute.module(classifier).eval().requires_grad_(False)


def _looked_up(ids: Tensor, count: int, labels: Tensor) -> Tensor:
    if ids.dtype != torch.int64 or ids.shape != (count,):
        raise ExchangeError(f"image ids are {ids.dtype} {tuple(ids.shape)}, expected torch.int64 ({count},)")
    if bool((ids < 0).any()) or bool((ids >= len(labels)).any()):
        unknown = ids[(ids < 0) | (ids >= len(labels))][0].item()
        raise ExchangeError(f"image id {unknown} is unknown: ids are 0 to {len(labels) - 1}")
    return labels[ids]
