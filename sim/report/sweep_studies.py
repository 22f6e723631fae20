"""What the studies of a sweep's cells found, joined: a row a cell, beside the accuracy that the cell has."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from roles.evaluator.study import HeatMap, Lines
from sim.report.figures.studies import draw_study
from sim.report.studies import USER_COLUMNS
from sim.report.table import gap_of, measured_users
from sim.report.text import markdown, write_table
from sim.run.sweep import SweepFolder


def report_sweep_studies(sweep: SweepFolder, table: pd.DataFrame, by: Sequence[str]) -> str:
    """Write the rows of every study of all complete cells as one table, and return their medians in Markdown.

    Where cells differ by their seeds alone, a picture has them all, as that of one run has one.

    Args:
        table: what :meth:`SweepFolder.table` returns.
        by: those axes of the sweep of which each value has a row.
    """
    forms: dict[str, HeatMap | Lines] = {}
    for run in sweep.runs():
        forms |= {study.kind: study.figure for study in run.experiment().studies}
    said = []
    for kind, form in forms.items():
        found = sweep.table(f"studies/{kind}")
        if len(found):
            write_table(sweep.path / "studies", found, kind)
            shown = joined(found, form, table, by)
            if not by:
                named = _by_setting(found, table)
                draw_study(sweep.path / "figures" / f"study-{kind}", form, named)
                shown = over_seeds(named, form) or shown
            said.append(f"**{kind}**: {form.title} (medians).\n\n{shown}\n\n")
    return "".join(said)


def _by_setting(found: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of studies with the names of users' settings in place of their numbers, if each user has its own."""
    known = table.drop_duplicates("subject").set_index("subject")
    if "setting" not in known or "user" not in found or known["setting"].nunique() < known["setting"].count():
        return found
    return found.assign(user=found["user"].map(known["setting"]).fillna(found["user"]))


def joined(found: pd.DataFrame, form: HeatMap | Lines, table: pd.DataFrame, by: Sequence[str]) -> str:
    """Return the medians of what a study's picture shows as a Markdown table, a row for each value of the axes ``by``.

    A line of the picture has a column for each place on it, or one if these are users.

    Args:
        found: the study's rows of all cells, with the axes as columns.
        table: the rows of the cells' own tables, likewise: accuracies are medians over users, in percent.
    """
    percent = isinstance(form, Lines) and form.share
    rows: list[dict[str, str]] = []
    for key, own in found.groupby(list(by), sort=False, dropna=False) if by else [((), found)]:
        row = dict(zip(by, map(str, key), strict=True))
        users = measured_users(_where(table, dict(zip(by, key, strict=True))))
        if "accuracy" in users:
            row["acc."] = f"{100 * users['accuracy'].median():.1f}"
            row["to plain"] = f"{gap_of(users).median():+.1f}"
        columns = own.apply(lambda one: _column(one, form), axis=1)
        for name, values in own[form.value].groupby(columns, sort=False):
            row[str(name)] = f"{100 * values.median():.1f}" if percent else f"{values.median():.2f}"
        rows.append(row)
    return markdown(pd.DataFrame(rows))


def over_seeds(found: pd.DataFrame, form: HeatMap | Lines) -> str:
    """Return the medians over all seeds as a Markdown table, a row for each line of the picture; else nothing."""
    if not isinstance(form, Lines) or not form.by or form.x in USER_COLUMNS:
        return ""
    factor, digits = (100, 1) if form.share else (1, 2)
    medians = found.groupby([form.by, form.x], sort=False)[form.value].median().unstack(sort=False)
    medians.columns = [f"{form.x.replace('_', ' ')} {name}" for name in medians.columns]
    shown = (factor * medians).map(lambda value: f"{value:.{digits}f}")
    return markdown(shown.rename_axis("").reset_index())


def _where(table: pd.DataFrame, values: Mapping[str, object]) -> pd.DataFrame:
    for axis, value in values.items():
        table = table[table[axis] == value]
    return table


def _column(row: "pd.Series[Any]", form: HeatMap | Lines) -> str:
    """Return which column a row of a study belongs to."""
    if isinstance(form, HeatMap):
        return form.value
    parts = [str(row[form.by])] if form.by else []
    if form.x not in USER_COLUMNS:
        number = is_numeric_dtype(pd.Series([row[form.x]]))
        parts.append(f"{form.x.replace('_', ' ')} {row[form.x]}" if number else str(row[form.x]))
    return ", ".join(parts) or form.value
