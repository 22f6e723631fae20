"""How a user trains h_theta with nothing but gradients from the provider (Section III-B)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from roles.common.augment import Augmentation
from roles.common.compute import Compute
from roles.common.config.recipe import set_lr
from roles.common.config.user import AdversarialConfig, EntropyConfig, GanConfig, UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import Losses, LossGradient, LossValues, Work, checked_gradient, expect
from roles.common.features import shared_features
from roles.common.fisher import jacobian_energy, leakage, noise_for
from roles.common.images import all_finite, to_unit
from roles.common.passing import passes_through
from roles.common.protection import NOISE
from roles.common.seeds import derived_seed, generator
from roles.common.unet import UNet
from roles.common.weights import State, cpu_state, groups_of, load_into, prefixed, restore_training, training_state
from roles.user.adversarial import InverseAdversary
from roles.user.base import Sums, TrainingResult, UserTraining, result_of
from roles.user.checks import Checks
from roles.user.entropy import Entropy
from roles.user.features import FeatureLoss, OwnLoss, feature_loss
from roles.user.gan import Adversary

_VALIDATION_BATCH = 500
_LOOKED_AT = 100
"""Validation images that tell after each epoch how much passes through: enough for a median."""


class TransformerTraining(UserTraining):
    """The training of one user's h_theta.

    Raises:
        ValueError: phi's weights cannot be had.
    """

    def __init__(
        self, config: UserConfig, user: int, seed: int, store: ImageStore, compute: Compute, least_batch: int = 1
    ) -> None:
        super().__init__(config, user, seed, store, config.training.batch_size, least_batch)
        self._compute = compute
        torch.manual_seed(derived_seed(self._seed, "theta"))
        self._h = compute.module(UNet(config.width, config.depth, config.upsampling))
        self._phi = compute.module(shared_features(config.features))
        self._own: OwnLoss = FeatureLoss(config.alpha, self._phi, compute)
        if isinstance(config.protection, GanConfig):
            self._own = Adversary(config.protection, self._phi, self._seed, compute)
        elif isinstance(config.protection, AdversarialConfig):
            self._own = InverseAdversary(config.protection, config.width, config.depth, self._seed, compute)
        elif isinstance(config.protection, EntropyConfig):
            self._own = Entropy(config.protection, self._seed, compute)
        self._scale = torch.tensor(config.noise, device=compute.device)
        """Standard deviation of the noise on protected images."""
        self._optimiser = config.training.optimiser_for(self._h)
        self._set_out()
        self._checks = Checks(config.checks, user, self._seed, len(store.classes))
        self._validation: Sums | None = None
        """Where a validation pass is; None: there is none under way."""
        self._best: State = {}
        self.selected_epoch = 0
        """The 1-based epoch of :meth:`selected_theta`; 0 before the first epoch has ended."""

    @property
    def total_steps(self) -> int:
        """See :class:`UserTraining`."""
        return self._config.training.total_steps(self._batches.per_epoch) if self.images else 0

    def theta(self) -> State:
        """Return the current weights of h_theta and, where ``dfil`` sets it, how much noise goes with them."""
        noise = {} if self._config.dfil is None else {NOISE: self._scale.to("cpu", copy=True)}
        return cpu_state(self._h) | noise

    def selected_theta(self) -> State:
        """Return the weights with the lowest validation value of the objective so far (Section IV-A)."""
        return self._best or self.theta()

    def adopt(self, theta: Mapping[str, Tensor], own_statistics: bool = False) -> None:
        """Go on from other weights, as a round of federated averaging does; the optimiser starts afresh.

        Args:
            own_statistics: whether batch normalisation keeps its running statistics, and ``theta`` needs none.

        Raises:
            ValueError: ``theta`` does not fit this user's network.
        """
        kept = self._buffers if own_statistics else {}
        load_into(self._h, {**theta, **kept}, f"theta sent to user {self._user}")
        self._optimiser = self._config.training.optimiser_for(self._h)
        self._set_out()

    def reached(self, part: int, parts: int) -> bool:
        """See :class:`UserTraining`."""
        ended = self._validation is None and not self._checks.pending
        return self.images > 0 and ended and self.step >= self.total_steps * part // parts

    def validation(self) -> Work[tuple[float, float, int]]:
        """Ask how the current theta does on the validation images: mean loss, accuracy in [0, 1], number of images.

        Raises:
            ExchangeError: the provider's answer is unusable.
        """
        yield from self._own_images()
        # Kept in the state: whoever drops this at a request goes on from the batch it was at.
        sums = self._validation = self._validation or Sums()
        yield from self._validate(sums)
        self._validation = None
        means = sums.columns("validation")
        return means["validation_loss"], means["validation_accuracy"], sums.images

    def _next(self) -> Work[None]:
        """Take a step, check the provider after it, or end an epoch."""
        recipe, total = self._config.training, self.total_steps
        if self._checks.pending:
            yield from self._checks.finish(self._ids.train, self._asked(self.step))
            return
        if self._validation is not None:
            yield from self._validate(self._validation)
            self._close_epoch(self._validation, recipe.lr_at(self.step - 1, total))
            return
        yield from self._train_step(self._batches.ids_at(self.step), recipe.lr_at(self.step, total))
        if self.step % self._batches.per_epoch == 0 or self.step == total:
            self._set_noise()
            self._validation = Sums()

    def _train_step(self, ids: Tensor, lr: float) -> Work[None]:
        stream, config = generator(self._seed, "augment", self.step), self._config
        if self.step == 0:
            self._set_noise()
        drawn: tuple[Tensor, ...] = Augmentation.draw(len(ids), config.crop_padding, stream, flip=config.flip)
        if config.is_noisy:
            drawn += (self._noise(len(ids), self.step),)
        _, protected = self._halves.begin(ids, *drawn)
        # On a GPU nobody waits for a look at them: psi's loss of such images is not finite either.
        if not protected.is_cuda and not all_finite(protected):
            raise self._diverged()
        asked = self._asked(self.step) + self._checks.images
        answer = checked_gradient((yield LossGradient(protected.detach(), ids, self._user, asked)), protected)
        if self._checks.due(self.step):
            self._checks.begin(self.step, protected, ids, answer.gradient)
        set_lr(self._optimiser, lr)
        (distance,) = self._halves.finish(answer.gradient)
        self._epoch.add(len(ids), answer.loss, answer.correct, self._compute.number(distance))
        self.step += 1
        if self._compute.reads(self.step):
            self._look()

    def _asked(self, step: int) -> int:
        """Return how many images the steps before ``step`` have asked about."""
        epoch, position = divmod(step, self._batches.per_epoch)
        return epoch * self.images + position * self._batch_size

    def _look(self) -> None:
        if not math.isfinite(float(self._epoch.loss)):
            raise self._diverged()

    def _diverged(self) -> ValueError:
        return ValueError(f"user {self._user} diverged at step {self.step}: lower user.training.lr")

    def _protect(self, ids: Tensor, *drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Return plain images, augmented, and what h_theta makes of them, with its graph."""
        self._h.train()
        self._take_up_statistics()
        images = self._store.images("train", self._compute.device)[ids]
        count = len(Augmentation._fields)
        augmented = Augmentation(*drawn[:count]).of(images, self._config.crop_padding)
        plain = self._compute.batch(to_unit(augmented))
        with self._compute.autocast():
            protected = self._h(plain)
        return plain, self._with_noise(protected, *drawn[count:])

    def _noise(self, count: int, *scope: str | int) -> Tensor:
        side = self._store.side
        return torch.randn(count, 3, side, side, generator=generator(self._seed, "noise", *scope))

    def _with_noise(self, protected: Tensor, *noise: Tensor) -> Tensor:
        return (protected + self._scale * noise[0].to(protected.device)).clamp(0, 1) if noise else protected

    def _take_up_statistics(self) -> None:
        # BN's running statistics move in the forward pass: a step taken up again in this process starts from the same.
        with torch.no_grad():
            for name, value in self._h.named_buffers():
                value.copy_(self._buffers[name])

    def _energy(self) -> Tensor:
        """Return what dFIL is made of, for some validation images and h_theta as it is."""
        self._take_up_statistics()
        self._h.eval()
        images = self._store.images("validation", self._compute.device)[self._ids.validation[:_LOOKED_AT]]
        stream = generator(self._seed, "fisher", self.step)
        return jacobian_energy(self._h, self._compute.batch(to_unit(images)), self._compute, stream)

    def _set_noise(self) -> None:
        """Set the noise to what ``dfil`` asks for, where it does."""
        if self._config.dfil is not None:
            self._scale.copy_(noise_for(self._energy(), self._config.dfil))

    def _descend(self, plain: Tensor, protected: Tensor, gradient: Tensor) -> tuple[Tensor]:
        """Take a step down the gradient of L_trans, given that of L_class; return L_feat, or NaN."""
        # Eq. 4: dL_trans/dx_hat = dL_class/dx_hat - alpha * dL_feat/dx_hat, the second term the user's own.
        own, distance = self._own.gradient(plain, protected.detach(), self.step)
        if own is not None:
            gradient = gradient + own
        self._optimiser.zero_grad(set_to_none=True)
        protected.backward(gradient)  # type: ignore[no-untyped-call]
        self._optimiser.step()
        with torch.no_grad():
            for name, value in self._h.named_buffers():
                self._buffers[name].copy_(value)
        return (distance,)

    def _validate(self, sums: Sums) -> Work[None]:
        if sums.images == 0:
            sums.dfil = self._compute.number(leakage(self._energy(), self._scale))
        self._h.eval()
        ids = self._ids.validation
        while sums.images < len(ids):
            batch = ids[sums.images : sums.images + _VALIDATION_BATCH]
            images = self._store.images("validation", self._compute.device)[batch]
            plain = self._compute.batch(to_unit(images))
            with torch.no_grad(), self._compute.autocast():
                noise = (self._noise(len(batch), "validation", sums.images),) if self._config.is_noisy else ()
                protected = self._with_noise(self._h(plain), *noise)
                distance = feature_loss(self._phi(protected), self._phi(plain))
            if sums.images == 0:
                few = (protected[:_LOOKED_AT], plain[:_LOOKED_AT])
                sums.passes_through = self._compute.number(passes_through(*few))
            answer = expect((yield Losses(protected, batch, self._user)), LossValues)
            sums.add(len(batch), answer.loss, answer.correct, self._compute.number(distance))

    def _close_epoch(self, validation: Sums, lr: float) -> None:
        self._look()
        row = {"epoch": len(self.curve) + 1, "step": self.step, "lr": lr}
        row |= self._epoch.columns("train") | validation.columns("validation")
        row |= self._checks.columns(int(self.curve[-1]["step"]) + 1 if self.curve else 1, self.step)
        objective = row["validation_loss"] - self._own.alpha * row["validation_feature_loss"]
        best = self.curve[self.selected_epoch - 1]["validation_objective"] if self.selected_epoch else math.inf
        self.curve.append(row | {"validation_objective": objective})
        self._epoch, self._validation = Sums(), None
        if objective < best or not self._own.selects:
            self.selected_epoch, self._best = len(self.curve), self.theta()

    def _set_out(self) -> None:
        """Go on from what h_theta and its optimiser are now."""
        self._buffers = {name: value.detach().clone() for name, value in self._h.named_buffers()}
        self._halves = self._compute.in_two(self._protect, self._descend, recorded=self._own.recorded)

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """See :class:`UserTraining`."""
        tensors, numbers = super().checkpoint()
        tensors |= training_state("theta", self._h, self._optimiser)
        tensors |= prefixed("theta", {name: value.to("cpu", copy=True) for name, value in self._buffers.items()})
        tensors |= {"noise/scale": self._scale.to("cpu", copy=True)}
        tensors |= prefixed("best", self._best) | prefixed("own", self._own.checkpoint())
        checking, checks = self._checks.checkpoint()
        tensors, numbers = tensors | checking, numbers | {"checks": checks}
        validation = self._validation and self._validation.numbers()
        return tensors, numbers | {"validation": validation, "best_epoch": self.selected_epoch}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """See :class:`UserTraining`."""
        restore_training("theta", self._h, self._optimiser, tensors, f"checkpoint of user {self._user}")
        super().restore(tensors, numbers)
        groups = groups_of(tensors)
        self._best, self.selected_epoch = groups["best"], numbers["best_epoch"]
        self._scale.copy_(groups["noise"].get("scale", self._scale))
        self._set_out()
        self._validation = numbers["validation"] and Sums(**numbers["validation"])
        self._own.restore(groups["own"])
        self._checks.restore(tensors, numbers["checks"])


def trained_transformer(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> TrainingResult:
    """Return what a training has come to from its checkpoint alone, without a network or an image.

    Raises:
        ValueError: the checkpoint is of a training that has not finished an epoch.
    """
    best = groups_of(tensors)["best"]
    if not best:
        raise ValueError("no epoch of it is finished")
    return result_of(best, numbers["best_epoch"], tensors, numbers)
