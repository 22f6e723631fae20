"""Writes PAPER.md from run folders: ``python docs/paper.py RUN [RUN ...]``, runs or sweeps.

The rows of the given runs join ``docs/results/paper.csv``, in place of the same rows of earlier runs, so that a table
that takes a day may be run in pieces; the page's blocks (see :func:`pages.fill`) are written from all rows. Rows of one
method that differ in seeds are repetitions: numbers are medians over them.
"""

import hashlib
import json
import math
import re
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

from roles.common.recipes import Frozen, Recipe
from roles.user.config import UserConfig
from roles.user.conventional import PixelConfig
from roles.user.gan import GanConfig
from sim.config import Experiment, in_words
from sim.evaluator_node import BLUR
from sim.figures import Box, draw_psnr_boxes, whiskers
from sim.nodes import user_of
from sim.result_table import GUESSES, HIDDEN, HIDDEN_DB, SEEN_SSIM, best_of, guess_of, table_of, verdict_of
from sim.run_figures import boxes_of, draw_table
from sim.runs import RunFolder, hardware, subject_of
from sim.summary import control_in_words, control_of
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
MOST_RECOVERED = 0.01
"""The share of images that may be recovered where "hidden", which is about medians, is to hold."""
CONTROL = "control: blur"
PHI = "phi_weights"
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
    """Return what a run, or all complete cells of a sweep, have measured, with what tells it from other rows.

    Users without a result are left out: a row of an earlier run is worth more.
    """
    tables = []
    for run in runs_in(folder):
        if run.has_table():
            experiment, facts = run.experiment(), run.facts()
            table = table_of(run, experiment)
            table = table.dropna(subset=["accuracy"]) if "accuracy" in table else table[:0]
            subjects = table["subject"]
            known = {
                "key": subjects.map(partial(_key, experiment)),
                "run": experiment.name,
                "machine": hardware(facts, experiment),
                "seed": experiment.seed,
                "classifier": experiment.classifier.name,
                "classifier_seed": experiment.classifier.seed,
                "budget": _budget(experiment),
                "method": subjects.map(partial(_method, experiment)),
                "recipe": subjects.map(partial(_recipe, experiment)),
                PHI: subjects.map(partial(_phi_weights, experiment)),
            }
            tables.append(pd.DataFrame(known | _conditions(experiment)).join(table))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def boxes_in(folder: Path) -> pd.DataFrame:
    """Return the PSNR boxes of a run's rows, or of those of all complete cells of a sweep."""
    found = []
    for run in runs_in(folder):
        if run.has_table():
            experiment = run.experiment()
            for subject in pd.read_parquet(run.path / "table.parquet")["subject"]:
                result = run.attack(BLUR if subject == BLUR else subject_of(experiment, user_of(subject)))
                for box in [] if result is None else boxes_of(experiment, subject, result):
                    numbers = dict(zip(ENDS, _five_numbers(box), strict=True))
                    found.append({"key": _key(experiment, subject), "group": box.group, **numbers})
    return pd.DataFrame(found)


def _five_numbers(box: Box) -> list[float]:
    if not len(box.values):
        return [math.nan] * len(ENDS)
    low, high = whiskers(box.values)
    return [low, *np.quantile(box.values.double(), [0.25, 0.5, 0.75]).tolist(), high]


def runs_in(folder: Path) -> list[RunFolder]:
    """Return the runs of a sweep, or the run that a folder is."""
    return SweepFolder(folder).runs() if SweepFolder.is_one(folder) else [RunFolder.open(folder)]


def _key(experiment: Experiment, subject: str) -> str:
    """Return the same for subjects that cannot but be the same, and for no others: not for users of another seed.

    How a subject was attacked is of no account: what another run found out about it joins what is known.
    """
    what: dict[str, Any] = {
        "data": _data(experiment),
        "classifier": experiment.classifier.model_dump(),
        "precision": experiment.runtime.precision,
        "seed": experiment.seed,
    }
    config = None if subject == BLUR else experiment.user_config(user_of(subject))
    what["kind"] = CONTROL if config is None else config.protection.kind
    # Of plain images, nothing is the user's own.
    if config is not None and config.protection.kind != "plain":
        of_key = {"protection", "crop_padding", "flip", "seed"}
        user = config.model_dump(include=None if config.trains_network else of_key)
        if config.trains_network:
            user["features"]["weights"] = Path(user["features"]["weights"]).name
        users = {"partition", "images", "validation_images"}
        # With these, what a user ends with depends on the others.
        users |= set() if experiment.users.partition.kind == "all" else {"count"}
        users |= {"count", "settings"} if experiment.strategy.averages else set()
        what |= {"subject": subject, "user": user, "users": experiment.users.model_dump(include=users)}
        if experiment.strategy.averages:
            what["strategy"] = experiment.strategy.model_dump()
    return _digest(what)


