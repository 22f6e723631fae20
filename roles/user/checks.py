"""What a user does to catch a provider that sends other gradients than those of a classifier's loss."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from roles.common.config.checks import ChecksConfig
from roles.common.exchange import LossGradient, Work, checked_gradient
from roles.common.seeds import generator
from roles.common.suspicion import answers_score, suspicions, wrong_ids_score
from roles.common.weights import State, groups_of, prefixed


class Checks:
    """The checks of one user: what it asks after a step of its training, and what it makes of the answers.

    After a step, the batch is asked about once more under the same ids, then under wrong ids, then one of its images
    under many. What is under way is part of the state, so that whoever drops the work at a request goes on from there.

    Args:
        config: None: the user does not check.
        seed: the user's own.
        classes: number of classes of the service, which is public.
    """

    def __init__(self, config: ChecksConfig | None, user: int, seed: int, classes: int) -> None:
        self._config, self._user, self._seed, self._classes = config, user, seed, classes
        self.rows: list[dict[str, float]] = []
        """One for each check: the step after which it was made, from 1, and its scores."""
        self.images = 0
        """Images asked about in checks so far."""
        self._step, self._known = 0, State()

    @property
    def pending(self) -> bool:
        """Whether a check has begun and is not finished."""
        return bool(self._known)

    def due(self, step: int) -> bool:
        """Return whether there is a check after the 0-based ``step``."""
        return self._config is not None and step % self._config.every == 0

    def begin(self, step: int, protected: Tensor, ids: Tensor, gradient: Tensor) -> None:
        """Take up what a step was about and what it was answered: x_hat, ids and dL_class/dx_hat.

        Args:
            step: its number, from 0.
        """
        self._step = step
        # On the CPU, where a state comes back to; and what a recording gives lasts until it is replayed.
        self._known = {"protected": protected.detach().to("cpu", copy=True), "ids": ids}
        self._known["right"] = gradient.to("cpu", copy=True)

    def finish(self, own: Tensor, asked: int) -> Work[None]:
        """Ask what is still to be asked, and note the scores.

        Args:
            own: ids of X', int64 ``(M,)``.
            asked: how many images the training has asked about before.

        Raises:
            ExchangeError: an answer is unusable.
        """
        assert self._config is not None
        known, stream = self._known, generator(self._seed, "check", self._step)
        protected, ids = known["protected"], known["ids"]
        place = torch.randint(len(own), ids.shape, generator=stream)
        wrong = torch.where(own[place] == ids, own[(place + 1) % len(own)], own[place])
        many = own[torch.randperm(len(own), generator=stream)[: self._config.ids]]
        one = torch.randint(len(ids), (1,), generator=stream).item()
        requests = {"again": (protected, ids), "wrong": (protected, wrong)}
        if len(many) > self._classes:
            requests["many"] = (protected[int(one)].expand(len(many), -1, -1, -1).contiguous(), many)
        for name, (images, named) in requests.items():
            if name not in known:
                request = LossGradient(images, named, self._user, asked + self.images)
                known[name] = checked_gradient((yield request), images).gradient.to("cpu", copy=True)
                self.images += len(named)
        row = {"step": float(self._step + 1)}
        row["wrong_ids"] = wrong_ids_score(known["right"], known["again"], known["wrong"])
        row["answers"] = answers_score(known["many"], self._classes) if "many" in known else math.nan
        self.rows.append({name: value for name, value in row.items() if not math.isnan(value)})
        self._known = State()

    def columns(self, first: int, last: int) -> dict[str, float]:
        """Return the medians of the scores after the steps from ``first`` to ``last``, as ``suspicion_<score>``."""
        return suspicions([row for row in self.rows if first <= row["step"] <= last])

    def checkpoint(self) -> tuple[State, dict[str, Any]]:
        """Return the state as tensors and numbers."""
        rows = [dict(row) for row in self.rows]
        return prefixed("check", self._known), {"rows": rows, "images": self.images, "step": self._step}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take up a :meth:`checkpoint`, which may be part of a larger state."""
        self.rows, self.images = [dict(row) for row in numbers["rows"]], numbers["images"]
        self._step, self._known = numbers["step"], groups_of(tensors)["check"]
