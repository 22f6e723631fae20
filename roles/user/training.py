"""How a user trains h_theta with nothing but gradients from the provider (Section III-B)."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from roles.common.augment import augment
from roles.common.batches import Batches
from roles.common.compute import Compute
from roles.common.data import ImageStore
from roles.common.exchange import (
    ImageIds,
    Losses,
    LossGradient,
    LossValues,
    TrainingImages,
    Work,
    checked_gradient,
    expect,
)
from roles.common.images import all_finite, to_unit
from roles.common.recipes import set_lr
from roles.common.seeds import derived_seed, generator
from roles.common.unet import UNet
from roles.common.weights import (
    State,
    cpu_state,
    groups_of,
    load_into,
    optimiser_state,
    prefixed,
    restore_optimiser,
)
from roles.user.config import UserConfig
from roles.user.features import feature_loss, shared_features
from roles.user.gan import Adversary, GanConfig
from roles.user.own_loss import FeatureLoss, OwnLoss

_VALIDATION_BATCH = 500


@dataclass
class Traffic:
    """What a user's training has cost its provider."""

    queries: int = 0
    """Requests for a loss or a gradient."""
    images: int = 0
    """Protected images in them."""
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, eq=False)
class TrainedTransformer:
    """What a training has come to."""

    theta: State
    """The weights with the lowest validation value of the objective (Section IV-A)."""
    selected_epoch: int
    """The 1-based epoch of ``theta``."""
    images: int
    """How many images X' holds."""
    steps: int
    curve: list[dict[str, float]]
    traffic: Traffic


@dataclass
class _Sums:
    """Running sums over the images of an epoch or a validation pass."""

    images: int = 0
    loss: float = 0.0
    feature_loss: float = 0.0
    correct: int = 0

    def add(self, images: int, loss: float, feature_loss: float, correct: int) -> None:
        self.images += images
        self.loss += loss * images
        self.feature_loss += feature_loss * images
        self.correct += correct


@dataclass
class _Progress:
    """The part of a training's state that is numbers, as JSON keeps it."""

    step: int = 0
    asked: int = 0
    """Images that gradients were asked for."""
    curve: list[dict[str, float]] = field(default_factory=list)
    epoch: _Sums = field(default_factory=_Sums)
    validation: _Sums | None = None
    best_objective: float = math.inf
    best_epoch: int = 0
    traffic: Traffic = field(default_factory=Traffic)


