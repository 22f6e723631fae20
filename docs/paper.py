"""Writes PAPER.md from run folders: ``python docs/paper.py RUN [RUN ...]``, runs or sweeps.

The rows of the given runs join ``docs/results/paper.csv``, in place of the same rows of earlier runs, so that a table
that takes a day may be run in pieces; the page's blocks (see :func:`pages.fill`) are written from all rows. Rows of one
method that differ in seeds are repetitions: numbers are medians over them.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pages import fill

from roles.common.recipes import Recipe
from roles.user.conventional import PixelConfig
from sim.config import Experiment, in_words
from sim.evaluator_node import BLUR
from sim.figures import Box, draw_psnr_boxes, whiskers
from sim.nodes import user_of
from sim.result_table import HIDDEN, HIDDEN_DB
from sim.run_figures import boxes_of, draw_table
from sim.runs import RunFolder, subject_of
from sim.sweep import SweepFolder
from sim.tables import attack_title, attacks_in, markdown, psnr_and_ssim, with_range

PAGE = Path(__file__).parent / "PAPER.md"
PICTURES = PAGE.parent / "paper"
ROWS = PAGE.parent / "results" / "paper.csv"
BOXES = PAGE.parent / "results" / "paper_psnr.csv"
"""What Fig. 7 shows of a row: five numbers a box, so that rows of runs whose folders are gone are drawn too."""
ENDS = ["low", "q1", "median", "q3", "high"]
CLASSIFIERS = {"resnet20": "ResNet-20", "vgg16_bn": "VGG16-BN"}
BUDGETS = {"CPU": (16, 5), "full": (64, 200)}
"""Of table1.yaml and of table1_paper.yaml: width and epochs of h_theta."""
CONTROL = "control: blur"
PROTECTIONS = ("plain", "network", "tanaka", "pixel", "gan")
"""In the order of the tables."""
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


def rows_of(folder: Path) -> pd.DataFrame:
    """Return the rows of a run, or of all complete cells of a sweep, with what tells them apart from other rows."""
    tables = []
    for run in runs_in(folder):
        if (run.path / "table.parquet").is_file():
            experiment, facts = run.experiment(), run.facts()
            table = pd.read_parquet(run.path / "table.parquet")
            subjects = table["subject"]
            known = {
                "key": subjects.map(partial(_key, experiment)),
                "run": experiment.name,
                "machine": facts["gpu"] or facts["processor"],
                "seed": experiment.seed,
                "classifier": experiment.classifier.name,
                "classifier_seed": experiment.classifier.seed,
                "budget": _budget(experiment),
                "method": subjects.map(partial(_method, experiment)),
                "recipe": subjects.map(partial(_recipe, experiment)),
            }
            tables.append(pd.DataFrame(known).join(table))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def boxes_in(folder: Path) -> pd.DataFrame:
    """Return the PSNR boxes of a run's rows, or of those of all complete cells of a sweep."""
    found = []
    for run in runs_in(folder):
        if (run.path / "table.parquet").is_file():
            experiment = run.experiment()
            for subject in pd.read_parquet(run.path / "table.parquet")["subject"]:
                result = run.attack(BLUR if subject == BLUR else subject_of(experiment, user_of(subject)))
                for box in [] if result is None else boxes_of(experiment, subject, result):
                    low, high = whiskers(box.values)
                    q1, median, q3 = np.quantile(box.values, [0.25, 0.5, 0.75])
                    numbers = dict(zip(ENDS, [low, q1, median, q3, high], strict=True))
                    found.append({"key": _key(experiment, subject), "group": box.group, **numbers})
    return pd.DataFrame(found)


def runs_in(folder: Path) -> list[RunFolder]:
    """Return the runs of a sweep, or the run that a folder is."""
    return SweepFolder(folder).runs() if SweepFolder.is_one(folder) else [RunFolder.open(folder)]


def _key(experiment: Experiment, subject: str) -> str:
    """Return the same for rows that cannot but agree, and for no others: not for users of another number or seed.

    Where the data set lies is of no account, nor how the run was carried out.
    """
    what: dict[str, Any] = {
        "data": experiment.data.model_dump() | {"name": Path(experiment.data.name).name},
        "classifier": experiment.classifier.model_dump(),
        "attack": experiment.attack.model_dump(),
        "precision": experiment.runtime.precision,
        "seed": experiment.seed,
    }
    config = None if subject == BLUR else experiment.user_config(user_of(subject))
    # Of plain images, nothing is the user's own.
    if config is not None and config.protection.kind != "plain":
        user = config.model_dump()
        user["features"]["weights"] = Path(user["features"]["weights"]).name
        users = experiment.users.model_dump(include={"partition", "images", "validation_images"})
        what |= {"subject": subject, "user": user, "users": users, "strategy": experiment.strategy.model_dump()}
    what["kind"] = CONTROL if config is None else config.protection.kind
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _budget(experiment: Experiment) -> str:
    return "full" if experiment.classifier.training.epochs >= BUDGETS["full"][1] else "CPU"


