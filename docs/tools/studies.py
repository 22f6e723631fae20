"""Writes what STUDIES.md says of runs from their folders: ``python docs/tools/studies.py RUN [RUN ...]``.

Its blocks (see :func:`pages.fill`) are replaced; nothing in them is written by hand. For a study of a run, a block is
called ``<run>/<study>``, for the users of a run ``<run>``; for a sweep it is its name, for its trade-off curves
``<sweep>/trade-off``, for the users of a cell ``<sweep>/<cell>``, for the picture of a study over all cells
``<sweep>/study-<study>``. Pictures are copied to ``docs/studies/``.
"""

import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from pages import DOCS, fill

from roles.evaluator.studies import StudyConfig
from sim.report.studies import conclusion_of, study_table
from sim.report.text import markdown
from sim.run.folder import RunFolder
from sim.run.sweep import SweepFolder

PAGE = DOCS / "STUDIES.md"
PICTURES = DOCS / "studies"
MOST_ROWS = 24


def blocks_of(folder: Path) -> Mapping[str, Callable[[], str]]:
    """Return what writes each block that a run or a sweep has something to say for, copying its pictures."""
    if SweepFolder.is_one(folder):
        sweep = SweepFolder(folder)
        cells = {f"{sweep.name}/{run.path.name}": partial(_users, run) for run in sweep.runs()}
        drawn = sorted((sweep.path / "figures").glob("study-*.png"))
        pictures = {f"{sweep.name}/{path.stem}": partial(_picture, path, sweep.name) for path in drawn}
        whole = {sweep.name: partial(_cells, sweep), f"{sweep.name}/trade-off": partial(_trade_off, sweep)}
        return cells | whole | pictures
    run = RunFolder.open(folder)
    name = run.experiment().name
    return {name: partial(_users, run)} | {
        f"{name}/{study.kind}": partial(_study, run, study) for study in run.experiment().studies
    }


def _cells(sweep: SweepFolder) -> str:
    """Return the tables of a sweep, and what the studies of its cells amount to."""
    blocks = (sweep.path / "summary.md").read_text().split("\n\n")
    table = "\n\n".join(block.strip() for block in blocks if block.startswith(("|", "**")))
    said = [
        f"- {run.path.name}: {conclusion_of(study, run, run.experiment())}"
        for run in sweep.runs()
        for study in run.experiment().studies
    ]
    return "\n\n".join(filter(None, [table, "\n".join(said)]))


def _study(run: RunFolder, study: StudyConfig) -> str:
    """Return what a study amounts to, its table and its picture."""
    experiment = run.experiment()
    table = study_table(study, run, experiment)
    # A matrix is better seen than read.
    shown = _table(table) if len(table) <= MOST_ROWS and "attacker" not in table else ""
    picture = _picture(run.path / "figures" / f"study-{study.kind}.png", experiment.name)
    return "\n\n".join(filter(None, [conclusion_of(study, run, experiment), shown, picture]))


def _users(run: RunFolder) -> str:
    """Return the table of a run's summary and what it says of it, but for the studies' own conclusions."""
    kinds = {study.kind for study in run.experiment().studies}
    lines = (run.path / "summary.md").read_text().splitlines()
    said = [line for line in lines if line.startswith("- ") and line.removeprefix("- ").partition(":")[0] not in kinds]
    return "\n".join([*(line for line in lines if line.startswith("|")), "", *said])


def _table(table: pd.DataFrame) -> str:
    def cell(value: Any) -> Any:
        return f"{value:.3g}" if isinstance(value, float) else value

    return markdown(table.astype(object).map(cell, na_action="ignore"))


def _trade_off(sweep: SweepFolder) -> str:
    """Return the trade-off curves of a sweep, one or one for each value of an axis."""
    pictures = sorted((sweep.path / "figures").rglob("trade-off.png"))
    return "\n\n".join(_picture(path, sweep.name) for path in pictures)


def _picture(source: Path, name: str) -> str:
    if not source.is_file():
        return ""
    PICTURES.mkdir(exist_ok=True)
    cell = "" if source.parent.name == "figures" else f"-{re.sub(r'[^A-Za-z0-9_.]+', '-', source.parent.name)}"
    target = PICTURES / f"{name}{cell}-{source.name}"
    shutil.copyfile(source, target)
    return f"![{source.stem}, {name}{cell}](studies/{target.name})"


def main(folders: Sequence[Path]) -> None:
    """Replace the blocks of STUDIES.md that the given runs or sweeps have something to say for."""
    for folder in folders:
        fill(PAGE, blocks_of(folder))


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
