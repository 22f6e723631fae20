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

from sim.config import ConfigError, Experiment, in_words
from sim.config_files import apply_override, experiment_of, read_config, set_value
from sim.evaluator_node import BLUR
from sim.progress import write_atomically
from sim.result_table import columns_of
from sim.run_figures import draw_table
from sim.runs import RunFolder
from sim.statistics import mean_interval
from sim.tables import attack_title, attacks_in, markdown, psnr_and_ssim, with_interval, with_range, write_table

_DESCRIPTION = "sweep.json"
_LONGEST_NAME = 100
_SEEDS_FOR_AN_INTERVAL = 3
_DRAWN = ("user.alpha", "user.features.layer")
"""Axes that the figures have room for within one picture."""


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep."""

    name: str
    """The name of its folder."""
    values: dict[str, Any]
    """What it has of each axis, by dotted key."""
    experiment: Experiment


def _file_name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.=,-]+", "_", text)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-{digest}"


def value_names(values: Sequence[Any]) -> list[str]:
    """Return what tables and folders call the values of an axis: of a section, its name or kind.

    Where several sections have one name or kind, it is followed by what sets each of them apart.

    >>> value_names([0.005, {"name": "resnet20", "flip": False}])
    ['0.005', 'resnet20']
    >>> value_names([{"kind": "iid"}, {"kind": "shards", "per_user": 2}, {"kind": "shards", "per_user": 3}])
    ['iid', 'shards per_user 2', 'shards per_user 3']
    """
    names: list[str] = []
    for value in values:
        namesakes = [set(_words(other)) for other in values if _short_name(other) == _short_name(value)]
        common = set.intersection(*namesakes)
        names.append(" ".join([_short_name(value), *(word for word in _words(value) if word not in common)]))
    return names


def _short_name(value: Any) -> str:
    return str(value.get("name") or value.get("kind") or value) if isinstance(value, dict) else str(value)


def _words(value: Any) -> list[str]:
    return in_words(value) if isinstance(value, dict) else []


def is_sweep(path: Path, overrides: Sequence[str]) -> bool:
    """Return whether a config file describes several experiments.

    Raises:
        ConfigError: it cannot be read.
    """
    return "sweep" in read_config(path, overrides)


def load_cells(path: Path, overrides: Sequence[str] = ()) -> list[Cell]:
    """Read all experiments of a sweep.

    An override of an axis takes its place, one of a key beneath an axis holds in all cells.

    Raises:
        ConfigError: an axis is not a list of values or lies beneath another, or an experiment is wrong; the message
            names the cell.
    """
    content = read_config(path, overrides)
    axes = content.pop("sweep")
    if not isinstance(axes, dict) or not axes:
        raise ConfigError(f"{path}: sweep: must map keys to lists of values, such as 'seed: [0, 1, 2]'")
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: sweep.{key}: got {values!r}: must be a list of values")
        if above := next((str(other) for other in axes if str(key).startswith(f"{other}.")), None):
            raise ConfigError(f"{path}: sweep.{key}: lies beneath the axis {above}: put it into that one's values")
    overridden = {override.partition("=")[0]: override for override in overrides}
    axes = {key: values for key, values in axes.items() if key not in overridden}
    beneath = [override for key, override in overridden.items() if any(key.startswith(f"{axis}.") for axis in axes)]
    cells: list[Cell] = []
    named = [list(zip(values, value_names(values), strict=True)) for values in axes.values()]
    for combination in itertools.product(*named):
        pairs, own = dict(zip(axes, combination, strict=True)), copy.deepcopy(content)
        values = {key: value for key, (value, _) in pairs.items()}
        name = ",".join(f"{key.rpartition('.')[2]}={name}" for key, (_, name) in pairs.items())
        for key, value in values.items():
            set_value(own, str(key), copy.deepcopy(value), f"{path}: sweep.{key}")
        for override in beneath:
            apply_override(own, override)
        try:
            cells.append(Cell(_file_name(name) or "the-only-one", values, experiment_of(own, path)))
        except ConfigError as error:
            raise ConfigError(f"{error} (in the cell {values})") from error
    if len({cell.name for cell in cells}) < len(cells):
        raise ConfigError(f"{path}: sweep: two cells have one name; give every value once")
    return cells


class SweepFolder:
    """The folder of a sweep.

    ========================  ===================================================================
    ``sweep.json``            name, and what each cell has of each axis
    ``cells/<name>/``         the run folder of each cell
    ``table.csv``, ``.parquet``  the rows of all cells, the axes in front; ``columns.md`` says what they hold
    ``summary.md``            the same, rows that differ by a seed alone put together
    ``figures/``              trade-off and accuracy against alpha, PNG and PDF
    ========================  ===================================================================
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(path: Path, name: str, cells: Sequence[Cell]) -> "SweepFolder":
        """Make the folder of a new sweep, and of all its cells.

        Raises:
            ConfigError: there is one already, or there can be none.
        """
        if (path / _DESCRIPTION).exists():
            raise ConfigError(f"{path}: holds a sweep already; name another folder, or resume it with --resume {path}")
        sweep = SweepFolder(path)
        for cell in cells:
            RunFolder.create(sweep._cell(cell.name), cell.experiment)
        description = {"name": name, "cells": {cell.name: cell.values for cell in cells}}
        write_atomically(path / _DESCRIPTION, json.dumps(description, indent=1))
        return sweep

    @staticmethod
    def is_one(path: Path) -> bool:
        """Return whether ``path`` is the folder of a sweep."""
        return (path / _DESCRIPTION).is_file()

    @property
    def name(self) -> str:
        """The name that its config gives it."""
        return str(self._description()["name"])

    def _cell(self, name: str) -> Path:
        return self.path / "cells" / name

    def _description(self) -> dict[str, Any]:
        description: dict[str, Any] = json.loads((self.path / _DESCRIPTION).read_text())
        return description

    def runs(self) -> list[RunFolder]:
        """Return the run of each cell, in order."""
        return [RunFolder.open(self._cell(name)) for name in self._description()["cells"]]

    def table(self) -> pd.DataFrame:
        """Return the rows of all cells that have come to their end, the axes in front; empty if none has.

        A cell that is tried again because something in it had failed keeps its rows until it has better ones.
        """
        tables: list[pd.DataFrame] = []
        cells = self._description()["cells"]
        axes = list(next(iter(cells.values())))
        names = {axis: value_names([values[axis] for values in cells.values()]) for axis in axes}
        for number, name in enumerate(cells):
            if RunFolder(self._cell(name)).has_table():
                table = pd.read_parquet(self._cell(name) / "table.parquet")
                for position, axis in enumerate(axes):
                    table.insert(position, axis, names[axis][number])
                tables.append(table)
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def write_report(self) -> str:
        """Write the table and the summary of all cells that have come to their end, and return the summary."""
        description, whole = self._description(), self.table()
        if whole.empty:
            return "No cell has come to its end."
        axes = list(next(iter(description["cells"].values())))
        write_table(self.path, whole)
        write_atomically(self.path / "columns.md", columns_of(whole))
        if by := [axis for axis in _but_seeds(axes) if axis not in _DRAWN]:
            for key, group in whole.groupby(by, sort=False):
                draw_table(self.path / "figures" / _file_name(",".join(map(str, key))), group)
        else:
            draw_table(self.path / "figures", whole)
        done = f"{sum(run.has_table() for run in self.runs())} of {len(description['cells'])} cells"
        summary = (
            f"# {description['name']}\n\n{done}; axes: {', '.join(axes)}. Medians; of acc. and to plain, of "
            f"{_SEEDS_FOR_AN_INTERVAL} seeds or more the mean over seeds [95% interval, Student's t], else the median "
            f"(lowest to highest).\n\n{summary_table(whole, axes)}\n"
        )
        write_atomically(self.path / "summary.md", summary)
        return summary


