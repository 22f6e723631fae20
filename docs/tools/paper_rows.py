"""The rows of PAPER.md: what run folders have measured, with what tells one row from another."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.cbook import boxplot_stats

from roles.common.config.base import Frozen
from roles.common.config.provider import ProviderConfig
from roles.common.config.recipe import Recipe
from roles.common.config.user import AdversarialConfig, EntropyConfig, GanConfig, PixelConfig, UserConfig
from sim.config.experiment import Experiment, in_words
from sim.report.figures.boxes import Box
from sim.report.figures.run import boxes_of
from sim.report.table import table_of
from sim.run.environment import hardware
from sim.run.folder import RunFolder
from sim.run.subject import CONTROL, Subject
from sim.run.sweep import SweepFolder

ENDS = {"low": "whislo", "q1": "q1", "median": "med", "q3": "q3", "high": "whishi"}
"""The five numbers of a box, and what matplotlib calls them."""
BUDGETS = {"CPU": (16, 5), "full": (64, 200)}
"""Of table1.yaml and of table1_paper.yaml: width and epochs of h_theta."""
CONTROL_METHOD = "control: blur"
PHI = "phi_weights"
SINCE: dict[str, Any] = {
    "checks": None,
    "features": None,
    "labels": True,
    "noise": 0.0,
    "dfil": None,
    "networks": 1,
    "restart": None,
    "pool": 1,
    "users": None,
    "upsampling": "nearest",
    "provider": ProviderConfig().model_dump(),
    "pretraining": 300,
    "strength": 0.1,
}
"""Keys that configs have had since the first rows were kept, with what those rows had: so they change no digest."""


def runs_in(folder: Path) -> list[RunFolder]:
    """Return the runs of a sweep, or the run that a folder is."""
    return SweepFolder(folder).runs() if SweepFolder.is_one(folder) else [RunFolder.open(folder)]


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
            subjects = table["subject"].map(Subject.named)
            known = {
                "key": subjects.map(partial(_key, experiment)),
                "run": experiment.name,
                "machine": hardware(facts, experiment),
                "seed": experiment.seed,
                "classifier": experiment.classifier.name,
                "classifier_seed": experiment.classifier.seed,
                "budget": budget_of(experiment),
                "method": subjects.map(partial(method_of, experiment)),
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
            for subject in map(Subject.named, pd.read_parquet(run.path / "table.parquet")["subject"]):
                result = run.attack(subject if subject == CONTROL else Subject.of(experiment, subject.user))
                for box in [] if result is None else boxes_of(experiment, subject, result):
                    numbers = dict(zip(ENDS, _five_numbers(box), strict=True))
                    found.append({"key": _key(experiment, subject), "group": box.group, **numbers})
    return pd.DataFrame(found)


def _five_numbers(box: Box) -> list[float]:
    (stats,) = boxplot_stats(box.values.double().numpy())
    return [float(stats[name]) for name in ENDS.values()]


def _key(experiment: Experiment, subject: Subject) -> str:
    """Return the same for subjects that cannot but be the same, and for no others: not for users of another seed.

    How a subject was attacked is of no account: what another run found out about it joins what is known.
    """
    what: dict[str, Any] = {
        "data": _data(experiment),
        "classifier": experiment.classifier.model_dump(),
        "precision": experiment.runtime.precision,
        "seed": experiment.seed,
    }
    config = None if subject == CONTROL else experiment.user_config(subject.user)
    what["kind"] = CONTROL_METHOD if config is None else config.protection.kind
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
        what |= {"subject": subject.name, "user": user, "users": experiment.users.model_dump(include=users)}
        what |= {"provider": experiment.provider.model_dump()} if config.trains_network else {}
        if (hijack := experiment.provider.hijack_of(subject.user)) is not None:
            what["hijack"] = hijack.model_dump(exclude={"users"})
        if experiment.strategy.averages:
            what["strategy"] = experiment.strategy.model_dump()
    return _digest(what)


def _conditions(experiment: Experiment) -> dict[str, str]:
    """Return what all rows of one table must have in common, where they have it: see ``paper.py``."""
    attack = experiment.attack.model_dump(exclude={"itns", "pictures", "lpips"})
    classifier = experiment.classifier.model_dump(exclude={"seed"})
    common = {"data": _data(experiment), "classifier": classifier, "precision": experiment.runtime.precision}
    itns = {f"recipe of ITN {itn.name}": _digest(itn.model_dump()) for itn in experiment.attack.itns}
    return {"conditions": _digest(common | {"attack": attack}), **itns}


def _data(experiment: Experiment) -> dict[str, Any]:
    """Return the data set, a local copy wherever it lies: it may have been compressed, so the Hub's is another."""
    name = experiment.data.name
    return experiment.data.model_dump() | {"name": Path(name).name if Path(name).is_absolute() else name}


