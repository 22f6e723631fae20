"""The tables in a page: data frames as plain values with a head that says what a column is, and runs compared."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_integer_dtype

from roles.evaluator.attack import CIPHER_ATTACKS
from sim.config import Experiment
from sim.evaluator_node import BLUR
from sim.result_table import COLUMNS, GUESSES, best_of, guess_of, measured_users
from sim.results import Run
from sim.tables import attack_title, attacks_in

VERDICTS = ("hidden", "partial", "recovered", "visible")
MOST_ROWS = 200
"""Rows of a study that a page shows."""
MOST_IN_HEAT_MAP = 150
"""Attackers and victims of a heat map; cells of more would be smaller than four pixels."""

_MEASURES = {
    "accuracy": ("acc. (%)", "percent"),
    "psnr": ("PSNR", "db"),
    "ssim": ("SSIM", "ssim"),
    "psnr_worst1": ("worst 1%", "db"),
    "lpips": ("LPIPS", "ssim"),
    "recovered": ("recovered (%)", "percent"),
}
_GROUPED = {
    "images": ("training", "images", "count"),
    "steps": ("training", "steps", "count"),
    "selected_epoch": ("training", "epoch", "count"),
    "queries": ("traffic", "requests", "count"),
    "queried_images": ("traffic", "images", "count"),
    "sent_bytes": ("traffic", "sent", "bytes"),
    "received_bytes": ("traffic", "received", "bytes"),
}
_WHERE = re.compile(
    rf"(?P<what>protected|class_mean|mean_image|itn_.+?|{'|'.join(CIPHER_ATTACKS)})_(?P<measure>{'|'.join(_MEASURES)})"
)
_SETTINGS = ("protection", "alpha", "phi", "width", "plain_accuracy")
"""Columns that are said once where all rows agree."""
_FIRST = ("subject", "setting", *_SETTINGS, "verdict", "accuracy")


def users_table(table: pd.DataFrame) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the table of a run's users for a page, and what all users have in common.

    Returns:
        ``{"columns": [...], "rows": [[...]]}``, where a column is its ``key``, its ``group`` and ``label`` in the head,
        ``about``, and the ``kind`` of its values; and by column, the one value of all rows, in words.
    """
    users = table[table["subject"] != BLUR]
    # A user that failed has no accuracy, and one whose protection is a key has no alpha: that is a difference.
    same = {
        name: values.iloc[0]
        for name in _SETTINGS
        if name in table and (values := users[name].dropna()).nunique() == 1
        if name == "plain_accuracy" or len(values) == len(users)
    }
    common = {name.replace("_", " "): _in_words(name, value) for name, value in same.items()}
    empty = [name for name in table if table[name].dropna().astype(str).eq("").all()]
    # Ends of intervals would make the table half as wide again: they are in table.csv.
    ends = [name for name in table if str(name).endswith(("_low", "_high"))]
    shown = table.drop(columns=[*same, *ends, *(name for name in empty if name not in same)])
    groups = ["", "protected", "class mean", "mean image", *map(attack_title, attacks_in(table)), "training", "traffic"]
    columns = sorted((_column(name, shown[name]) for name in map(str, shown.columns)), key=lambda c: _place(c, groups))
    return _as_json(shown, columns), common


def plain_table(table: pd.DataFrame) -> dict[str, Any]:
    """Return the first rows of any table for a page, in the form of :func:`users_table`."""
    names = [str(name) for name in table.columns]
    shown = table[:MOST_ROWS].set_axis(names, axis=1)
    columns = [_described(name, "", name.replace("_", " "), _kind(shown[name]), "") for name in names]
    return _as_json(shown, columns)


def _in_words(name: str, value: Any) -> str:
    return f"{100 * value:.1f}%" if name == "plain_accuracy" else f"{value:g}" if name == "alpha" else str(value)


def _described(key: str, group: str, label: str, kind: str, about: str) -> dict[str, str]:
    return {"key": key, "group": group, "label": label, "kind": kind, "about": about}


def _column(name: str, values: "pd.Series[Any]") -> dict[str, str]:
    about = COLUMNS.get(re.sub(rf"^itn_.+?_(?=({'|'.join(_MEASURES)})$)", "itn_<name>_", name), "")
    if name in ("subject", "verdict"):
        return _described(name, "", name, name, about)
    if name in ("accuracy", "plain_accuracy"):
        return _described(name, "", "acc. (%)" if name == "accuracy" else "plain (%)", "percent", about)
    if name in _GROUPED:
        group, label, kind = _GROUPED[name]
        return _described(name, group, label, kind, about)
    if match := _WHERE.fullmatch(name):
        what = match["what"]
        group = what.replace("_", " ") if what in ("protected", *GUESSES) else attack_title(what)
        return _described(name, group, *_MEASURES[match["measure"]], about)
    return _described(name, "", name.replace("_", " "), _kind(values), about)


def _place(column: Mapping[str, str], groups: Sequence[str]) -> tuple[int, int]:
    """Return where a column belongs: who and what first, then the groups, then all others."""
    key, group = column["key"], column["group"]
    if group:
        return groups.index(group), 0
    return (0, _FIRST.index(key)) if key in _FIRST else (len(groups), 0)


def _kind(values: "pd.Series[Any]") -> str:
    if is_bool_dtype(values):
        return "text"
    return "count" if is_integer_dtype(values) else "number" if is_float_dtype(values) else "text"


