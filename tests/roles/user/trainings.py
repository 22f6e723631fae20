"""What becomes of a training: on disk, and as a network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from roles.common.config.recipe import Recipe
from roles.common.config.user import UserConfig
from roles.common.exchange import Answer, Request
from roles.common.unet import UNet
from roles.common.weights import State, load, save
from roles.user.training import TransformerTraining

PLAIN_SGD = Recipe(epochs=3, batch_size=4, lr=0.5, momentum=0, weight_decay=0)
Kept = tuple[State, dict[str, Any]]


def through_disk(training: TransformerTraining, folder: Path) -> Kept:
    tensors, numbers = training.checkpoint()
    save(folder / "state", tensors, {"numbers": json.dumps(numbers)})
    kept, metadata = load(folder / "state")
    return kept, json.loads(metadata["numbers"])


def dropped_at_every_request(
    begin: Callable[[], TransformerTraining], answer: Callable[[Request], Answer]
) -> TransformerTraining:
    """Return a training of one round that went on in another process, from what was on disk, after every request."""
    session = begin()
    while not session.reached(1, 1):
        tensors, numbers = session.checkpoint()
        session = begin()
        session.restore(tensors, json.loads(json.dumps(numbers)))
        work = session.run(1, 1)
        request = next(work)
        try:
            work.send(answer(request))
        except StopIteration:
            break
    return session


def network(config: UserConfig, theta: State) -> UNet:
    h = UNet(config.width, config.depth)
    h.load_state_dict(theta)
    return h.train()
