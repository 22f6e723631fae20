"""What the figures of a run show: its results as boxes, strips, curves and marks."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from roles.evaluator.attacks import CIPHER_ATTACKS
from roles.evaluator.measures import PSNR_CAP
from roles.evaluator.results import AttackResult, Measured
from sim.config.experiment import Experiment
from sim.report.figures.boxes import Box, draw_psnr_boxes
from sim.report.figures.curves import Panel, draw_learning_curves
from sim.report.figures.strips import StripRow, draw_strips
from sim.report.figures.trade_off import TradeOff, draw_accuracy, draw_trade_off
from sim.report.table import GUESSES, HIDDEN, best_of, gap_of, guess_of, measured_users
from sim.run.folder import RunFolder
from sim.run.subject import CONTROL, Subject

PANELS = [
    Panel("train_loss", "L_class, training"),
    Panel("validation_feature_loss", "L_feat, validation", log=True),
    Panel("validation_passes_through", "of the plain image left, validation"),
    Panel("validation_objective", "objective (Eq. 4), validation"),
    Panel("validation_accuracy", "accuracy, validation"),
]
"""What is drawn of every user's learning curve."""
ROUND_PANELS = [
    Panel("validation_loss", "L_class, validation", x="round"),
    Panel("validation_accuracy", "accuracy, validation", x="round"),
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
    over_alpha: dict[str, dict[float, AttackResult]] = defaultdict(dict)
    for subject in dict.fromkeys(subjects):
        result = run.attack(subject)
        if result is None:
            continue
        boxes += boxes_of(experiment, subject, result)
        if subject in (CONTROL, *(subjects[user] for user in shown)):
            draw_strips(figures / f"strips-{subject.name}", _strips(result), _strip_title(experiment, subject))
        config = configs[subject.user % len(configs)]
        if subject != CONTROL and config.protection.kind == "network":
            name = f"{config.features.layer}-width-{config.width}"
            if len({other.upsampling for other in configs}) > 1:
                name += f"-{config.upsampling}"
            if len({other.training.epochs for other in configs}) > 1:
                name += f"-epochs-{config.training.epochs:g}"
            over_alpha[name].setdefault(config.alpha, result)
    for name, results in over_alpha.items():
        if len(results) > 1:
            title = f"{experiment.name}: {name}, over alpha"
            draw_strips(figures / f"strips-over-alpha-{name}", _strips_over_alpha(results), title)
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
        lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for _, row in measured.dropna(subset=["alpha", "accuracy"]).iterrows():
            width = [f"width {row['width']:g}"] if measured["width"].nunique() > 1 else []
            others = [part for part in _parts(row) if not part.startswith(("alpha ", "layer ", "width "))]
            lines[", ".join([row["phi"], *width, *others])].append((row["alpha"], 100 * row["accuracy"]))
        draw_accuracy(figures / "accuracy", lines, 100 * measured["plain_accuracy"].iloc[0])


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
        points.append(TradeOff(label, float(row["gap"]), float(row["gain"]), kind))
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
    # A PSNR that is infinite has no place on an axis: where all images are exact, the box is empty. It is there so that
    # groups have one order and one colour in all figures.
    return [Box(label, psnr[:0] if psnr.min() >= PSNR_CAP else psnr, title) for title, psnr in named.items()]


def estimate_title(name: str) -> str:
    """Return what figures call protected images, or the estimates of an attack, by their name in the results."""
    titles = {"protected": "protected"} | {attack.name: attack.title for attack in CIPHER_ATTACKS}
    return titles.get(name, f"ITN ({name})")


def _measured(result: AttackResult) -> dict[str, Measured]:
    return {"protected": result.protected, **result.estimates}


def _strips(result: AttackResult) -> list[StripRow]:
    pictures = {name: images[:_MOST_PICTURES] for name, images in result.pictures.items()}
    rows = [StripRow("plain", pictures["plain"], None)]
    for name, measured in _measured(result).items():
        captions = [f"{psnr:.2f} dB" for psnr in measured.psnr[: len(pictures["plain"])].tolist()]
        rows.append(StripRow(estimate_title(name), pictures[name], captions))
    return rows


def _strips_over_alpha(results: dict[float, AttackResult]) -> list[StripRow]:
    """Return the rows of Fig. 5: plain images, and protected ones by rising alpha."""
    pictures = [("plain", next(iter(results.values())).pictures["plain"])]
    pictures += [(f"alpha {alpha:g}", results[alpha].pictures["protected"]) for alpha in sorted(results)]
    return [StripRow(label, images[:_MOST_PICTURES], None) for label, images in pictures]


def _label(experiment: Experiment, subject: Subject) -> str:
    return ": ".join(filter(None, (subject.title, experiment.setting_name(subject.user))))


def _strip_title(experiment: Experiment, subject: Subject) -> str:
    user = experiment.user_config(subject.user)
    if subject == CONTROL:
        return "Positive control: blurred images"
    if user.protection.kind != "network":
        return f"{experiment.name}, {_label(experiment, subject)}"
    network = f"alpha {user.alpha:g}, {user.features.layer}, width {user.width}, {user.training.epochs:g} epochs"
    return f"{experiment.name}, {subject.title}: {network}"