class TransformerTraining:
    """One user's training: start, :meth:`run` for a stretch, :meth:`checkpoint`, go on here or in another process.

    Args:
        user: which user this is; with ``seed`` it decides initial weights, batches and augmentation.
        seed: the run's seed.

    Raises:
        ValueError: phi's weights cannot be had.
    """

    def __init__(self, config: UserConfig, user: int, seed: int, store: ImageStore, compute: Compute) -> None:
        self._config = config
        self._user = user
        self._seed = config.own_seed(user, seed)
        self._store = store
        self._compute = compute
        torch.manual_seed(derived_seed(self._seed, "theta"))
        self._h = compute.module(UNet(config.width, config.depth))
        self._phi = compute.module(shared_features(config.features))
        self._own: OwnLoss = FeatureLoss(config.alpha, self._phi, compute)
        if isinstance(config.protection, GanConfig):
            self._own = Adversary(config.protection, self._phi, self._seed, compute)
        self._optimiser = config.training.optimiser_for(self._h)
        self._ids: ImageIds | None = None
        self._best: State = {}
        self._progress = _Progress()
        self._buffers = self._copy_buffers()

    @property
    def step(self) -> int:
        """Steps done so far."""
        return self._progress.step

    @property
    def total_steps(self) -> int:
        """Length of the whole training; 0 before the provider has said what X' is."""
        return 0 if self._ids is None else self._config.training.total_steps(self._batches(self._ids).per_epoch)

    @property
    def curve(self) -> list[dict[str, float]]:
        """One row an epoch: epoch, step, lr, train and validation losses, accuracies in [0, 1], objectives (Eq. 4)."""
        return self._progress.curve

    @property
    def loss(self) -> float:
        """L_class, averaged over the present epoch so far; NaN before its first step."""
        return self._progress.epoch.loss / self._progress.epoch.images if self._progress.epoch.images else math.nan

    @property
    def traffic(self) -> Traffic:
        """What the exchange has carried; whoever runs it counts here."""
        return self._progress.traffic

    @property
    def images(self) -> int:
        """How many images X' holds; 0 before the provider has said so."""
        return 0 if self._ids is None else len(self._ids.train)

    @property
    def selected_epoch(self) -> int:
        """The 1-based epoch of :meth:`selected_theta`; 0 before the first epoch has ended."""
        return self._progress.best_epoch

    def theta(self) -> State:
        """Return the current weights of h_theta."""
        return cpu_state(self._h)

    def selected_theta(self) -> State:
        """Return the weights with the lowest validation value of the objective so far (Section IV-A)."""
        return self._best or self.theta()

    def adopt(self, theta: Mapping[str, Tensor], own_statistics: bool = False) -> None:
        """Go on from other weights, as a round of federated averaging does; the optimiser starts afresh.

        Args:
            own_statistics: whether batch normalisation keeps the running statistics that it has, and ``theta`` needs
                none.

        Raises:
            ValueError: ``theta`` does not fit this user's network.
        """
        kept = self._buffers if own_statistics else {}
        load_into(self._h, {**theta, **kept}, f"theta sent to user {self._user}")
        self._optimiser = self._config.training.optimiser_for(self._h)
        self._buffers = self._copy_buffers()

    def run(self, part: int, parts: int) -> Work[None]:
        """Train up to the end of the ``part``-th of ``parts`` equal parts of the schedule (1-based).

        Raises:
            ExchangeError: the provider's answer is unusable.
            ValueError: training diverged.
        """
        if self._ids is None:
            self._ids = expect((yield TrainingImages(self._user)), ImageIds)
        recipe = self._config.training
        batches, total = self._batches(self._ids), self.total_steps
        progress = self._progress
        while not self.reached(part, parts):
            if progress.validation is not None:
                yield from self._validate(progress.validation, self._ids.validation)
                self._close_epoch(recipe.lr_at(progress.step - 1, total))
                continue
            ids = batches.ids_at(progress.step)
            yield from self._train_step(ids, recipe.lr_at(progress.step, total))
            progress.step += 1
            progress.asked += len(ids)
            self._buffers = self._copy_buffers()
            if progress.step % batches.per_epoch == 0 or progress.step == total:
                progress.validation = _Sums()

    def reached(self, part: int, parts: int) -> bool:
        """Return whether all is done up to the end of the ``part``-th of ``parts`` equal parts of the schedule."""
        progress = self._progress
        if self._ids is None or progress.validation is not None:
            return False
        return progress.step >= self.total_steps * part // parts

    def validation(self) -> Work[tuple[float, float, int]]:
        """Ask how the current theta does on the validation images: mean loss, accuracy in [0, 1], number of images.

        Raises:
            ExchangeError: the provider's answer is unusable.
        """
        if self._ids is None:
            self._ids = expect((yield TrainingImages(self._user)), ImageIds)
        # Kept in the state: whoever drops this at a request goes on from the batch it was at.
        sums = self._progress.validation = self._progress.validation or _Sums()
        yield from self._validate(sums, self._ids.validation)
        self._progress.validation = None
        return sums.loss / sums.images, sums.correct / sums.images, sums.images

    def _batches(self, ids: ImageIds) -> Batches:
        return Batches(ids.train, self._config.training.batch_size, derived_seed(self._seed, "order"))

    def _train_step(self, ids: Tensor, lr: float) -> Work[None]:
        config, compute = self._config, self._compute
        self._h.train()
        # BN's running statistics move in the forward pass: a step taken up again in this process starts from the same.
        self._restore_buffers()
        stream = generator(self._seed, "augment", self._progress.step)
        batch = augment(self._store.images("train")[ids], config.crop_padding, stream, flip=config.flip)
        plain = compute.batch(to_unit(batch))
        with compute.autocast():
            protected = self._h(plain)
        if not all_finite(protected):
            raise ValueError(f"user {self._user} diverged at step {self._progress.step}: lower user.training.lr")
        request = LossGradient(protected.detach().cpu().contiguous(), ids, self._user, self._progress.asked)
        answer = checked_gradient((yield request), protected)
        gradient = answer.gradient.to(compute.device)
        # Eq. 4: dL_trans/dx_hat = dL_class/dx_hat - alpha * dL_feat/dx_hat, the second term the user's own.
        own, distance = self._own.gradient(plain, protected.detach(), self._progress.step)
        if own is not None:
            gradient = gradient + own
        set_lr(self._optimiser, lr)
        self._optimiser.zero_grad(set_to_none=True)
        protected.backward(gradient)
        self._optimiser.step()
        self._progress.epoch.add(len(ids), answer.loss, distance, answer.correct)

    def _validate(self, sums: _Sums, ids: Tensor) -> Work[None]:
        self._h.eval()
        while sums.images < len(ids):
            batch = ids[sums.images : sums.images + _VALIDATION_BATCH]
            plain = self._compute.batch(to_unit(self._store.images("validation")[batch]))
            with torch.no_grad(), self._compute.autocast():
                protected = self._h(plain)
                distance = feature_loss(self._phi(protected), self._phi(plain)).item()
            answer = expect((yield Losses(protected.cpu().contiguous(), batch)), LossValues)
            sums.add(len(batch), answer.loss, distance, answer.correct)

    def _close_epoch(self, lr: float) -> None:
        progress = self._progress
        train, validation = progress.epoch, progress.validation
        assert validation is not None
        row: dict[str, float] = {"epoch": len(progress.curve) + 1, "step": progress.step, "lr": lr}
        for name, sums in (("train", train), ("validation", validation)):
            row[f"{name}_loss"] = sums.loss / sums.images
            row[f"{name}_accuracy"] = sums.correct / sums.images
            if not math.isnan(sums.feature_loss):
                row[f"{name}_feature_loss"] = sums.feature_loss / sums.images
        objective = row["validation_loss"] - self._own.alpha * row["validation_feature_loss"]
        row["validation_objective"] = objective
        progress.curve.append(row)
        progress.epoch, progress.validation = _Sums(), None
        if objective < progress.best_objective or not self._own.selects:
            progress.best_objective, progress.best_epoch = objective, len(progress.curve)
            self._best = self.theta()

    def _copy_buffers(self) -> State:
        return {name: value.detach().clone() for name, value in self._h.named_buffers()}

    def _restore_buffers(self) -> None:
        with torch.no_grad():
            for name, value in self._h.named_buffers():
                value.copy_(self._buffers[name])

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """Return tensors and JSON-able numbers from which :meth:`restore` goes on at the last whole step."""
        theta = self.theta() | {name: value.cpu().contiguous() for name, value in self._buffers.items()}
        tensors = prefixed("theta", theta) | prefixed("best", self._best)
        tensors |= prefixed("optimiser", optimiser_state(self._optimiser))
        tensors |= prefixed("own", self._own.checkpoint())
        if self._ids is not None:
            tensors |= {"ids/train": self._ids.train, "ids/validation": self._ids.validation}
        return tensors, asdict(self._progress)

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take up the state of a :meth:`checkpoint`.

        Raises:
            ValueError: the checkpoint is not one of this user's network.
        """
        groups = groups_of(tensors)
        load_into(self._h, groups["theta"], f"checkpoint of user {self._user}")
        self._buffers = self._copy_buffers()
        self._best = groups["best"]
        self._own.restore(groups["own"])
        if groups["ids"]:
            self._ids = ImageIds(groups["ids"]["train"], groups["ids"]["validation"])
        restore_optimiser(self._optimiser, groups["optimiser"])
        validation = numbers["validation"]
        self._progress = _Progress(
            step=numbers["step"],
            asked=numbers["asked"],
            curve=[dict(row) for row in numbers["curve"]],
            epoch=_Sums(**numbers["epoch"]),
            validation=None if validation is None else _Sums(**validation),
            best_objective=numbers["best_objective"],
            best_epoch=numbers["best_epoch"],
            traffic=Traffic(**numbers["traffic"]),
        )


def trained_transformer(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> TrainedTransformer:
    """Return what a training has come to from its checkpoint alone, without a network or an image.

    Raises:
        ValueError: the checkpoint is of a training that has not finished an epoch.
    """
    best = groups_of(tensors)["best"]
    if not best:
        raise ValueError("no epoch of it is finished")
    return TrainedTransformer(
        theta=best,
        selected_epoch=numbers["best_epoch"],
        images=len(tensors["ids/train"]),
        steps=numbers["step"],
        curve=[dict(row) for row in numbers["curve"]],
        traffic=Traffic(**numbers["traffic"]),
    )
