"""Writes what STUDIES.md says of runs from their folders: ``python docs/studies.py RUN [RUN ...]``.

Everything between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is replaced; nothing in there is written by hand.
For a study of a run, NAME is ``<run>/<study>``, for the users of a run ``<run>``, for a sweep its name. Pictures are
copied to ``docs/studies/``.
"""

import shutil
import sys
from pathlib import Path

import pandas as pd

from sim.runs import RunFolder
from sim.studies import parts_of, study_table
from sim.sweep import SweepFolder
from sim.tables import markdown

PAGE = Path(__file__).parent / "STUDIES.md"
PICTURES = PAGE.parent / "studies"
MOST_ROWS = 24


def blocks_of(folder: Path) -> dict[str, str]:
    """Return what a run or a sweep says, by name, with its pictures copied."""
    if SweepFolder.is_one(folder):
        name = SweepFolder(folder).name
        tables = (folder / "summary.md").read_text().split("\n\n", 2)[2].strip()
        return {name: f"{tables}\n\n{_picture(folder, name, 'trade-off')}".strip()}
    run = RunFolder.open(folder)
    experiment = run.experiment()
    name = experiment.name
    blocks = {name: _users(run, {study.kind for study in experiment.studies})}
    for study in experiment.studies:
        parts = [run.findings(study.kind, part) for part in parts_of(study, run, experiment)]
        rows = [row for part in parts if part is not None for row in part.rows]
        table = study_table(study, run, experiment)
        lines = [study.conclusion(rows)] if rows else ["No user it could be done with."]
        if len(table) <= MOST_ROWS:
            lines.append(_table(table))
        lines.append(_picture(folder, name, f"study-{study.kind}"))
        blocks[f"{name}/{study.kind}"] = "\n\n".join(filter(None, lines))
    return blocks


def _users(run: RunFolder, kinds: set[str]) -> str:
    """Return the table of a run's summary and what it says of it, but for the studies' own conclusions."""
    lines = (run.path / "summary.md").read_text().splitlines()
    said = [line for line in lines if line.startswith("- ") and line.removeprefix("- ").partition(":")[0] not in kinds]
    return "\n".join([*(line for line in lines if line.startswith("|")), "", *said])


def _table(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        return "-" if pd.isna(value) else f"{value:.3f}" if isinstance(value, float) else str(value)

    return markdown(list(table), [[cell(value) for value in row] for row in table.itertuples(index=False)])


def _picture(folder: Path, name: str, figure: str) -> str:
    source = folder / "figures" / f"{figure}.png"
    if not source.is_file():
        return ""
    PICTURES.mkdir(exist_ok=True)
    target = PICTURES / f"{name}-{figure}.png"
    shutil.copyfile(source, target)
    return f"![{figure} of {name}](studies/{target.name})"


def main() -> None:
    """Replace the blocks of STUDIES.md that the given folders have something to say about."""
    page = PAGE.read_text()
    for folder in sys.argv[1:]:
        for name, block in blocks_of(Path(folder)).items():
            begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
            if begin in page:
                page = f"{page.partition(begin)[0]}{begin}\n{block}\n{end}{page.partition(end)[2]}"
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