def _as_json(table: pd.DataFrame, columns: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    values = [[_value(value) for value in table[column["key"]].tolist()] for column in columns]
    return {"columns": list(columns), "rows": [list(row) for row in zip(*values, strict=True)]}


def _value(value: Any) -> Any:
    """Return a value as JSON has it, numbers to six digits; JSON has no infinity, and a PSNR may be it.

    >>> [_value(value) for value in (0.123456789, math.inf, math.nan, pd.NA, 7, True, [1, 2])]
    [0.123457, 'Infinity', None, None, 7, 'True', '[1, 2]']
    """
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(f"{value:.6g}") if math.isfinite(value) else str(value).replace("inf", "Infinity")
    return value if isinstance(value, int) and not isinstance(value, bool) else str(value)


# ---- runs compared -----------------------------------------------------------------------------------------------


def comparison(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Return a table with a row a run, in the form of :func:`users_table`: what it cost and hid, and what differs."""
    differing = differences({label: run.experiment for label, run in runs.items()})
    rows = [{"run": label, **numbers(run.table), **differing[label]} for label, run in runs.items()]
    table = pd.DataFrame(rows).convert_dtypes()
    columns = []
    for name in table.columns:
        if name in _NUMBERS:
            columns.append(_described(name, *_NUMBERS[name]))
        else:
            kind = "run" if name == "run" else _kind(table[name])
            columns.append(_described(name, "" if name == "run" else "config", name, kind, ""))
    return _as_json(table, columns)


_NUMBERS = {
    "users": (
        "median user",
        "of",
        "count",
        "users that were attacked; the numbers in this group are medians over them",
    ),
    "accuracy": ("median user", "acc. (%)", "percent", COLUMNS["accuracy"]),
    "gap": ("median user", "to plain", "points", "accuracy minus that on plain images, in points"),
    "ssim": (
        "median user",
        "SSIM to be had",
        "ssim",
        "the highest of the protected image's median SSIM and those of all attacks",
    ),
    "gain": ("median user", "over a guess", "ssim", "the same minus the median SSIM of the better trivial guess"),
    **{
        verdict: ("share of users (%)", verdict, f"share {verdict}", COLUMNS["verdict"])
        for verdict in (*VERDICTS, "failed")
    },
}


def numbers(table: pd.DataFrame) -> dict[str, float]:
    """Return a run's table in a few numbers: medians over users who were attacked, and shares of all users.

    Returns:
        ``users`` (attacked ones), and if there are any ``accuracy`` in [0, 1], ``gap`` in points, ``ssim`` of the best
        that is to be had, its ``gain`` over a trivial guess; for each verdict and for ``failed``, a share in [0, 1].
    """
    users, measured = table[table["subject"] != BLUR], measured_users(table)
    found: dict[str, float] = {"users": len(measured)}
    if not measured.empty:
        best = best_of(measured, "ssim")
        found |= {
            "accuracy": float(measured["accuracy"].median()),
            "gap": 100 * float((measured["accuracy"] - measured["plain_accuracy"]).median()),
            "ssim": float(best.median()),
            "gain": float((best - guess_of(measured, "ssim")).median()),
        }
    counts = users["verdict"].value_counts().to_dict() if "verdict" in users else {}
    found |= {verdict: float(counts.get(verdict, 0)) / len(users) for verdict in VERDICTS}
    return found | {"failed": (len(users) - len(measured)) / len(users)}


def differences(experiments: Mapping[str, Experiment]) -> dict[str, dict[str, Any]]:
    """Return, for each experiment, its value of every dotted key in which they differ, names and places left out."""
    flat = {label: _flat(experiment.model_dump(mode="json")) for label, experiment in experiments.items()}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    differing = [key for key in keys if len({str(values.get(key)) for values in flat.values()}) > 1]
    return {label: {key: values.get(key) for key in differing if key != "name"} for label, values in flat.items()}


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a config by dotted keys; of lists of sections, a position is a key, and another list is one value.

    >>> _flat({"seed": 0, "user": {"alpha": 0.1, "sizes": [1, 2], "settings": [{"a": 1}, {"a": 2}]}})
    {'seed': 0, 'user.alpha': 0.1, 'user.sizes': '[1, 2]', 'user.settings.0.a': 1, 'user.settings.1.a': 2}
    """
    values: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = {str(position): item for position, item in enumerate(value)}
        if isinstance(value, dict):
            values |= _flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return values


# ---- who attacks whom --------------------------------------------------------------------------------------------


def heat_map(study: pd.DataFrame) -> dict[str, Any] | None:
    """Return a study of attacks across users as a matrix; None if it lacks a column or a value.

    Args:
        study: columns ``attacker``, ``victim`` and ``gain_ssim``; of several rows of one pair, the median counts.

    Returns:
        ``attackers`` (rows) and ``victims``, the first 150 of each by name, how many there are in ``all``, and
        ``values``, a list a row, with None where a pair has no value.
    """
    if not {"attacker", "victim", "gain_ssim"} <= set(study.columns) or study["gain_ssim"].isna().all():
        return None
    wide = study.pivot_table(index="attacker", columns="victim", values="gain_ssim", aggfunc="median")
    shown = wide.iloc[:MOST_IN_HEAT_MAP, :MOST_IN_HEAT_MAP]
    return {
        "attackers": [str(name) for name in shown.index],
        "victims": [str(name) for name in shown.columns],
        "all": max(wide.shape),
        "values": [[_value(float(value)) for value in row] for row in shown.to_numpy(dtype=float)],
    }
