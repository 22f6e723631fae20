"""The report of a sweep: one table and one summary of all its cells."""

from collections.abc import Sequence

import pandas as pd

from roles.common.files import write_atomically
from sim.report.columns import attacks_in, columns_in_words, title_of
from sim.report.figures.run import draw_table
from sim.report.statistics import mean_interval
from sim.report.sweep_studies import report_sweep_studies
from sim.report.table import attacked, controls_of, gap_of
from sim.report.text import REPORT, markdown, psnr_and_ssim, with_interval, with_range, write_table
from sim.run.subject import CONTROL
from sim.run.sweep import SweepFolder, file_name

_SEEDS_FOR_AN_INTERVAL = 3
_DRAWN = ("user.alpha", "user.features.layer")
"""Axes that the figures have room for within one picture."""


def write_sweep_report(sweep: SweepFolder) -> str:
    """Write table, figures and summary of all cells that have come to their end, and return the summary."""
    table, axes, runs = sweep.table(), sweep.axes, sweep.runs()
    if table.empty:
        return "No cell has come to its end."
    write_table(sweep.path, table)
    write_atomically(sweep.path / "columns.md", columns_in_words(table))
    if by := [axis for axis in _but_seeds(axes) if axis not in _DRAWN]:
        for key, group in table.groupby(by, sort=False):
            draw_table(sweep.path / "figures" / file_name(",".join(map(str, key))), group)
    else:
        draw_table(sweep.path / "figures", table)
    summary = (
        f"# {sweep.name}\n\n{sum(run.has_table() for run in runs)} of {len(runs)} cells; axes: {', '.join(axes)}. "
        f"Medians; of acc. and to plain, of {_SEEDS_FOR_AN_INTERVAL} seeds or more the mean over seeds [95% interval, "
        f"Student's t], else the median (lowest to highest).\n\n{summary_table(table, axes)}\n\n"
        f"{report_sweep_studies(sweep, table, _but_seeds(axes))}"
        f"`{REPORT}` compares the cells, with pictures, on one page.\n"
    )
    write_atomically(sweep.path / "summary.md", summary)
    return summary


def summary_table(table: pd.DataFrame, axes: Sequence[str]) -> str:
    """Return a Markdown table of the rows of several runs; rows that differ by a seed or a user alone are one.

    Of several, the numbers are medians; of accuracies, lowest and highest stand behind or, with three seeds or more,
    the mean over seeds is shown with its 95% interval. n counts those with a result.

    Args:
        table: several runs' tables under each other.
        axes: its columns that say which run a row is of; those that end in ``seed`` are repetitions.
    """
    shown, by = ["protected", "class_mean", *attacks_in(table)], _but_seeds(axes)
    seeds = [axis for axis in axes if axis not in by]
    who = pd.Series(table.get("setting", "users"), index=table.index, dtype=object)
    who[controls_of(table).index] = CONTROL.name
    rows: list[dict[str, str]] = []
    for key, group in table.assign(who=who).groupby([*by, "who"], sort=False, dropna=False):
        known = attacked(group).dropna(axis="columns", how="all")
        row = dict(zip([*by, ""], map(str, key), strict=True))
        row["n"] = str(len(group)) if len(known) == len(group) else f"{len(known)} of {len(group)}"
        if known.empty:
            rows.append(row | {"verdict": "failed"})
            continue
        medians = known.median(numeric_only=True)
        if "accuracy" in known:
            row |= {
                "acc.": _spread(100 * known["accuracy"], known, seeds),
                "to plain": _spread(gap_of(known), known, seeds),
            }
        row |= {title_of(name): psnr_and_ssim(medians, name) for name in shown}
        row["verdict"] = ", ".join(f"{count} {verdict}" for verdict, count in known["verdict"].value_counts().items())
        rows.append(row)
    return markdown(pd.DataFrame(rows, columns=[*by, "", "n", "acc.", "to plain", *map(title_of, shown), "verdict"]))


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