def _method(experiment: Experiment, subject: str) -> str:
    if subject == BLUR:
        return CONTROL
    config = experiment.user_config(user_of(subject))
    protection = config.protection
    match protection.kind:
        case "network":
            name = f"proposed, alpha {config.alpha:g}, {config.features.layer}"
            return ", ".join(filter(None, [name, _recipe(experiment, subject)]))
        case "gan":
            return ", ".join(filter(None, ["GAN-based, re-implemented", _recipe(experiment, subject)]))
        case "tanaka":
            return "Tanaka"
    if isinstance(protection, PixelConfig):
        keys = "one key" if protection.key == "one" else "a key an image"
        return f"pixel-based, {keys}{', shuffled' if protection.shuffle else ''}"
    return "plain"


def _recipe(experiment: Experiment, subject: str) -> str:
    """Return what sets a network apart from those of its budget's table: it is another method then."""
    config = None if subject == BLUR else experiment.user_config(user_of(subject))
    if config is None or not config.trains_network:
        return ""
    width, epochs = BUDGETS[_budget(experiment)]
    training, usual = config.training.model_dump(), Recipe(epochs=epochs).model_dump()
    apart = {"width": config.width} if config.width != width else {}
    apart |= {"phi": "random"} if config.features.weights == "random" else {}
    return ", ".join(in_words(apart | {key: value for key, value in training.items() if value != usual[key]}))


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows as the tables have them, the control last, whatever piece each was run in."""
    place = {protection: number for number, protection in enumerate(PROTECTIONS)}
    by = rows.assign(place=rows["protection"].map(place), recipe=rows["recipe"].fillna(""))
    columns = ["place", "recipe", "phi", "alpha", "method", "run", "seed"]
    order = by.sort_values([column for column in columns if column in by], kind="stable").index
    return rows.loc[order].reset_index(drop=True)


def table_1(rows: pd.DataFrame) -> str:
    """Return accuracies beside the paper's, and each gap to plain images in the same run beside the paper's gap."""
    budgets = [budget for budget in BUDGETS if budget in set(rows["budget"])]
    header, lines = ["method"], list[list[str]]()
    for name in CLASSIFIERS.values():
        header += [f"{name}: paper", "gap"]
        for budget in budgets:
            header += [f"ours, {budget}", "gap", "n"]
    for method in rows[rows["method"] != CONTROL]["method"].drop_duplicates():
        known = next((paper for name, paper in TABLE_1.items() if _is_row(method, name)), None)
        cells = [method]
        for column, classifier in enumerate(CLASSIFIERS):
            if known is None:
                cells += ["-", "-"]
            else:
                cells += [f"{known[column]:.2f}", f"{known[column] - TABLE_1['plain'][column]:+.2f}"]
            for budget in budgets:
                own = rows[(rows["method"] == method) & (rows["classifier"] == classifier) & (rows["budget"] == budget)]
                cells += _measured(own.dropna(subset=["accuracy"]))
        lines.append(cells)
    return markdown(header, lines)


def _is_row(method: str, name: str) -> bool:
    """Return whether a method is the one that a row of the paper's table names, with whatever it leaves open."""
    rest = method.removeprefix(name)
    return rest in ("", ", relu1_2", ", relu2_2") or (name == "pixel-based" and method.startswith(name))


def _measured(rows: pd.DataFrame) -> list[str]:
    if rows.empty:
        return ["-", "-", "0"]
    accuracy, gap = 100 * rows["accuracy"], 100 * (rows["accuracy"] - rows["plain_accuracy"])
    return [with_range(accuracy, ".2f"), with_range(gap, "+.2f"), str(len(rows))]


def attacks(rows: pd.DataFrame) -> str:
    """Return what each protection hides and each attack gets back, of one classifier and budget."""
    own = rows.dropna(subset=["accuracy"]).dropna(axis="columns", how="all")
    names, lines = attacks_in(own), list[list[str]]()
    header = ["method", "accuracy", "protected", "class mean", *map(attack_title, names), "verdict"]
    for method, group in own.groupby("method", sort=False):
        medians = group.median(numeric_only=True)
        cells = [str(method), f"{100 * medians['accuracy']:.1f}"]
        cells += [psnr_and_ssim(medians, name) for name in ("protected", "class_mean")]
        cells += [psnr_and_ssim(medians, name) + _recognised(medians, name) for name in names]
        lines.append([*cells, ", ".join(dict.fromkeys(group["verdict"]))])
    return markdown(header, lines)


