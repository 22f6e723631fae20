"""The tables in a page: data frames as plain values with a head that says what a column is, and runs compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from sim.config.experiment import Experiment
from sim.report.columns import Column, attacks_in, columns_in, recorded, title_of, unknown_column
from sim.report.results import Run
from sim.report.summary import control_in_a_word
from sim.report.table import (
    GUESSES,
    attacked,
    best_attack,
    best_of,
    gap_of,
    guess_of,
    measured_users,
    short_of,
    users_of,
    verdict_counts,
)
from sim.run.subject import CONTROL
from sim.run.tracking import flattened

VERDICTS = ("hidden", "partial", "recovered", "visible")
MOST_ROWS = 200
"""Rows of a study that a page shows."""
MOST_IN_HEAT_MAP = 150
"""Attackers and victims of a heat map; cells of more would be smaller than four pixels."""

_SETTINGS = ("protection", "alpha", "phi", "width", "plain_accuracy")
"""Columns that are said once where all rows agree."""


def users_table(table: pd.DataFrame) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the table of a run's users for a page, and by column, in words, the one value that all users have.

    The table is ``{"columns": [...], "rows": [[...]], "control": [...]}``, where a column is a :class:`Column` as a
    dict; ``more`` in it says whether a reader must ask for it. A cell is a value or a value and the ends of its
    interval. The control, which is no user, has a row of its own, or None.
    """
    users, known = users_of(table), {column.key: column for column in columns_in(table)}
    # A user that failed has no accuracy, and one whose protection is a key has no alpha: that is a difference.
    agreed = [key for key in _SETTINGS if key in known and users[key].nunique() == 1]
    same = {key: users[key].dropna().iloc[0] for key in agreed if key == "plain_accuracy" or users[key].notna().all()}
    common = {key.replace("_", " "): _in_words(known[key].kind, value) for key, value in same.items()}
    shown, first = _with_intervals(table), recorded("first_in_pages")
    empty = {key for key in known if table[key].dropna().astype(str).eq("").all()}
    # What a reader asks for first; then who and what, what was measured of whom, and all that has no place of its own.
    groups = [*map(title_of, ["protected", *GUESSES, *attacks_in(table)]), "training", "traffic"]
    places = {name: place for place, name in enumerate([*_SETTINGS, *groups])}
    left_out = {*same, *empty, *(column.key for column in first)}
    rest = [column for key, column in known.items() if not key.endswith(("_low", "_high")) and key not in left_out]
    rest.sort(key=lambda column: places.get(column.group or column.key, len(places)))
    columns = [column for column in first if column.key in shown and shown[column.key].notna().any()]
    # Why somebody has no result is asked for first.
    columns += [column for column in rest if column.key == "failure"]
    more = [column for column in rest if column.key != "failure"]
    made = _as_json(shown, [*columns, *more])
    for column in made["columns"][len(columns) :]:
        column["more"] = True
    rows = dict(zip(shown["subject"], made["rows"], strict=True))
    of_control = rows.pop(CONTROL.name, None)
    keys = [column.key for column in columns]
    if of_control and "verdict" in keys:
        of_control[keys.index("verdict")] = control_in_a_word(table)
    return made | {"rows": list(rows.values()), "control": of_control}, common


def _with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with what its rows' best attacks found; numbers that have an interval, with its ends."""
    shown = table.copy()
    for key, values in short_of(table).items():
        shown[key] = values
    columns = {"accuracy": dict.fromkeys(table.index, "accuracy")} if "accuracy" in table else {}
    columns["best_ssim"] = {index: f"{best_attack(row)}_ssim" for index, row in attacked(table).iterrows()}
    for key, names in columns.items():
        cells = {index: _between(table.loc[index], name) for index, name in names.items()}
        shown[key] = pd.Series(cells, index=table.index, dtype=object)
    return shown


def _between(row: "pd.Series[Any]", name: str) -> Any:
    cell: list[Any] = [row.get(key) for key in (name, f"{name}_low", f"{name}_high")]
    return cell[0] if any(pd.isna(part) for part in cell) else tuple(map(float, cell))


def plain_table(table: pd.DataFrame) -> dict[str, Any]:
    """Return the first rows of any table for a page, in the form of :func:`users_table`."""
    shown = table[:MOST_ROWS].set_axis(list(map(str, table.columns)), axis=1)
    return _as_json(shown, [unknown_column(key, shown[key]) for key in map(str, shown)])


