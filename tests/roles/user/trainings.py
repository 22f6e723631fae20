"""What becomes of a training: on disk, and as a network."""

import json
from pathlib import Path
from typing import Any

from roles.common.config.recipe import Recipe
from roles.common.config.user import UserConfig
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


def network(config: UserConfig, theta: State) -> UNet:
    h = UNet(config.width, config.depth)
    h.load_state_dict(theta)
    return h.train()
