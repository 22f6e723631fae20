"""How fast the product trains psi or an inverse network, in a process of its own, without Flower.

Started by ``device_processes.py``; the last line that it prints is what it found.
"""

import json
import sys
import time
from typing import Any

import torch

from roles.common.compute import Compute, Number
from roles.common.config.attack import ItnConfig
from roles.common.config.classifier import ClassifierConfig
from roles.common.config.data import DataConfig
from roles.common.config.recipe import Recipe
from roles.common.data import prepare
from roles.evaluator.itn import Pairs, train_itn
from roles.provider.training import train_classifier
from sim.config.places import cache_folder

_PAIRS = 25_600
_VALIDATED = 500


class Clock:
    """The progress of a training, timed within its epochs: validation and first steps, which are not recorded, are not.

    Args:
        per_epoch: steps an epoch.
        first: steps of an epoch that are left out, and the last one as well, which may have fewer images.
    """

    def __init__(self, device: torch.device, per_epoch: int, first: int) -> None:
        self._device, self._per_epoch, self._first = device, per_epoch, min(first, per_epoch - 2)
        self._began = 0.0
        self.rates: list[float] = []
        """Steps a second, of each epoch."""

    def __call__(self, done: int, total: int, loss: Number) -> None:
        """Note that so many steps are done."""
        position = (done - 1) % self._per_epoch + 1
        if position in (self._first, self._per_epoch - 1):
            if self._device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            if position == self._first:
                self._began = now
            else:
                self.rates.append((self._per_epoch - 1 - self._first) / (now - self._began))


def rates_of(given: dict[str, Any]) -> list[float]:
    """Train what is ``given`` and return steps a second, of each epoch."""
    compute, batch, epochs = Compute(given["precision"], given["device"]), given["batch"], given["epochs"]
    first = 20 if compute.device.type == "cuda" else 1
    recipe = {"epochs": epochs, "batch_size": batch, "lr": 0.01}
    if given["network"] == "psi":
        store = prepare(DataConfig(name=given["data"]), cache_folder() / "data")
        clock = Clock(compute.device, -(-store.counts["train"] // batch), first)
        train_classifier(ClassifierConfig(training=Recipe.model_validate(recipe)), store, compute, clock)
        return clock.rates
    count = min(_PAIRS, given["steps"] * batch)
    noise = [torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8) for _ in range(3)]
    protected, plain, mirrored = noise
    pairs = Pairs(protected, plain, protected[:_VALIDATED], plain[:_VALIDATED])
    recipe |= {"optimiser": "adam", "lr": 0.001, "weight_decay": 0, "schedule": "cosine"}
    config = ItnConfig(
        name="bench", width=given["width"], upsampling="transposed", training=Recipe.model_validate(recipe)
    )
    clock = Clock(compute.device, -(-count // batch), first)
    train_itn(config, pairs, compute, 0, flip=True, mirrored=mirrored, progress=clock)
    return clock.rates


def main() -> None:
    """Train, and say how fast."""
    torch.set_num_threads(1)
    print(json.dumps({"rates": rates_of(json.loads(sys.argv[1]))}), flush=True)


if __name__ == "__main__":
    main()
