"""Writes the tables of PAPER.md from run folders: ``python docs/paper.py SWEEP [SWEEP ...]``.

Everything between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is replaced; nothing in there is written by hand.
Several sweeps or runs are one table: rows of the same method are repetitions, and numbers are medians over them.
"""

import re
import shutil
import sys
from pathlib import Path

import pandas as pd

from sim.evaluator_node import BLUR
from sim.run_figures import draw_table
from sim.runs import RunFolder
from sim.sweep import SweepFolder
from sim.tables import attack_title, attacks_in, markdown, psnr_and_ssim, with_range

PAGE = Path(__file__).parent / "PAPER.md"
PICTURES = PAGE.parent / "paper"
CLASSIFIERS = {"resnet20": "ResNet-20", "vgg16_bn": "VGG16-BN"}
TABLE_1 = {
    "plain": (91.23, 92.23),
    "proposed, alpha 0.005": (91.72, 91.94),
    "proposed, alpha 0.01": (91.41, 91.13),
    "proposed, alpha 0.05": (89.63, 18.67),
    "proposed, alpha 0.1": (39.92, 18.99),
    "Tanaka": (85.18, 85.79),
    "pixel-based": (90.99, 90.29),
}
"""Table I of the paper: accuracy in percent, for ResNet-20 and VGG16-BN."""
PROPOSED = re.compile(r"proposed, alpha [\d.]+")


def rows_of(folder: Path) -> pd.DataFrame:
    """Return the rows of a run, or of all complete cells of a sweep, with the classifier's name."""
    runs = SweepFolder(folder).runs() if SweepFolder.is_one(folder) else [RunFolder.open(folder)]
    tables = []
    for run in runs:
        if (run.path / "table.parquet").is_file():
            experiment = run.experiment()
            table = pd.read_parquet(run.path / "table.parquet")
            tables.append(table.assign(classifier=experiment.classifier.name, method=table.apply(_method, axis=1)))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _method(row: pd.Series) -> str:
    if row["subject"] == BLUR:
        return "control: blur"
    setting = "" if pd.isna(row.get("setting")) else str(row["setting"])
    match row["protection"]:
        case "plain":
            return "plain"
        case "network":
            # A width or a schedule of its own is another method, not a repetition.
            others = [part for part in setting.split(", ") if part and not part.startswith(("alpha ", "layer "))]
            return ", ".join([f"proposed, alpha {row['alpha']:g}, {row['phi']}", *others])
        case "tanaka":
            return "Tanaka"
        case "gan":
            return "GAN-based (ours, from its description)"
    keys = "a key an image" if "per_image" in setting else "one key"
    return f"pixel-based, {keys}{', shuffled' if 'shuffle' in setting else ''}"


def table_1(rows: pd.DataFrame) -> str:
    """Return accuracies beside the paper's, and each gap to plain images in the same run beside the paper's gap."""
    header, lines = ["method"], list[list[str]]()
    for name in CLASSIFIERS.values():
        header += [f"{name}: paper", "gap", "ours", "gap", "n"]
    for method in rows[rows["subject"] != BLUR]["method"].drop_duplicates():
        found = PROPOSED.match(method)
        known = TABLE_1.get(found.group() if found else method.partition(",")[0])
        cells = [method]
        for column, classifier in enumerate(CLASSIFIERS):
            own = rows[(rows["method"] == method) & (rows["classifier"] == classifier)].dropna(subset=["accuracy"])
            cells += (
                ["-", "-"]
                if known is None
                else [
                    f"{known[column]:.2f}",
                    f"{known[column] - TABLE_1['plain'][column]:+.2f}",
                ]
            )
            if own.empty:
                cells += ["-", "-", "0"]
                continue
            accuracy, gap = 100 * own["accuracy"], 100 * (own["accuracy"] - own["plain_accuracy"])
            cells += [with_range(accuracy, ".2f"), with_range(gap, "+.2f"), str(len(own))]
        lines.append(cells)
    return markdown(header, lines)


def attacks(rows: pd.DataFrame, classifier: str) -> str:
    """Return what each protection hides and each attack gets back."""
    names, lines = attacks_in(rows), list[list[str]]()
    header = ["method", "protected", "class mean", *map(attack_title, names), "verdict"]
    own = rows[rows["classifier"] == classifier].dropna(subset=["accuracy"])
    for method, group in own.groupby("method", sort=False):
        medians = group.median(numeric_only=True)
        cells = [str(method), psnr_and_ssim(medians, "protected"), psnr_and_ssim(medians, "class_mean")]
        cells += [psnr_and_ssim(medians, name) + _recognised(medians, name) for name in names]
        lines.append([*cells, ", ".join(dict.fromkeys(group["verdict"]))])
    return markdown(header, lines)


def _recognised(medians: pd.Series, name: str) -> str:
    share = medians.get(f"{name}_accuracy")
    return "" if pd.isna(share) else f"/{100 * share:.1f}"


def draw(folders: list[Path], rows: pd.DataFrame) -> None:
    """Draw the curves over all runs, and copy the strips over alpha and the boxes of the first: Fig. 5 and 7."""
    for name in CLASSIFIERS:
        draw_table(PICTURES / name, rows[rows["classifier"] == name])
    first = SweepFolder(folders[0]).runs() if SweepFolder.is_one(folders[0]) else [RunFolder.open(folders[0])]
    for run in first:
        target = PICTURES / run.experiment().classifier.name
        for picture in [*run.path.glob("figures/strips-over-alpha-*.png"), *run.path.glob("figures/psnr.png")]:
            shutil.copyfile(picture, target / picture.name)


def main() -> None:
    """Replace the tables of PAPER.md, and draw its pictures."""
    folders = [Path(folder) for folder in sys.argv[1:]]
    rows = pd.concat([rows_of(folder) for folder in folders], ignore_index=True)
    draw(folders, rows)
    blocks = {"table-1": table_1(rows)} | {f"attacks-{name}": attacks(rows, name) for name in CLASSIFIERS}
    page = PAGE.read_text()
    for name, block in blocks.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if begin in page:
            page = f"{page.partition(begin)[0]}{begin}\n{block}\n{end}{page.partition(end)[2]}"
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
