"""What the figures of a run show: its results as boxes, strips, curves and marks."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from roles.common.config.user import UserConfig
from roles.common.naming import user_name
from roles.evaluator.measures import PSNR_CAP
from roles.evaluator.results import AttackResult, Measured
from sim.config.experiment import Experiment
from sim.report.columns import attack_column, title_of
from sim.report.figures.accuracy import draw_accuracy
from sim.report.figures.boxes import Box, draw_psnr_boxes
from sim.report.figures.curves import Panel, draw_learning_curves
from sim.report.figures.strips import StripRow, draw_strips
from sim.report.figures.trade_off import TradeOff, draw_trade_off
from sim.report.table import GUESSES, HIDDEN, best_of, gap_of, guess_of, measured_users, row_of
from sim.run.folder import RunFolder
from sim.run.subject import CONTROL, Subject

PANELS = [
    Panel("train_loss", "L_class, training"),
    Panel("validation_feature_loss", "L_feat, validation", log=True),
    Panel("validation_passes_through", "of the plain image left, validation", share=True),
    Panel("validation_objective", "objective (Eq. 4), validation"),
    Panel("validation_accuracy", "accuracy, validation", share=True),
]
"""What is drawn of every user's learning curve."""
ROUND_PANELS = [
    Panel("validation_loss", "L_class, validation", x="round"),
    Panel("validation_accuracy", "accuracy, validation", share=True, x="round"),
]
"""What is drawn of the averages of rounds."""
_MOST_PICTURES = 20
"""Images in a strip; a run may keep every test image."""


def draw_run(run: RunFolder, experiment: Experiment, table: pd.DataFrame, shown: list[int]) -> None:
    """Draw all users' boxes, curves and trade-off, and the strips of those ``shown`` and of the control.

    Of networks that differ by alpha alone, strips as in Fig. 5 are drawn as well; of several with one alpha, the first
    is shown.
    """
    figures, configs, users = run.path / "figures", experiment.user_configs(), range(experiment.user_count)
    subjects = [*(Subject.of(experiment, user) for user in users), CONTROL]
    boxes: list[Box] = []
    over_alpha: dict[str, dict[float, tuple[AttackResult, str]]] = defaultdict(dict)
    for subject in dict.fromkeys(subjects):
        result = run.attack(subject)
        if result is None:
            continue
        boxes += boxes_of(experiment, subject, result)
        outcome = "" if subject == CONTROL else _outcome(table, subject)
        if subject in (CONTROL, *(subjects[user] for user in shown)):
            title = f"{_setting_title(experiment, subject)}: {outcome}"
            title = "control: blurred images" if subject == CONTROL else title
            draw_strips(figures / f"strips-{subject.name}", _strips(result), title)
        config = configs[subject.user % len(configs)]
        if subject != CONTROL and config.protection.kind == "network":
            network = ", ".join(_network_parts(configs, config))
            over_alpha[network].setdefault(config.alpha, (result, outcome))
    for network, results in over_alpha.items():
        if len(results) > 1:
            name = network.replace(", ", "-").replace(" ", "-")
            draw_strips(figures / f"strips-over-alpha-{name}", _strips_over_alpha(results), f"{network}, over alpha")
    draw_psnr_boxes(figures / "psnr", boxes)
    curves = {f"user {user}": found.curve for user in users if (found := run.user(user)) is not None}
    draw_learning_curves(figures / "curves", curves, PANELS)
    if rounds := run.rounds():
        draw_learning_curves(figures / "rounds", {"average": rounds}, ROUND_PANELS)
    draw_table(figures, table)


def draw_table(figures: Path, table: pd.DataFrame) -> None:
    """Draw what a table shows: accuracy against what can be seen and, of networks of several alphas, against alpha."""
    measured = measured_users(table)
    points = trade_offs(measured)
    if not points:
        return
    draw_trade_off(figures / "trade-off", points, HIDDEN)
    if _alphas_differ(measured):
        panels: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
        for _, row in measured.dropna(subset=["alpha", "accuracy"]).iterrows():
            width = [f"width {row['width']:g}"] if measured["width"].nunique() > 1 else []
            others = [part for part in _parts(row) if not part.startswith(("alpha ", "layer ", "width "))]
            panels[row["phi"]][", ".join([*width, *others])].append((row["alpha"], 100 * row["accuracy"]))
        draw_accuracy(figures / "accuracy", panels, 100 * measured["plain_accuracy"].iloc[0])


def trade_offs(measured: pd.DataFrame) -> list[TradeOff]:
    """Return what each protection costs and keeps; nothing of those that have no accuracy.

    A label says how its user differs from others: by its setting and, where networks have several alphas, by alpha.

    Args:
        measured: as of :func:`measured_users`.
    """
    if "accuracy" not in measured:
        return []
    rows = measured.assign(gap=gap_of(measured), gain=best_of(measured, "ssim") - guess_of(measured, "ssim"))
    points: list[TradeOff] = []
    for _, row in rows.dropna(subset=["gap"]).iterrows():
        kind, parts = row["protection"] if pd.isna(row.get("phi")) else row["phi"], _parts(row)
        # Settings do not name what is an axis of a sweep.
        if _alphas_differ(measured) and pd.notna(row["alpha"]) and not any(p.startswith("alpha ") for p in parts):
            parts.insert(0, f"alpha {row['alpha']:g}")
        # What the group says already need not stand beside every mark.
        label = ", ".join(part for part in parts if part not in (kind, f"layer {kind}"))
        label = label or (kind if parts else Subject.named(row["subject"]).title)
        exposed = math.nan if pd.isna(row.get("exposed")) else float(row["exposed"])
        points.append(TradeOff(label, float(row["gap"]), float(row["gain"]), kind, exposed))
    return points


