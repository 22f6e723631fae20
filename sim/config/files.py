"""One YAML file is one experiment: read, with overrides on top, and what is wrong with it in one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from roles.common.config.classifier import ClassifierConfig
from roles.common.config.user import UserConfig
from sim.config.errors import ConfigError, one_line
from sim.config.experiment import Experiment
from sim.config.explain import explained


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
    """Read a YAML file, with ``key.sub=value`` overrides on top, unchecked; a :class:`ConfigError` if it cannot be."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file")
    try:
        content = _parsed(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML ({_said(error)})") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys to values, found {type(content).__name__}")
    for override in overrides:
        apply_override(content, override)
    return content


def experiment_of(content: dict[str, Any], path: Path) -> Experiment:
    """Return the experiment that a file's ``content`` describes; a :class:`ConfigError` that says what it has wrong."""
    with explained(Experiment, f"{path}: "):
        experiment = Experiment.model_validate(content)
    for number in range(len(experiment.users.settings)):
        with explained(UserConfig, f"{path}: users.settings.{number}."):
            experiment.user_config(number)
    for number in range(len(experiment.other_classifiers)):
        with explained(ClassifierConfig, f"{path}: other_classifiers.{number}."):
            experiment.other_classifier(number)
    return experiment


class _Loader(yaml.SafeLoader):
    """Reads YAML as ``safe_load`` does, but for a key that is given twice, of which that would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See :class:`yaml.SafeLoader`."""
        lines = dict[Any, int]()
        for key, _ in node.value:
            name, line = getattr(key, "value", None), key.start_mark.line + 1
            if isinstance(name, str) and name != "<<":
                if name in lines:
                    raise ValueError(f"line {line}: key {name!r} is there already, in line {lines[name]}")
                lines[name] = line
        return super().construct_mapping(node, deep)


def _parsed(text: str) -> Any:
    return yaml.load(text, _Loader)


def _said(error: Exception) -> str:
    """Return what is wrong with a text that is no YAML, and in which line, in one line of our own."""
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8 text"
    if mark is None:
        return one_line(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', '') or 'not understood'}"


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set what a ``key.sub=value`` override says; a :class:`ConfigError` if it cannot be applied."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: must be key=value, such as user.alpha=0.01")
    try:
        value = _parsed(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML ({_said(error)})") from error
    set_value(content, key, value, f"override {override!r}")


def set_value(content: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set the value of a dotted key; ``source`` is what asks for it, for messages.

    Raises:
        ConfigError: the key leads through a value, or past the end of a list.
    """
    holder: Any = content
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(holder, dict):
            holder.setdefault(part, {})
        holder = holder[_place(holder, part, source)]
        if not isinstance(holder, dict | list):
            raise ConfigError(f"{source}: {part!r} holds a value, not a section")
    holder[_place(holder, last, source)] = value


def _place(holder: dict[str, Any] | list[Any], part: str, source: str) -> Any:
    if isinstance(holder, list) and not (part.isdecimal() and int(part) < len(holder)):
        raise ConfigError(f"{source}: {part!r} must be a position from 0 to {len(holder) - 1}")
    return int(part) if isinstance(holder, list) else part
