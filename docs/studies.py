"""Writes what STUDIES.md says of runs from their folders: ``python docs/studies.py RUN [RUN ...]``.

Everything between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is replaced; nothing in there is written by hand.
For a study of a run, NAME is ``<run>/<study>``, for the users of a run ``<run>``, for a sweep its name. Pictures are
copied to ``docs/studies/``.
"""

import re
import shutil
import sys
from pathlib import Path

import pandas as pd

from sim.runs import RunFolder
from sim.studies import conclusion_of, study_table
from sim.sweep import SweepFolder
from sim.tables import markdown

PAGE = Path(__file__).parent / "STUDIES.md"
PICTURES = PAGE.parent / "studies"
MOST_ROWS = 24


def blocks_of(folder: Path) -> dict[str, str]:
    """Return what a run or a sweep says, by name, with its pictures copied."""
    if SweepFolder.is_one(folder):
        sweep = SweepFolder(folder)
        table = "\n".join(line for line in (folder / "summary.md").read_text().splitlines() if line.startswith("|"))
        said = [f"- {run.path.name}: {conclusion}" for run in sweep.runs() for conclusion, _ in _studies(run).values()]
        return {sweep.name: "\n\n".join(filter(None, [table, "\n".join(said), *_pictures(folder, sweep.name)]))}
    run = RunFolder.open(folder)
    name, studies = run.experiment().name, _studies(run)
    blocks = {name: _users(run, set(studies))}
    for kind, (conclusion, table) in studies.items():
        # A matrix is better seen than read.
        shown = _table(table) if len(table) <= MOST_ROWS and "attacker" not in table else ""
        picture = _picture(folder / "figures" / f"study-{kind}.png", name)
        blocks[f"{name}/{kind}"] = "\n\n".join(filter(None, [conclusion, shown, picture]))
    return blocks


def _studies(run: RunFolder) -> dict[str, tuple[str, pd.DataFrame]]:
    """Return what each study of a run amounts to, and its table."""
    experiment, found = run.experiment(), dict[str, tuple[str, pd.DataFrame]]()
    for study in experiment.studies:
        found[study.kind] = (conclusion_of(study, run, experiment), study_table(study, run, experiment))
    return found


def _users(run: RunFolder, kinds: set[str]) -> str:
    """Return the table of a run's summary and what it says of it, but for the studies' own conclusions."""
    lines = (run.path / "summary.md").read_text().splitlines()
    said = [line for line in lines if line.startswith("- ") and line.removeprefix("- ").partition(":")[0] not in kinds]
    return "\n".join([*(line for line in lines if line.startswith("|")), "", *said])


def _table(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        return "-" if pd.isna(value) else f"{value:.3g}" if isinstance(value, float) else str(value)

    return markdown(list(table), [[cell(value) for value in row] for row in table.itertuples(index=False)])


def _pictures(folder: Path, name: str) -> list[str]:
    """Return the trade-off curves of a sweep, one or one for each value of an axis."""
    return [_picture(path, name) for path in sorted((folder / "figures").rglob("trade-off.png"))]


def _picture(source: Path, name: str) -> str:
    if not source.is_file():
        return ""
    PICTURES.mkdir(exist_ok=True)
    cell = "" if source.parent.name == "figures" else f"-{re.sub(r'[^A-Za-z0-9_.]+', '-', source.parent.name)}"
    target = PICTURES / f"{name}{cell}-{source.name}"
    shutil.copyfile(source, target)
    return f"![{source.stem}, {name}{cell}](studies/{target.name})"


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