def _alphas_differ(measured: pd.DataFrame) -> bool:
    return "alpha" in measured and measured["alpha"].nunique() > 1


def _parts(row: "pd.Series[Any]") -> list[str]:
    """Return how a user differs from others, one by one."""
    setting = row.get("setting")
    return [] if pd.isna(setting) else [part for part in str(setting).split(", ") if part]


def boxes_of(experiment: Experiment, subject: Subject, result: AttackResult) -> list[Box]:
    """Return the PSNR boxes of one user, or of the control: protected images, every attack, the trivial guess."""
    label = "control: blur" if subject == CONTROL else _label(experiment, subject)
    guess = next(name for name in GUESSES if name in result.baselines)
    named = {estimate_title(name): measured.psnr for name, measured in _measured(result).items()}
    named[f"{guess.replace('_', '-')} baseline"] = result.baselines[guess].psnr
    return [Box(label, psnr, title) for title, psnr in named.items()]


def estimate_title(name: str) -> str:
    """Return what figures call protected images, or the estimates of an attack, by their name in the results."""
    return "protected" if name == "protected" else title_of(attack_column(name))


def _measured(result: AttackResult) -> dict[str, Measured]:
    return {"protected": result.protected, **result.estimates}


def _strips(result: AttackResult) -> list[StripRow]:
    pictures = {name: images[:_MOST_PICTURES] for name, images in result.pictures.items()}
    rows = [StripRow("plain", pictures["plain"], None)]
    for name, measured in _measured(result).items():
        rows.append(StripRow(estimate_title(name), pictures[name], _captions(measured, len(pictures["plain"]))))
    if "class_mean" in pictures:
        captions = _captions(result.baselines["class_mean"], len(pictures["plain"]))
        rows.append(StripRow("class mean (trivial guess)", pictures["class_mean"], captions))
    return rows


def _captions(measured: Measured, count: int) -> list[str]:
    return ["exact" if psnr >= PSNR_CAP else f"{psnr:.1f} dB" for psnr in measured.psnr[:count].tolist()]


def _strips_over_alpha(results: dict[float, tuple[AttackResult, str]]) -> list[StripRow]:
    """Return the rows of Fig. 5: plain images, and protected ones by rising alpha."""
    pictures = [("plain", next(iter(results.values()))[0].pictures["plain"])]
    for alpha, (result, outcome) in sorted(results.items()):
        pictures.append((f"alpha {alpha:g}: {outcome}", result.pictures["protected"]))
    return [StripRow(label, images[:_MOST_PICTURES], None) for label, images in pictures]


def _label(experiment: Experiment, subject: Subject) -> str:
    return ": ".join(filter(None, (subject.title, experiment.setting_name(subject.user))))


def _setting_title(experiment: Experiment, subject: Subject) -> str:
    """Return what was attacked, in the words of its config."""
    config, configs = experiment.user_config(subject.user), experiment.user_configs()
    if config.protection.kind != "network":
        return experiment.setting_name(subject.user) or config.protection.kind
    layer, *others = _network_parts(configs, config)
    shown = [part for part in others if not part.startswith("epochs ")]
    if len({other.width for other in configs}) == 1:
        shown.remove(f"width {config.width}")
    return ", ".join([f"alpha {config.alpha:g}", layer, *shown, f"{config.training.epochs:g} epochs"])


def _network_parts(configs: Sequence[UserConfig], config: UserConfig) -> list[str]:
    """Return what sets a network apart from those of the others, but for alpha."""
    parts = [config.features.layer, f"width {config.width}"]
    if len({other.upsampling for other in configs}) > 1:
        parts.append(config.upsampling)
    if len({other.features.pool for other in configs}) > 1:
        parts.append(f"pool {config.features.pool}")
    if len({other.noise for other in configs}) > 1:
        parts.append(f"noise {config.noise:g}")
    if len({other.dfil for other in configs}) > 1:
        parts.append("dFIL not set" if config.dfil is None else f"dFIL {config.dfil:g}")
    if len({other.training.epochs for other in configs}) > 1:
        parts.append(f"epochs {config.training.epochs:g}")
    return parts


def _outcome(table: pd.DataFrame, subject: Subject) -> str:
    """Return what the run's table says of a user's protection: the accuracy, where it is known, and the verdict."""
    row = row_of(table, user_name(subject.user))
    accuracy = [] if pd.isna(row.get("accuracy")) else [f"{100 * row['accuracy']:.0f}%"]
    return ", ".join([*accuracy, str(row["verdict"])])
