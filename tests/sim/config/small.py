"""A small config, and what is said where one is refused."""

from pathlib import Path

import pytest

from sim.config.errors import ConfigError
from sim.config.files import load_experiment

SMALL = """
name: small
users: {count: 4}
user:
  alpha: 0.1
  features: {layer: relu1_2, weights: random}
  training: {epochs: 10}
attack:
  itns:
    - {name: paper, training: {epochs: 6}}
    - {name: strong, training: {epochs: 6}}
"""


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)
