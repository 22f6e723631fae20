"""A hostile provider: for some users, gradients of another loss than L_class, and what it makes of their images."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from roles.common import weights
from roles.common.compute import Compute
from roles.common.config.provider import HijackConfig
from roles.common.data import ImageStore
from roles.common.exchange import ExchangeError, Gradient, Losses, LossGradient, LossValues
from roles.common.files import writing_of
from roles.common.naming import user_name
from roles.common.seeds import generator, seeded
from roles.common.transform import apply_network
from roles.provider.steering import STEERINGS, Steering


@dataclass
class _Record:
    """The part of a hijack's state that is numbers."""

    answered: int = -1
    """How many images its user had asked about before the last request."""
    requests: int = 0
    loss: float = 0.0
    correct: int = 0


@dataclass
class _Hijack:
    steering: Steering
    record: _Record
    gradient: Tensor | None = None
    """The last answer, on the CPU."""
    written: tuple[int, int] = (0, 0)
    """Which writing of its file this is (files.py)."""


class Hijacker:
    """The hijacks of a run, one for each user that is hijacked.

    The state after a request is on disk before it is answered: any process may get the next one, and the same request
    again, after an interruption, is answered as before.

    Args:
        folder: where they are kept.
        config_of: from a user's number to how it is hijacked, or None.
        seed: initial weights and all that is drawn follow from it.
    """

    def __init__(
        self,
        folder: Path,
        config_of: Callable[[int], HijackConfig | None],
        seed: int,
        store: ImageStore,
        compute: Compute,
    ) -> None:
        self._folder, self._config_of, self._seed = folder, config_of, seed
        self._store, self._compute = store, compute
        self._last: dict[int, _Hijack] = {}

    def answer(self, request: LossGradient, honest: Gradient) -> Gradient:
        """Return what a user is sent in place of psi's ``honest`` answer, which those who are not hijacked get.

        Raises:
            ExchangeError: the provider's networks diverged.
        """
        config = self._config_of(request.user)
        if config is None:
            return honest
        hijack = self._opened(request.user, config)
        record = hijack.record
        if hijack.gradient is None or request.asked != record.answered:
            gradient = self._steered(config, hijack, request, honest.gradient)
            hijack.gradient = gradient.detach().cpu().contiguous()
            record.answered, record.requests = request.asked, record.requests + 1
            record.loss, record.correct = float(honest.loss), int(honest.correct)
            if self._forges(config, hijack):
                error = hijack.steering.error(request.protected, request.ids, "train")
                record.loss, record.correct = self._forged(error, len(request.ids))
            self._keep(request.user, hijack)
        return Gradient(hijack.gradient.to(honest.gradient.device), record.loss, record.correct)

    def losses(self, request: Losses, honest: LossValues) -> LossValues:
        """Return what a user is told of validation images in place of psi's ``honest`` answer."""
        config = self._config_of(request.user)
        if config is None or not self._forges(config, hijack := self._opened(request.user, config)):
            return honest
        error = hijack.steering.error(request.protected, request.ids, "validation")
        return LossValues(*self._forged(error, len(request.ids)))

    @staticmethod
    def _forges(config: HijackConfig, hijack: _Hijack) -> bool:
        return config.forge and hijack.record.requests > 0

    def _forged(self, error: float, images: int) -> tuple[float, int]:
        """Return a loss and a number of correct images that go together, for a relative error of the estimates."""
        loss = math.log(len(self._store.classes)) * error
        return loss, round(images * math.exp(-loss))

    def reconstruct(self, user: int, images: Tensor) -> Tensor:
        """Return the provider's estimates of what a user's protected bitmaps were made of, uint8 like them.

        Raises:
            ExchangeError: the user is not hijacked, or has asked nothing yet.
        """
        config = self._config_of(user)
        if config is None:
            raise ExchangeError(f"user {user} is not hijacked: there is nothing to reconstruct its images with")
        hijack = self._opened(user, config)
        if not hijack.record.requests:
            raise ExchangeError(f"user {user} has asked for no gradient yet: the provider's inverse is not trained")
        estimates = apply_network(hijack.steering.inverse, images, self._compute)
        hijack.steering.inverse.train()
        return estimates

    def _steered(self, config: HijackConfig, hijack: _Hijack, request: LossGradient, honest: Tensor) -> Tensor:
        stream = generator(self._seed, "hijack", request.user, request.asked)
        protected = self._compute.batch(request.protected).detach().clone()
        direction = hijack.steering.gradient(protected, request.ids, stream)
        if not bool(torch.isfinite(direction).all()):
            raise ExchangeError(f"the hijack of user {request.user} diverged: lower provider.hijack's lr or critic_lr")
        if hijack.steering.as_long_as_psis:
            direction *= honest.norm() / direction.norm().clamp_min(torch.finfo(torch.float32).tiny)
        mixed: Tensor = (1 - config.class_share) * direction + config.class_share * honest
        return mixed

    def _opened(self, user: int, config: HijackConfig) -> _Hijack:
        path = self._path(user)
        known = self._last.get(user)
        if known is not None and known.written == writing_of(path):
            return known
        with seeded(self._seed, "hijack", user):
            hijack = _Hijack(STEERINGS[config.kind](config, self._store, self._compute), _Record())
        if path.is_file():
            tensors, metadata = weights.load(path)
            hijack.written, hijack.gradient = writing_of(path), tensors.pop("answer")
            hijack.steering.restore(tensors)
            hijack.record = _Record(**json.loads(metadata["record"]))
        # One user trains in a process at a time, mostly: others' networks take up room.
        self._last = {user: hijack}
        return hijack

    def _keep(self, user: int, hijack: _Hijack) -> None:
        assert hijack.gradient is not None
        state = hijack.steering.checkpoint() | {"answer": hijack.gradient}
        weights.save(self._path(user), state, {"record": json.dumps(asdict(hijack.record))})
        hijack.written = writing_of(self._path(user))

    def _path(self, user: int) -> Path:
        return self._folder / f"{user_name(user)}.safetensors"