def _digest(what: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_as_before(what), sort_keys=True).encode()).hexdigest()[:16]


def _as_before(value: Any) -> Any:
    """Return a value of a config as the first rows had it, without what :data:`SINCE` adds to it."""
    match value:
        case dict():
            return {key: _as_before(own) for key, own in value.items() if key not in SINCE or SINCE[key] != own}
        case list() | tuple():
            return [_as_before(own) for own in value]
    return value


def budget_of(experiment: Experiment) -> str:
    """Return which of :data:`BUDGETS` an experiment has."""
    return "full" if experiment.classifier.training.epochs >= BUDGETS["full"][1] else "CPU"


def method_of(experiment: Experiment, subject: Subject) -> str:
    """Return what the tables call a subject's protection."""
    if subject == CONTROL:
        return CONTROL_METHOD
    config = experiment.user_config(subject.user)
    protection = config.protection
    match protection.kind:
        case "network":
            name = f"proposed, alpha {config.alpha:g}, {config.features.layer}"
            return ", ".join(filter(None, [name, _recipe(experiment, subject)]))
        case "adversarial" | "entropy" as kind:
            return ", ".join(filter(None, [kind, _recipe(experiment, subject)]))
        case "gan":
            return ", ".join(filter(None, ["GAN-based, re-implemented", _recipe(experiment, subject)]))
        case "tanaka":
            return "Tanaka"
        case "block":
            return "block-wise"
    if isinstance(protection, PixelConfig):
        keys = "one key" if protection.key == "one" else "a key an image"
        return f"pixel-based, {keys}{', shuffled' if protection.shuffle else ''}"
    return "plain"


def _recipe(experiment: Experiment, subject: Subject) -> str:
    """Return what sets a network apart from those of its budget's table: it is another method then."""
    config = None if subject == CONTROL else experiment.user_config(subject.user)
    if config is None or not config.trains_network:
        return ""
    width, epochs = BUDGETS[budget_of(experiment)]
    usual = UserConfig(width=width, training=Recipe(epochs=epochs))
    apart = _changes(config, usual, {"width", "depth", "upsampling", "noise", "dfil", "crop_padding", "flip"})
    apart |= _changes(config.training, usual.training) | _changes(config.features, usual.features, {"pool"})
    if isinstance(config.protection, AdversarialConfig):
        apart |= _changes(config.protection, AdversarialConfig(kind="adversarial"))
    if isinstance(config.protection, EntropyConfig):
        apart |= _changes(config.protection, EntropyConfig(kind="entropy"))
    if isinstance(config.protection, GanConfig):
        apart |= _changes(config.protection, GanConfig(kind="gan"))
        # The method's own name has the layer where the paper's network is meant.
        apart |= _changes(config.features, usual.features, {"layer"})
    apart |= {"phi": "random"} if config.features.weights == "random" else {}
    if experiment.users.partition.kind != "all":
        apart["partition"] = experiment.users.partition.kind
    return ", ".join(in_words(apart))


def _phi_weights(experiment: Experiment, subject: Subject) -> str | None:
    """Return which trained phi a network has, wherever it lies: to another, the same alpha is another setting."""
    config = None if subject == CONTROL else experiment.user_config(subject.user)
    if config is None or not config.trains_network or config.features.weights == "random":
        return None
    return Path(config.features.weights).name


def _changes(config: Frozen, usual: Frozen, among: set[str] | None = None) -> dict[str, Any]:
    """Return those values of a config, by default of all, that are not the usual ones."""
    values = config.model_dump(include=among)
    return {name: value for name, value in values.items() if value != getattr(usual, name)}