def holds(rows: pd.DataFrame) -> str:
    """Return, network by network, what it costs and the most that can be had of it, and at which both claims hold."""
    own = rows[rows["protection"] == "network"].dropna(subset=["accuracy"])
    if own.empty:
        return "No network has been run yet."
    own = own.dropna(axis="columns", how="all")
    seen = ["protected", *attacks_in(own)]
    loss, most_ssim = HIDDEN
    lines, holding = list[list[str]](), list[str]()
    for method, group in own.groupby("method", sort=False):
        gap = 100 * (group["accuracy"] - group["plain_accuracy"]).median()
        psnr, ssim = (
            (group[[f"{name}_{measure}" for name in seen]].max(axis=1) - group[f"class_mean_{measure}"]).median()
            for measure in ("psnr", "ssim")
        )
        both = gap >= -loss and psnr < HIDDEN_DB and ssim < most_ssim
        lines.append([str(method), f"{gap:+.2f}", f"{psnr:+.1f}", f"{ssim:+.2f}", "yes" if both else "no"])
        holding += [str(method)] if both else []
    said = f"Both hold at {len(holding)} of {len(lines)} settings{': ' if holding else ''}{'; '.join(holding)}."
    header = ["method", "accuracy - plain (points)", "PSNR to be had - class mean (dB)", "SSIM", "both hold"]
    return f"{said}\n\n{markdown(header, lines)}"


def _recognised(medians: pd.Series, name: str) -> str:
    share = medians.get(f"{name}_accuracy")
    return "" if pd.isna(share) else f"/{100 * share:.1f}"


def draw(folders: Sequence[Path], rows: pd.DataFrame, boxes: pd.DataFrame) -> None:
    """Draw curves and boxes (Fig. 7) over all rows, and copy what the given runs have drawn: Fig. 5 and 6."""
    for (classifier, budget), own in rows.groupby(["classifier", "budget"]):
        pictures = PICTURES / f"{classifier}-{budget}"
        draw_table(pictures, own)
        draw_psnr_boxes(pictures / "psnr", _boxes(own, boxes))
    for folder in folders:
        runs = runs_in(folder)
        for run in runs:
            experiment, figures = run.experiment(), run.path / "figures"
            cell = f"-{run.path.name}" if len(runs) > 1 else ""
            target = PICTURES / f"{experiment.classifier.name}-{_budget(experiment)}"
            for picture in sorted(figures.glob("strips-*.png")):
                shutil.copyfile(picture, target / f"{experiment.name}{cell}-{picture.name}")


def _boxes(rows: pd.DataFrame, boxes: pd.DataFrame) -> list[Box]:
    """Return the boxes of a table's own methods, each of the first of its repetitions."""
    shown = rows[rows["recipe"].fillna("") == ""].drop_duplicates("method").merge(boxes, on="key")
    # A box of its five numbers is the box of what they were taken from.
    return [
        Box(str(row["method"]).removeprefix("proposed, "), torch.tensor(row[ENDS].tolist()), str(row["group"]))
        for _, row in shown.iterrows()
    ]


def _joined(kept: Path, found: Iterable[pd.DataFrame], by: list[str]) -> pd.DataFrame:
    """Return what is kept in a file and what was found, which takes the place of what it has in common with it."""
    tables = [table for table in [*([pd.read_csv(kept)] if kept.is_file() else []), *found] if not table.empty]
    joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=by)
    return joined.drop_duplicates(by, keep="last")


def main(folders: Sequence[Path]) -> None:
    """Add the rows of the given runs, draw the pictures, write the blocks of PAPER.md."""
    rows = _joined(ROWS, map(rows_of, folders), ["key"])
    if rows.empty:
        sys.exit("docs/paper.py: no run given has results yet")
    rows, boxes = in_order(rows), _joined(BOXES, map(boxes_in, folders), ["key", "group"])
    rows.to_csv(ROWS, index=False)
    boxes.to_csv(BOXES, index=False, float_format="%.3f")
    draw(folders, rows, boxes)
    blocks = {"table-1": partial(table_1, rows)}
    for (classifier, budget), own in rows.groupby(["classifier", "budget"]):
        blocks |= {f"attacks-{classifier}-{budget}": partial(attacks, own)}
        blocks |= {f"holds-{classifier}-{budget}": partial(holds, own)}
    fill(PAGE, blocks)


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
