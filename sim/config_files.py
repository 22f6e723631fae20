"""One YAML file is one experiment: read, with overrides on top, and what is wrong with it in one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from roles.provider.training import ClassifierConfig
from roles.user.config import UserConfig
from sim.config import ConfigError, Experiment, one_line
from sim.mistakes import explain


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a YAML file, with ``key.sub=value`` overrides on top.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, a value of the wrong type or out of range, or a sweep.
    """
    content = read_config(path, overrides)
    if "sweep" in content:
        raise ConfigError(f"{path}: holds a sweep of several experiments: 'veilsim run' runs it")
    return experiment_of(content, path)


def read_config(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file, with ``key.sub=value`` overrides on top, unchecked.

    Raises:
        ConfigError: no such file, not YAML, no mapping, or an override that cannot be applied.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys to values, found {type(content).__name__}")
    for override in overrides:
        apply_override(content, override)
    return content


def experiment_of(content: dict[str, Any], path: Path) -> Experiment:
    """Return the experiment that the content of a config file describes.

    Args:
        path: the file, for messages.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or out of range.
    """
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, Experiment)}") from error
    for number in range(len(experiment.users.settings)):
        try:
            experiment.user_config(number)
        except ValidationError as error:
            raise ConfigError(f"{path}: users.settings.{number}.{explain(error, UserConfig)}") from error
    for number in range(len(experiment.other_classifiers)):
        try:
            experiment.other_classifier(number)
        except ValidationError as error:
            raise ConfigError(f"{path}: other_classifiers.{number}.{explain(error, ClassifierConfig)}") from error
    return experiment


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set what a ``key.sub=value`` override says.

    Raises:
        ConfigError: it has no such form, or cannot be applied.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: must be key=value, such as user.alpha=0.01")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML ({one_line(error)})") from error
    set_value(content, key, value, f"override {override!r}")


def set_value(content: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set the value of a dotted key.

    Args:
        source: what asks for it, for messages.

    Raises:
        ConfigError: the key leads through a value, or past the end of a list.
    """
    *parents, last = key.split(".")
    holder: Any = content
    for part in parents:
        listed = isinstance(holder, list)
        holder = holder[_index(holder, part, source)] if listed else holder.setdefault(part, {})
        if not isinstance(holder, dict | list):
            raise ConfigError(f"{source}: {part!r} holds a value, not a section")
    if isinstance(holder, list):
        holder[_index(holder, last, source)] = value
    else:
        holder[last] = value


def _index(holder: list[Any], part: str, source: str) -> int:
    if not part.isdecimal() or int(part) >= len(holder):
        raise ConfigError(f"{source}: {part!r} must be a position from 0 to {len(holder) - 1}")
    return int(part)
