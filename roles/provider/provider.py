"""The provider at work: psi frozen, answering users (Section III-B, "L_class is calculated by the cloud provider")."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common import exchange
from roles.common.compute import Compute
from roles.common.config.classifier import ClassifierName
from roles.common.config.provider import DefenceConfig
from roles.common.data import ImageStore
from roles.common.exchange import PSI, ExchangeError
from roles.common.labels import load_labels
from roles.common.weights import State, cpu_state, digest, load_into
from roles.provider.classifiers import Classifier
from roles.provider.defence import Defence
from roles.provider.hijack import Hijacker
from roles.provider.memory import Memory
from roles.provider.training import predict
from roles.provider.user_classifiers import UserClassifiers

_MOST_OWNED = 256
"""Users of whom a provider keeps at hand which images are theirs."""


class Provider:
    """Holds psi, X' and Y, and gives away neither psi nor Y.

    Args:
        name: architecture of psi.
        state: weights of psi; frozen and in eval mode from here on.
        assignment: for each user, which images of the train set are its X', int64 ``(M,)``.
        validation: positions in the validation set by which users select their epoch, int64 ``(V,)``.
        user_classifiers: those of users whose protection psi cannot read.
        memory: where a curious provider keeps what it is asked about; None: it keeps nothing.
        others: architecture and weights of further classifiers of plain images.
        defence: on which terms it gives gradients away; None: all who ask are given exact ones.
        hijacker: what a hostile provider sends to users in place of the gradient of L_class; None: it is honest.

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
        user_classifiers: UserClassifiers,
        memory: Memory | None = None,
        others: Sequence[tuple[ClassifierName, State]] = (),
        defence: Defence | None = None,
        hijacker: Hijacker | None = None,
    ) -> None:
        self._compute, self._side = compute, store.side
        self._psi = _frozen(name, state, "psi", store, compute)
        self._others = [
            _frozen(kind, weights, f"other classifier {number}", store, compute)
            for number, (kind, weights) in enumerate(others)
        ]
        self._user_classifiers, self._memory = user_classifiers, memory
        self._defence, self._hijacker = defence, hijacker
        self._assignment, self._validation = assignment, validation
        self._owned: dict[int, Tensor] = {}
        self._labels = load_labels(store.folder, "train")
        self._images = len(self._labels)
        self._validation_labels = load_labels(store.folder, "validation")
        self._terms = DefenceConfig() if defence is None else defence.config
        self._descent = compute.captured(self._descend)

    def digest(self) -> str:
        """Return the SHA-256 of psi's weights: it never changes."""
        return digest(cpu_state(self._psi))

    def answer(self, request: exchange.Request) -> exchange.Answer:
        """Answer one request.

        Raises:
            ExchangeError: the request is malformed; the message says how. The provider is unharmed.
        """
        match request:
            case exchange.TrainingImages():
                return self._training_images(request)
            case exchange.LossGradient():
                return self._loss_gradient(request)
            case exchange.Losses():
                return self._losses(request)
            case exchange.FitClassifier():
                labels = self._labels_of(request.images, request.ids, self._labels, torch.uint8)
                self._check_owner(request.user, request.ids)
                return self._user_classifiers.fit(request.user, request.number, request.images, labels)
            case exchange.ValidateClassifier():
                labels = self._labels_of(request.images, request.ids, self._validation_labels, torch.uint8)
                return self._user_classifiers.validate(request.user, request.number, request.images, labels)
            case exchange.Classify():
                return self._classify(request)
            case exchange.Recall():
                if self._memory is None:
                    raise ExchangeError("this provider keeps nothing of what its users send")
                return self._memory.recall(request.user)
            case exchange.Reconstruct():
                self._check_images(request.images, torch.uint8)
                if self._hijacker is None:
                    raise ExchangeError("this provider is honest: it has nothing to reconstruct images with")
                return exchange.Reconstructions(self._hijacker.reconstruct(request.user, request.images))
            case exchange.Published():
                raise ExchangeError("the provider does not know what users have published: the ServerApp does")

    def _training_images(self, request: exchange.TrainingImages) -> exchange.ImageIds:
        if not 0 <= request.user < len(self._assignment):
            raise ExchangeError(f"user {request.user} is unknown: users are 0 to {len(self._assignment) - 1}")
        return exchange.ImageIds(train=self._assignment[request.user], validation=self._validation)

    def _loss_gradient(self, request: exchange.LossGradient) -> exchange.Gradient:
        labels = self._labels_of(request.protected, request.ids, self._labels)
        self._check_owner(request.user, request.ids)
        if self._defence is not None:
            self._defence.admit(request)
        # Whoever is none of the run's users has no images that could be remembered as theirs.
        if self._memory is not None and request.user >= 0:
            self._memory.note(request)
        gradient, loss, correct = self._descent(request.protected, labels)
        # What a recording gives lasts until it is replayed: the sums of an epoch are made of copies.
        answer = exchange.Gradient(gradient, self._compute.number(loss), self._compute.number(correct))
        if self._hijacker is not None:
            answer = self._hijacker.answer(request, answer)
        if self._defence is not None:
            answer = replace(answer, gradient=self._defence.applied(answer.gradient, request))
        return answer

    def _descend(self, protected: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return dL_class/dx_hat, L_class, and how many images psi classifies correctly."""
        protected, terms = self._compute.batch(protected).detach().requires_grad_(), self._terms
        with self._compute.autocast():
            logits = self._psi(protected)
        loss = F.cross_entropy(logits, labels, label_smoothing=terms.label_smoothing)
        (gradient,) = torch.autograd.grad(loss, protected)
        if terms.withhold_losses:
            labels = logits.detach().argmax(1)
            loss = F.cross_entropy(logits.detach(), labels)
        correct = (logits.argmax(1) == labels).sum()
        return gradient.float().contiguous(), _if_in_range(protected, loss.detach()), correct

    def _losses(self, request: exchange.Losses) -> exchange.LossValues:
        labels = self._labels_of(request.protected, request.ids, self._validation_labels)
        labels = labels.to(self._compute.device, non_blocking=True)
        with torch.no_grad(), self._compute.autocast():
            logits = self._psi(self._compute.batch(request.protected))
        loss = _if_in_range(request.protected, F.cross_entropy(logits, labels))
        correct = (logits.argmax(1) == labels).sum()
        honest = exchange.LossValues(self._compute.number(loss), self._compute.number(correct))
        return honest if self._hijacker is None else self._hijacker.losses(request, honest)

    def _classify(self, request: exchange.Classify) -> exchange.Predictions:
        self._check_images(request.images, torch.uint8)
        if request.user >= 0:
            return exchange.Predictions(self._user_classifiers.classify(request.user, request.images))
        # psi is PSI, and the others follow it downwards.
        shared, number = [self._psi, *self._others], PSI - request.user
        if number >= len(shared):
            raise ExchangeError(f"other classifier {number - 1} is unknown: there are {len(self._others)}")
        return exchange.Predictions(predict(shared[number], request.images, self._compute).argmax(1))

    def _check_owner(self, user: int, ids: Tensor) -> None:
        """Check that images of the train set are a user's X'; whoever is none of the run's users may name any."""
        if user < 0:
            return
        if user >= len(self._assignment):
            raise ExchangeError(f"user {user} is unknown: users are 0 to {len(self._assignment) - 1}")
        if user not in self._owned:
            owned = torch.zeros(self._images, dtype=torch.bool)
            owned[self._assignment[user]] = True
            if len(self._owned) >= _MOST_OWNED:
                self._owned.clear()
            self._owned[user] = owned
        others = ids[~self._owned[user][ids]]
        if len(others):
            raise ExchangeError(f"image id {others[0].item()} is not of user {user}'s X'")

    def _check_images(self, images: Tensor, dtype: torch.dtype) -> None:
        shape = (3, self._side, self._side)
        if images.dtype != dtype or images.dim() != 4 or tuple(images.shape[1:]) != shape or len(images) == 0:
            expected = f"{dtype} (N, {', '.join(map(str, shape))}) with N > 0"
            raise ExchangeError(f"images are {images.dtype} {tuple(images.shape)}, expected {expected}")
        if images.is_floating_point() and not images.is_cuda and not bool(_in_range(images)):
            raise ExchangeError("protected images must hold finite values in [0, 1]")

    def _labels_of(self, images: Tensor, ids: Tensor, labels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the labels of the images with these ids, of one split's, if both make sense."""
        self._check_images(images, dtype)
        if ids.dtype != torch.int64 or ids.shape != images.shape[:1]:
            raise ExchangeError(f"image ids are {ids.dtype} {tuple(ids.shape)}, expected torch.int64 ({len(images)},)")
        unknown = ids[(ids < 0) | (ids >= len(labels))]
        if len(unknown):
            raise ExchangeError(f"image id {unknown[0].item()} is unknown: ids are 0 to {len(labels) - 1}")
        return labels[ids]


def _in_range(images: Tensor) -> Tensor:
    lowest, highest = images.aminmax()
    # A comparison with NaN is false, so this catches values that are not finite as well.
    return (lowest >= 0) & (highest <= 1)


def _if_in_range(images: Tensor, loss: Tensor) -> Tensor:
    """Return ``loss`` or, where images on a GPU are not in [0, 1], NaN: nobody waits there to refuse the request."""
    return torch.where(_in_range(images.detach()), loss, torch.nan) if images.is_cuda else loss


def _frozen(name: ClassifierName, state: State, source: str, store: ImageStore, compute: Compute) -> Classifier:
    classifier = Classifier(name, len(store.classes), store.side)
    load_into(classifier, state, source)
    return compute.module(classifier).eval().requires_grad_(False)
