"""A sweep: one config, several experiments, one table.

``sweep:`` in a config maps dotted keys to lists of values; every combination is a cell, a run of its own with a folder
of its own. What cells have in common is done once: a psi of the same recipe is trained by the first cell that needs it.
"""

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from roles.common.files import UnreadableFile, read_json, write_atomically
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment, in_words
from sim.config.files import apply_override, experiment_of, read_config, set_value
from sim.run.folder import RunFolder
from sim.run.tables import read_table

_DESCRIPTION = "sweep.json"
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep."""

    name: str
    """The name of its folder."""
    values: dict[str, Any]
    """What it has of each axis, by dotted key."""
    experiment: Experiment


def file_name(text: str) -> str:
    """Return a name that any file system takes; a long one is cut and ends in a digest of the whole."""
    name = re.sub(r"[^A-Za-z0-9_.=,-]+", "_", text)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-{digest}"


def value_names(values: Sequence[Any]) -> list[str]:
    """Return what tables and folders call the values of an axis: of a section, its name or kind, else all its keys.

    Where several sections have one name or kind, it is followed by what sets each of them apart.

    >>> value_names([0.005, {"name": "resnet20", "flip": False}])
    ['0.005', 'resnet20']
    >>> value_names([{"kind": "iid"}, {"kind": "shards", "per_user": 2}, {"kind": "shards", "per_user": 3}])
    ['iid', 'shards per_user 2', 'shards per_user 3']
    >>> value_names([{}, {"clip": 0.1, "sign": True}])
    ['default', 'clip 0.1 sign']
    """
    short = [_short_name(value) if isinstance(value, dict) else str(value) for value in values]
    words = [in_words(value) if isinstance(value, dict) else [] for value in values]
    names: list[str] = []
    for name, own in zip(short, words, strict=True):
        common = set.intersection(*(set(others) for other, others in zip(short, words, strict=True) if other == name))
        names.append(" ".join([name, *(word for word in own if word not in common)]))
    return names


def _short_name(section: dict[str, Any]) -> str:
    return str(section.get("name") or section.get("kind") or " ".join(in_words(section)) or "default")


def is_sweep(path: Path, overrides: Sequence[str]) -> bool:
    """Return whether a config file describes several experiments."""
    return "sweep" in read_config(path, overrides)


def load_cells(path: Path, overrides: Sequence[str] = ()) -> list[Cell]:
    """Read all experiments of a sweep.

    An override of an axis takes its place, one of a key beneath an axis holds in all cells.

    Raises:
        ConfigError: an axis is not a list of values or lies beneath another, or an experiment is wrong; the message
            names the cell.
    """
    content = read_config(path, overrides)
    overridden = {override.partition("=")[0]: override for override in overrides}
    axes = {key: values for key, values in _axes(content.pop("sweep"), path).items() if key not in overridden}
    beneath = [override for key, override in overridden.items() if any(key.startswith(f"{axis}.") for axis in axes)]
    choices = [[(axis, *choice) for choice in zip(axes[axis], value_names(axes[axis]), strict=True)] for axis in axes]
    cells: list[Cell] = []
    for chosen in itertools.product(*choices):
        own, values = copy.deepcopy(content), {axis: value for axis, value, _ in chosen}
        name = ",".join(f"{axis.rpartition('.')[2]}={name}" for axis, _, name in chosen)
        for axis, value in values.items():
            set_value(own, axis, copy.deepcopy(value), f"{path}: sweep.{axis}")
        for override in beneath:
            apply_override(own, override)
        try:
            cells.append(Cell(file_name(name) or "the-only-one", values, experiment_of(own, path)))
        except ConfigError as error:
            raise ConfigError(f"{error} (in the cell {values})") from error
    if len({cell.name for cell in cells}) < len(cells):
        raise ConfigError(f"{path}: sweep: two cells have one name; give every value once")
    return cells


def _axes(sweep: Any, path: Path) -> dict[str, list[Any]]:
    if not isinstance(sweep, dict) or not sweep:
        raise ConfigError(f"{path}: sweep: must map keys to lists of values, such as 'seed: [0, 1, 2]'")
    axes = {str(key): values for key, values in sweep.items()}
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: sweep.{key}: got {values!r}: must be a list of values")
        if above := next((other for other in axes if key.startswith(f"{other}.")), None):
            raise ConfigError(f"{path}: sweep.{key}: lies beneath the axis {above}: put it into that one's values")
    return axes


@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep: its name and axes (``sweep.json``), a run in each of ``cells/``, a report of them all."""

    path: Path

    @staticmethod
    def create(path: Path, name: str, cells: Sequence[Cell]) -> "SweepFolder":
        """Make the folder of a new sweep and of all its cells; a :class:`ConfigError` if that cannot be."""
        if (path / _DESCRIPTION).exists():
            raise ConfigError(f"{path}: holds a sweep already; name another folder, or resume it with --resume {path}")
        for cell in cells:
            RunFolder.create(path / "cells" / cell.name, cell.experiment)
        description = {"name": name, "cells": {cell.name: cell.values for cell in cells}}
        write_atomically(path / _DESCRIPTION, json.dumps(description, indent=1))
        return SweepFolder(path)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Return whether ``path`` is the folder of a sweep."""
        return (path / _DESCRIPTION).is_file()

    def _description(self) -> dict[str, Any]:
        description: dict[str, Any] = read_json(self.path / _DESCRIPTION)
        return description

    @property
    def name(self) -> str:
        """The name that its config gives it."""
        return str(self._description()["name"])

    @property
    def axes(self) -> list[str]:
        """The dotted keys that cells differ in."""
        return list(next(iter(self._description()["cells"].values())))

    def runs(self) -> list[RunFolder]:
        """Return the run of each cell, in order."""
        return [RunFolder.open(self.path / "cells" / name) for name in self._description()["cells"]]

    def table(self, name: str = "table") -> pd.DataFrame:
        """Return the rows of all cells that have come to their end, the axes in front; empty if none has.

        By ``name``, such as ``studies/transfer``, those of another table than the cells' own, where a cell has it.

        A cell that is tried again because something in it had failed keeps its rows until it has better ones.
        """
        tables: list[pd.DataFrame] = []
        cells = self._description()["cells"].values()
        names = {axis: value_names([values[axis] for values in cells]) for axis in self.axes}
        for number, run in enumerate(self.runs()):
            path = run.path / f"{name}.parquet"
            if path.is_file() and run.has_table():
                try:
                    table = read_table(path)
                except UnreadableFile:
                    continue
                for position, (axis, named) in enumerate(names.items()):
                    table.insert(position, axis, named[number])
                tables.append(table)
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