def summary_table(table: pd.DataFrame, axes: Sequence[str]) -> str:
    """Return a Markdown table of the rows of several runs; rows that differ by a seed or a user alone are one.

    Of several, the numbers are medians; of accuracies, lowest and highest stand behind or, with three seeds or more,
    the mean over seeds is shown with its 95% interval. n counts those with a result.

    Args:
        table: as of :meth:`SweepFolder.write_report`, or several runs' tables under each other.
        axes: its columns that say which run a row is of; those that end in ``seed`` are repetitions.
    """
    attacks = attacks_in(table)
    by = _but_seeds(axes)
    seeds = [axis for axis in axes if axis not in by]
    who = table["subject"].where(table["subject"] == BLUR, table.get("setting", "users"))
    header = [*by, "", "n", "acc.", "to plain", "protected", "class mean", *map(attack_title, attacks), "verdict"]
    rows: list[list[str]] = []
    for key, group in table.assign(who=who).groupby([*by, "who"], sort=False, dropna=False):
        measured = group.dropna(subset=["accuracy"]) if "accuracy" in group else group[:0]
        names = [str(part) for part in key]
        if measured.empty:
            rows.append([*names, f"0 of {len(group)}", *["-"] * (len(header) - len(names) - 2), "failed"])
            continue
        count = str(len(group)) if len(measured) == len(group) else f"{len(measured)} of {len(group)}"
        medians = measured.median(numeric_only=True)
        gap = 100 * (measured["accuracy"] - measured["plain_accuracy"])
        rows.append(
            [
                *names,
                count,
                _spread(100 * measured["accuracy"], measured, seeds),
                _spread(gap, measured, seeds),
                *(psnr_and_ssim(medians, name) for name in ("protected", "class_mean", *attacks)),
                ", ".join(f"{count} {verdict}" for verdict, count in measured["verdict"].value_counts().items()),
            ]
        )
    return markdown(header, rows)


def _spread(values: "pd.Series[float]", rows: pd.DataFrame, seeds: Sequence[str]) -> str:
    """Return the middle of values, one a row, and how far they vary.

    Users of one run share a psi and are no repetitions of each other: what an interval is of is each seed's mean.
    """
    means = values.groupby([rows[axis] for axis in seeds]).mean() if seeds else values[:0]
    if len(means) < _SEEDS_FOR_AN_INTERVAL:
        return with_range(values)
    return with_interval(float(means.mean()), mean_interval(means))


def _but_seeds(axes: Sequence[str]) -> list[str]:
    return [axis for axis in axes if axis.rpartition(".")[2] != "seed"]
