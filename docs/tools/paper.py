"""Writes PAPER.md from run folders: ``python docs/tools/paper.py RUN [RUN ...]``, runs or sweeps.

The rows of the given runs join ``docs/results/paper.csv``, in place of the same rows of earlier runs, so that a table
that takes a day may be run in pieces; the page's blocks (see :func:`pages.fill`) are written from all rows. Rows of one
method that differ in seeds are repetitions: numbers are medians over them.
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from pages import DOCS, fill
from paper_rows import ENDS, PHI, boxes_in, budget_of, method_of, rows_of, runs_in
from paper_tables import in_order, methods, networks

from sim.report.figures.boxes import Box, draw_psnr_boxes
from sim.report.figures.run import draw_table
from sim.report.table import verdict_of
from sim.run.subject import Subject

PAGE = DOCS / "PAPER.md"
PICTURES = DOCS / "paper"
ROWS = DOCS / "results" / "paper.csv"
BOXES = DOCS / "results" / "paper_psnr.csv"
"""What Fig. 7 shows of a row: five numbers a box, so that rows of runs whose folders are gone are drawn too."""


def _check(rows: pd.DataFrame) -> None:
    """Refuse rows that no table may hold side by side, let alone as repetitions of each other."""
    for (classifier, budget), own in rows.groupby(["classifier", "budget"]):
        for column in ("conditions", PHI, *(c for c in map(str, own) if c.startswith("recipe of "))):
            kinds = own.dropna(subset=[column]).groupby(column, sort=False)["run"].unique()
            if len(kinds) > 1:
                runs = " | ".join(", ".join(of_kind) for of_kind in kinds)
                names = {"conditions": "data, psi, precision or attack", PHI: "phi's weights"}
                what = names.get(column, column)
                hint = f"leave one side out, or move {ROWS.name} and {BOXES.name} away to begin anew"
                sys.exit(f"docs/tools/paper.py: {classifier}, {budget}: runs differ in {what}: {runs}; {hint}")


def draw(folders: Sequence[Path], rows: pd.DataFrame, boxes: pd.DataFrame) -> None:
    """Keep those pictures that the page shows: curves and boxes (Fig. 7) over all rows, strips of the given runs."""
    for (classifier, budget), own in rows.groupby(["classifier", "budget"]):
        with TemporaryDirectory() as drawn:
            # Marks of networks are named by what sets them apart, those of other methods by their names.
            others = own["protection"] != "network"
            draw_table(Path(drawn), own.assign(setting=own["method"].where(others, own.get("setting"))))
            draw_psnr_boxes(Path(drawn) / "psnr", _boxes(own, boxes))
            for picture in Path(drawn).glob("*.png"):
                _keep_if_shown(picture, PICTURES / f"{classifier}-{budget}" / picture.name)
    for run in (run for folder in folders for run in runs_in(folder)):
        experiment = run.experiment()
        target = PICTURES / f"{experiment.classifier.name}-{budget_of(experiment)}"
        for picture in sorted((run.path / "figures").glob("strips-*.png")):
            of = picture.stem.removeprefix("strips-")
            shows = of if of.startswith("over-alpha") else method_of(experiment, Subject.named(of))
            _keep_if_shown(picture, target / f"strips-{re.sub('[^a-z0-9._]+', '-', shows.lower())}.png")


def _keep_if_shown(picture: Path, target: Path) -> None:
    if f"{target.parent.name}/{target.name}" in PAGE.read_text():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, target)


def _boxes(rows: pd.DataFrame, boxes: pd.DataFrame) -> list[Box]:
    """Return the boxes of a table's own methods, each of the repetition that most was measured of."""
    own = rows[rows["recipe"].fillna("") == ""]
    most = own.assign(boxes=own["key"].map(boxes["key"].value_counts())).sort_values("boxes", kind="stable")
    shown = own.loc[most.drop_duplicates("method", keep="last").index.sort_values()].merge(boxes, on="key")
    # A box of its five numbers is the box of what they were taken from.
    return [
        Box(
            str(row["method"]).removeprefix("proposed, "),
            torch.tensor(row[list(ENDS)].tolist(), dtype=torch.float64),
            str(row["group"]),
        )
        for _, row in shown.iterrows()
    ]


def _joined(kept: Path, found: Iterable[pd.DataFrame], by: list[str]) -> pd.DataFrame:
    """Return what is kept in a file and what was found; of rows with one key, what is newest of every column."""
    tables = [table for table in [*([pd.read_csv(kept)] if kept.is_file() else []), *found] if not table.empty]
    joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=by)
    return joined.groupby(by, as_index=False, sort=False).last()


def main(folders: Sequence[Path]) -> None:
    """Add the rows of the given runs, draw the pictures, write the blocks of PAPER.md."""
    rows = _joined(ROWS, map(rows_of, folders), ["key"])
    if rows.empty:
        sys.exit("docs/tools/paper.py: no run given has results yet")
    _check(rows)
    # What joined a row from another run may change what is to be said of it.
    rows["verdict"] = rows.apply(verdict_of, axis=1)
    rows, boxes = in_order(rows), _joined(BOXES, map(boxes_in, folders), ["key", "group"])
    rows.to_csv(ROWS, index=False)
    # In full: rounded, a whisker that ends at its limit would lie beyond it.
    boxes.to_csv(BOXES, index=False)
    draw(folders, rows, boxes)
    blocks = dict[str, Callable[[], str]]()
    for budget, own in rows.groupby("budget"):
        blocks |= {f"networks-{budget}": partial(networks, own), f"methods-{budget}": partial(methods, own)}
    for name in fill(PAGE, blocks):
        print(f"docs/tools/paper.py: {PAGE.name} has no place for {name}", file=sys.stderr)


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