def _conditions(experiment: Experiment) -> dict[str, str]:
    """Return what all rows of one table must have in common, where they have it: see :func:`_check`."""
    attack = experiment.attack.model_dump(exclude={"itns", "pictures", "lpips"})
    classifier = experiment.classifier.model_dump(exclude={"seed"})
    common = {"data": _data(experiment), "classifier": classifier, "precision": experiment.runtime.precision}
    itns = {f"recipe of ITN {itn.name}": _digest(itn.model_dump()) for itn in experiment.attack.itns}
    return {"conditions": _digest(common | {"attack": attack}), **itns}


def _check(rows: pd.DataFrame) -> None:
    """Refuse rows that no table may hold side by side, let alone as repetitions of each other."""
    for (classifier, budget), own in rows.groupby(["classifier", "budget"]):
        for column in ("conditions", PHI, *(c for c in own if str(c).startswith("recipe of "))):
            kinds = own.dropna(subset=[column]).groupby(column, sort=False)["run"].unique()
            if len(kinds) > 1:
                runs = " | ".join(", ".join(of_kind) for of_kind in kinds)
                names = {"conditions": "data, psi, precision or attack", PHI: "phi's weights"}
                what = names.get(str(column), str(column))
                hint = f"leave one side out, or move {ROWS.name} and {BOXES.name} away to begin anew"
                sys.exit(f"docs/paper.py: {classifier}, {budget}: runs differ in {what}: {runs}; {hint}")


def _data(experiment: Experiment) -> dict[str, Any]:
    """Return the data set, a local copy wherever it lies: it may have been compressed, so the Hub's is another."""
    name = experiment.data.name
    return experiment.data.model_dump() | {"name": Path(name).name if Path(name).is_absolute() else name}


def _digest(what: dict[str, Any]) -> str:
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
    usual = UserConfig(width=width, training=Recipe(epochs=epochs))
    apart = _changes(config, usual, {"width", "depth", "crop_padding", "flip"})
    apart |= _changes(config.training, usual.training)
    if isinstance(config.protection, GanConfig):
        apart |= _changes(config.protection, GanConfig(kind="gan"))
        # The method's own name has the layer where the paper's network is meant.
        apart |= _changes(config.features, usual.features, {"layer"})
    apart |= {"phi": "random"} if config.features.weights == "random" else {}
    if experiment.users.partition.kind != "all":
        apart["partition"] = experiment.users.partition.kind
    return ", ".join(in_words(apart))


def _phi_weights(experiment: Experiment, subject: str) -> str | None:
    """Return which trained phi a network has, wherever it lies: to another, the same alpha is another setting."""
    config = None if subject == BLUR else experiment.user_config(user_of(subject))
    if config is None or not config.trains_network or config.features.weights == "random":
        return None
    return Path(config.features.weights).name


