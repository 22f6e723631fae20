"""The columns of a run's or a sweep's table: what each is called, how the page shows it, and what it holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pandas.api.types import is_float_dtype, is_integer_dtype

from roles.evaluator.attacks import CIPHER_ATTACKS
from sim.report.text import markdown

_RECORDS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
CIPHER_TITLES = {attack.name: attack.title for attack in CIPHER_ATTACKS}
"""Attacks that train no network, by name; the columns of inverse networks begin with ``itn_`` and theirs."""
LADDER = "ladder"
"""How the columns of the best rung of a ladder begin (``roles/evaluator/studies/ladder.py``), which is one more attack;
there are no pictures of it."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    key: str
    """Its name in the table; ``group`` and ``label`` are titles over it and its neighbours and over it alone."""
    group: str
    label: str
    kind: str
    """How the page shows values, such as count, percent (of a share in [0, 1]), db, bytes or text."""
    meaning: str


def possible_columns(attacks: Sequence[str]) -> list[Column]:
    """Return all columns that a run's table may have, in order, given its ``attacks`` (see :func:`attacks_in`)."""
    of_each = zip(*(_of_attack(attack) for attack in attacks if attack.startswith("itn_")), strict=True)
    of_attacks = [column for columns in (*of_each, *map(_of_attack, CIPHER_TITLES)) for column in columns]
    return [*recorded("before_attacks"), *of_attacks, *recorded("after_attacks")]


def verdicts_in_words() -> str:
    """Return what each verdict says."""
    (verdict,) = (column for column in recorded("after_attacks") if column.key == "verdict")
    return verdict.meaning


def recorded(section: str) -> list[Column]:
    """Return the columns of a section of ``columns.yaml``."""
    return [Column(key, *record) for key, record in _RECORDS[section].items()]


def _of_attack(attack: str) -> list[Column]:
    title, kind_of_attack = title_of(attack), attack if attack in CIPHER_TITLES else "itn"
    estimates = _RECORDS["estimates"].get(kind_of_attack, f"what {title} makes of protected images")
    return [
        Column(f"{attack}_{measure}", title, label, kind, meaning.format(estimates))
        for measure, (label, kind, meaning) in _RECORDS["of_an_attack"].items()
    ]


def columns_in(table: pd.DataFrame) -> list[Column]:
    """Return what is known of each column of a run's or a sweep's table, in the table's order."""
    known = {column.key: column for column in possible_columns(attacks_in(table))}
    axis = "what the run has of this axis of the sweep"
    return [known.get(key) or unknown_column(key, table[key], axis) for key in map(str, table)]


def columns_in_words(table: pd.DataFrame) -> str:
    """Return what each column of a run's or a sweep's table holds, in Markdown: ``columns.md``."""
    rows = [(f"`{column.key}`", column.meaning) for column in columns_in(table)]
    return f"# Columns\n\nAccuracies are in [0, 1].\n\n{markdown(pd.DataFrame(rows, columns=['column', 'holds']))}\n"


def attacks_in(table: "pd.DataFrame | pd.Series[Any]") -> list[str]:
    """Return the attacks that a table or a row of one has measures of, by how their columns begin.

    >>> attacks_in(pd.Series({"itn_strong_psnr": 20.0, "fr_attack_psnr": 12.0, "ladder_psnr": 21.0}))
    ['itn_strong', 'fr_attack', 'ladder']
    """
    keys = map(str, table.columns if isinstance(table, pd.DataFrame) else table.index)
    found = [key.removesuffix("_psnr") for key in keys if key.endswith("_psnr")]
    return [attack for attack in found if attack in (*CIPHER_TITLES, LADDER) or attack.startswith("itn_")]


def attack_column(name: str) -> str:
    """Return how the columns of an attack begin, by its name in the results.

    >>> attack_column("strong"), attack_column("fr_attack")
    ('itn_strong', 'fr_attack')
    """
    return name if name in CIPHER_TITLES else f"itn_{name}"


def name_in_results(attack: str) -> str:
    """Undo :func:`attack_column`.

    >>> name_in_results("itn_strong"), name_in_results("fr_attack")
    ('strong', 'fr_attack')
    """
    return attack if attack in CIPHER_TITLES else attack.removeprefix("itn_")


def title_of(measured: str) -> str:
    """Return what heads of tables call protected images, a trivial guess or an attack, by how their columns begin.

    >>> title_of("itn_strong"), title_of("fr_attack"), title_of("class_mean"), title_of("ladder")
    ('ITN strong', 'FR-Attack', 'class mean', 'ladder')
    """
    others = [*recorded("before_attacks"), *recorded("after_attacks")]
    of_others = {column.key.removesuffix("_psnr"): column.group for column in others if column.group}
    return (of_others | CIPHER_TITLES).get(measured) or f"ITN {measured.removeprefix('itn_')}"


def unknown_column(key: str, values: "pd.Series[Any]", meaning: str = "") -> Column:
    """Return what can be said of a column of which nothing is known but its name and its values."""
    kind = "count" if is_integer_dtype(values) else "number" if is_float_dtype(values) else "text"
    return Column(key, "", key.replace("_", " "), kind, meaning)