def _in_words(kind: str, value: Any) -> str:
    return f"{100 * value:.1f}%" if kind == "percent" else f"{value:g}" if kind == "number" else str(value)


def _as_json(table: pd.DataFrame, columns: Sequence[Column]) -> dict[str, Any]:
    values = [[_value(value) for value in table[column.key].tolist()] for column in columns]
    return {
        "columns": [vars(column) | {"more": False} for column in columns],
        "rows": [list(row) for row in zip(*values, strict=True)],
    }


def _value(value: Any) -> Any:
    """Return a value as JSON has it, numbers to six digits; JSON has no infinity, and a PSNR may be it.

    >>> [_value(value) for value in (0.123456789, math.inf, math.nan, pd.NA, 7, True, [1, 2], (0.5, 0.25))]
    [0.123457, 'Infinity', None, None, 7, 'True', '[1, 2]', [0.5, 0.25]]
    """
    if isinstance(value, tuple):
        return [_value(part) for part in value]
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value).replace("inf", "Infinity")
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)


# ---- runs compared -----------------------------------------------------------------------------------------------


def comparison(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Return a table with a row a run, in the form of :func:`users_table`: what it cost and hid, and what differs."""
    differing = differences({label: run.experiment for label, run in runs.items()})
    rows = [{"run": label, **numbers(run.table), **differing[label]} for label, run in runs.items()]
    table, known = pd.DataFrame(rows).convert_dtypes(), {column.key: column for column in recorded("of_runs")}
    configured = {key: replace(unknown_column(key, table[key]), group="config", label=key) for key in map(str, table)}
    return _as_json(table, [known.get(key, column) for key, column in configured.items()])


def numbers(table: pd.DataFrame) -> dict[str, float]:
    """Return a run's table in a few numbers, by the columns ``of_runs`` of ``columns.yaml``.

    Medians are over users who were attacked, if any were; shares of verdicts, in [0, 1], are of all users.
    """
    users, measured = users_of(table), measured_users(table)
    found: dict[str, float] = {"users": len(measured)}
    if "accuracy" in measured and len(measured):
        found |= {"accuracy": float(measured["accuracy"].median()), "gap": float(gap_of(measured).median())}
    if len(measured):
        best = best_of(measured, "ssim")
        found |= {"ssim": float(best.median()), "gain": float((best - guess_of(measured, "ssim")).median())}
    if len(measured) and "exposed" in measured:
        found["exposed"] = float(measured["exposed"].median())
    found |= {verdict: float(verdict_counts(table).get(verdict, 0) / len(users)) for verdict in VERDICTS}
    return found | {"failed": (len(users) - len(measured)) / len(users)}


def differences(experiments: Mapping[str, Experiment]) -> dict[str, dict[str, Any]]:
    """Return, for each experiment, its value of every dotted key in which they differ, but for the name."""
    flat = {label: dict(flattened(experiment.model_dump(mode="json"))) for label, experiment in experiments.items()}
    table = pd.DataFrame(flat, dtype=object).drop("name")
    differing = table[table.astype(str).nunique(axis=1, dropna=False) > 1]
    return {label: {str(key): value for key, value in differing[label].items()} for label in flat}


# ---- who attacks whom --------------------------------------------------------------------------------------------


def heat_map(study: pd.DataFrame) -> dict[str, Any] | None:
    """Return a study of attacks across users as a matrix; None if it lacks a column or a value.

    Args:
        study: columns ``attacker``, ``victim`` and ``gain_ssim``; of several rows of one pair, the median counts.

    Returns:
        the first 150 ``attackers`` (rows) and ``victims``, how many there are in ``all``, and ``values``, a list a row.
    """
    if not {"attacker", "victim", "gain_ssim"} <= set(study.columns) or study["gain_ssim"].isna().all():
        return None
    wide = study.pivot_table(index="attacker", columns="victim", values="gain_ssim", aggfunc="median")
    shown = wide.iloc[:MOST_IN_HEAT_MAP, :MOST_IN_HEAT_MAP]
    return {
        "attackers": list(map(str, shown.index)),
        "victims": list(map(str, shown.columns)),
        "all": max(wide.shape),
        "values": [[_value(value) for value in row] for row in shown.to_numpy(dtype=float).tolist()],
    }