def _changes(config: Frozen, usual: Frozen, among: set[str] | None = None) -> dict[str, Any]:
    """Return those values of a config, by default of all, that are not the usual ones."""
    values = config.model_dump(include=among)
    return {name: value for name, value in values.items() if value != getattr(usual, name)}


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows as the tables have them, the control last, whatever piece each was run in."""
    place = {protection: number for number, protection in enumerate(PROTECTIONS)}
    by = rows.assign(place=rows["protection"].map(place), recipe=rows["recipe"].fillna(""))
    columns = ["place", "recipe", "phi", "alpha", "method", "run", "seed"]
    order = by.sort_values([column for column in columns if column in by], kind="stable").index
    return rows.loc[order].reset_index(drop=True)


def table_1(rows: pd.DataFrame) -> str:
    """Return accuracies beside the paper's, and each gap to plain images in the same run beside the paper's gap.

    Networks of another width or training than their budget's have no place in it.
    """
    rows = rows[rows["recipe"].fillna("") == ""]
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
                cells += _measured(own)
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
    own = rows.dropna(axis="columns", how="all")
    names, lines = attacks_in(own), list[list[str]]()
    header = ["method", "accuracy", "protected", "class mean", "mean image", *map(attack_title, names), "verdict"]
    for method, group in own.groupby("method", sort=False):
        medians = group.median(numeric_only=True)
        cells = [str(method), f"{100 * medians['accuracy']:.1f}"]
        cells += [psnr_and_ssim(medians, name) for name in ("protected", *GUESSES)]
        cells += [psnr_and_ssim(medians, name) + _shares(medians, name) for name in names]
        lines.append([*cells, ", ".join(dict.fromkeys(group["verdict"]))])
    return f"{control_in_words(rows)}\n\n{markdown(header, lines)}"


def holds(rows: pd.DataFrame) -> str:
    """Return, network by network, what it costs and the most that can be had of it, and at which both claims hold."""
    own = rows[rows["protection"] == "network"]
    if own.empty:
        return "No network has been run yet."
    own = own.dropna(axis="columns", how="all")
    names = attacks_in(own)
    control = control_of(rows)
    loss, most_ssim = HIDDEN
    lines, holding = list[list[str]](), list[str]()
    for method, group in own.groupby("method", sort=False):
        gap = 100 * (group["accuracy"] - group["plain_accuracy"]).median()
        psnr, ssim = ((best_of(group, measure) - guess_of(group, measure)).median() for measure in ("psnr", "ssim"))
        recovered = group[[f"{name}_recovered" for name in names]].max(axis=1).median()
        both = gap >= -loss and psnr < HIDDEN_DB and ssim < most_ssim and recovered < MOST_RECOVERED
        # An inverse network that has not attacked a row cannot vouch for it.
        tried = control is not None and control[3] and group[f"itn_{control[0]}_ssim"].notna().all()
        said = ("yes" if tried else "attack too weak") if both else "no"
        cells = [str(method), f"{gap:+.2f}", f"{psnr:+.1f}", f"{ssim:+.2f}", f"{100 * recovered:.1f}"]
        lines.append([*cells, _moved_in_words(group), said])
        holding += [str(method)] if said == "yes" else []
    found = f"Both hold at {len(holding)} of {len(lines)} settings{': ' if holding else ''}{'; '.join(holding)}."
    header = ["method", "accuracy - plain (points)", "PSNR to be had - guess (dB)", "SSIM", "images recovered (%)"]
    header += ["SSIM of pictures, moved (rows, columns)", "both hold"]
    return f"{found} {control_in_words(rows)}\n\n{markdown(header, lines)}"


def _moved_in_words(rows: pd.DataFrame) -> str:
    if "moved_ssim" not in rows or rows["moved_ssim"].isna().all():
        return "-"
    alike, ways = rows["moved_ssim"].median(), rows[["moved_down", "moved_right"]].drop_duplicates()
    # Where nothing is alike, the best way is chance.
    named = "; ".join(f"{down:+.0f}, {right:+.0f}" for down, right in ways.itertuples(index=False))
    return f"{alike:.2f} ({named})" if alike >= SEEN_SSIM else f"{alike:.2f}"


def _shares(medians: pd.Series, name: str) -> str:
    shares = [medians.get(f"{name}_{share}") for share in ("accuracy", "recovered")]
    return "".join("" if pd.isna(share) else f"/{100 * share:.1f}" for share in shares)


def draw(folders: Sequence[Path], rows: pd.DataFrame, boxes: pd.DataFrame) -> None:
    """Draw curves and boxes (Fig. 7) over all rows, and copy those strips of the given runs that the page shows."""
    for (classifier, budget), own in rows.groupby(["classifier", "budget"]):
        pictures = PICTURES / f"{classifier}-{budget}"
        # Marks of networks are named by what sets them apart, those of other methods by their names.
        others = own["protection"] != "network"
        draw_table(pictures, own.assign(setting=own["method"].where(others, own.get("setting"))))
        draw_psnr_boxes(pictures / "psnr", _boxes(own, boxes))
    page = PAGE.read_text()
    for run in (run for folder in folders for run in runs_in(folder)):
        experiment = run.experiment()
        target = PICTURES / f"{experiment.classifier.name}-{_budget(experiment)}"
        for picture in sorted((run.path / "figures").glob("strips-*.png")):
            subject = picture.stem.removeprefix("strips-")
            shows = subject if subject.startswith("over-alpha") else _method(experiment, subject)
            name = f"strips-{re.sub('[^a-z0-9._]+', '-', shows.lower())}.png"
            if f"{target.name}/{name}" in page:
                shutil.copyfile(picture, target / name)


def _boxes(rows: pd.DataFrame, boxes: pd.DataFrame) -> list[Box]:
    """Return the boxes of a table's own methods, each of the repetition that most was measured of."""
    own = rows[rows["recipe"].fillna("") == ""]
    most = own.assign(boxes=own["key"].map(boxes["key"].value_counts())).sort_values("boxes", kind="stable")
    shown = own.loc[most.drop_duplicates("method", keep="last").index.sort_values()].merge(boxes, on="key")
    # A box of its five numbers is the box of what they were taken from.
    return [
        Box(
            str(row["method"]).removeprefix("proposed, "),
            torch.tensor(row[ENDS].tolist(), dtype=torch.float64),
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
        sys.exit("docs/paper.py: no run given has results yet")
    _check(rows)
    # What joined a row from another run may change what is to be said of it.
    rows["verdict"] = rows.apply(verdict_of, axis=1)
    rows, boxes = in_order(rows), _joined(BOXES, map(boxes_in, folders), ["key", "group"])
    rows.to_csv(ROWS, index=False)
    # In full: rounded, a whisker that ends at its limit would lie beyond it.
    boxes.to_csv(BOXES, index=False)
    draw(folders, rows, boxes)
    blocks = {"table-1": partial(table_1, rows)}
    for (classifier, budget), own in rows.groupby(["classifier", "budget"]):
        blocks |= {f"attacks-{classifier}-{budget}": partial(attacks, own)}
        blocks |= {f"holds-{classifier}-{budget}": partial(holds, own)}
    for name in fill(PAGE, blocks):
        print(f"docs/paper.py: {PAGE.name} has no place for {name}", file=sys.stderr)


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
