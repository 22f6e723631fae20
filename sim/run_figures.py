"""What the figures of a run show: its results as the boxes, strips, curves and marks that sim/figures.py draws."""

from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from roles.evaluator.attack import CIPHER_ATTACKS, AttackResult, Measured
from roles.evaluator.measures import PSNR_CAP
from sim.config import Experiment
from sim.evaluator_node import BLUR
from sim.figures import (
    Box,
    Panel,
    StripRow,
    draw_learning_curves,
    draw_psnr_boxes,
    draw_strips,
)
from sim.nodes import subject_title, user_of
from sim.result_table import HIDDEN, best_of, guess_of, measured_users
from sim.runs import RunFolder, subject_of
from sim.trade_off_figures import TradeOff, draw_accuracy, draw_trade_off

PANELS = [
    Panel("train_loss", "L_class, training"),
    Panel("validation_feature_loss", "L_feat, validation", log=True),
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
    """Draw all users' boxes, curves and trade-off, and the strips of those ``shown``."""
    figures, users = run.path / "figures", range(experiment.user_count)
    boxes: list[Box] = []
    curves = {f"user {user}": published.curve for user in users if (published := run.user(user)) is not None}
    with_strips = {subject_of(experiment, user) for user in shown}
    for subject in dict.fromkeys(subject_of(experiment, user) for user in users):
        result = run.attack(subject)
        if result is None:
            continue
        boxes += boxes_of(experiment, subject, result)
        if subject in with_strips:
            draw_strips(figures / f"strips-{subject}", _strips(result), _strip_title(experiment, subject))
    for name, rows in _strips_over_alpha(run, experiment).items():
        draw_strips(figures / f"strips-over-alpha-{name}", rows, f"{experiment.name}: {name}, over alpha")
    control = run.attack(BLUR)
    if control is not None:
        boxes += boxes_of(experiment, BLUR, control)
        draw_strips(figures / f"strips-{BLUR}", _strips(control), "Positive control: blurred images")
    draw_psnr_boxes(figures / "psnr", boxes)
    draw_learning_curves(figures / "curves", curves, PANELS)
    rounds = run.rounds()
    if rounds:
        draw_learning_curves(figures / "rounds", {"average": rounds}, ROUND_PANELS)
    draw_table(figures, table)


def draw_table(figures: Path, table: pd.DataFrame) -> None:
    """Draw what a table shows: accuracy against what can be seen and, of networks of several alphas, against alpha."""
    measured = measured_users(table)
    if measured.empty:
        return
    draw_trade_off(figures / "trade-off", trade_offs(measured), HIDDEN)
    if _alphas_differ(measured):
        lines: dict[str, list[tuple[float, float]]] = {}
        for _, row in measured.dropna(subset=["alpha"]).iterrows():
            width = [f"width {row['width']:g}"] if measured["width"].nunique() > 1 else []
            others = [part for part in _parts(row) if not part.startswith(("alpha ", "layer ", "width "))]
            name = ", ".join([str(row["phi"]), *width, *others])
            lines.setdefault(name, []).append((float(row["alpha"]), 100 * float(row["accuracy"])))
        draw_accuracy(figures / "accuracy", lines, 100 * float(measured["plain_accuracy"].iloc[0]))


def trade_offs(measured: pd.DataFrame) -> list[TradeOff]:
    """Return what each protection costs and keeps; ``measured`` is as of :func:`measured_users`, not empty.

    A label says how its user differs from others: by its setting and, where networks have several alphas, by alpha.
    """
    gaps = 100 * (measured["accuracy"] - measured["plain_accuracy"])
    gains = best_of(measured, "ssim") - guess_of(measured, "ssim")
    alphas_differ = _alphas_differ(measured)
    points: list[TradeOff] = []
    for (_, row), gap, gain in zip(measured.iterrows(), gaps, gains, strict=True):
        kind = str(row["protection"] if pd.isna(row.get("phi")) else row["phi"])
        parts = _parts(row)
        # Settings do not name what is an axis of a sweep.
        if alphas_differ and pd.notna(row["alpha"]) and not any(part.startswith("alpha ") for part in parts):
            parts.insert(0, f"alpha {row['alpha']:g}")
        # What the group says already need not stand beside every mark.
        label = ", ".join(part for part in parts if part not in (kind, f"layer {kind}"))
        label = label or (kind if parts else subject_title(str(row["subject"])))
        points.append(TradeOff(label, float(gap), float(gain), kind))
    return points


def _alphas_differ(measured: pd.DataFrame) -> bool:
    return "alpha" in measured and measured["alpha"].nunique() > 1


def _parts(row: "pd.Series[Any]") -> list[str]:
    """Return how a user differs from others, one by one."""
    setting = row.get("setting")
    return [] if pd.isna(setting) else [part for part in str(setting).split(", ") if part]


def boxes_of(experiment: Experiment, subject: str, result: AttackResult) -> list[Box]:
    """Return the PSNR boxes of one user, or of the control: protected images, every attack, the trivial guess."""
    label = "control: blur" if subject == BLUR else _label(experiment, subject)

    def box(measured: Measured, group: str) -> Box:
        # A PSNR that is infinite has no place on an axis: where all images are exact, the box is empty. It is there so
        # that groups have one order and one colour in all figures.
        exact = float(measured.psnr.min()) >= PSNR_CAP
        return Box(label, measured.psnr[:0] if exact else measured.psnr, group)

    return [
        box(result.protected, "protected"),
        *(box(estimate, estimate_title(name)) for name, estimate in result.estimates.items()),
        box(result.baselines["class_mean"], "class-mean baseline"),
    ]


def estimate_title(name: str) -> str:
    """Return what figures call the estimates of an inverse network, by its name, or of another attack."""
    return CIPHER_ATTACKS.get(name, f"ITN ({name})")


def _strips(result: AttackResult) -> list[StripRow]:
    plain = _pictures(result, "plain")

    def captions(measured: Measured) -> list[str]:
        return [f"{value:.2f} dB" for value in measured.psnr[: len(plain)].tolist()]

    return [
        StripRow("plain", plain, None),
        StripRow("protected", _pictures(result, "protected"), captions(result.protected)),
        *(
            StripRow(estimate_title(name), _pictures(result, name), captions(estimate))
            for name, estimate in result.estimates.items()
        ),
    ]


def _pictures(result: AttackResult, name: str) -> Tensor:
    return result.pictures[name][:_MOST_PICTURES]


def _strips_over_alpha(run: RunFolder, experiment: Experiment) -> dict[str, list[StripRow]]:
    """Return what Fig. 5 shows, by what the networks have in common: plain images, then protected ones by rising alpha.

    Of several users with one alpha, the first is shown; where all have one, there is nothing to show.
    """
    found: dict[str, dict[float, AttackResult]] = {}
    epochs = {config.training.epochs for config in experiment.user_configs()}
    for user in range(len(experiment.user_configs())):
        config = experiment.user_config(user)
        if config.protection.kind != "network":
            continue
        name = f"{config.features.layer}-width-{config.width}"
        if len(epochs) > 1:
            name += f"-epochs-{config.training.epochs:g}"
        of_name = found.setdefault(name, {})
        result = None if config.alpha in of_name else run.attack(subject_of(experiment, user))
        if result is not None:
            of_name[config.alpha] = result
    return {
        name: [
            StripRow("plain", _pictures(next(iter(by_alpha.values())), "plain"), None),
            *(
                StripRow(f"alpha {alpha:g}", _pictures(by_alpha[alpha], "protected"), None)
                for alpha in sorted(by_alpha)
            ),
        ]
        for name, by_alpha in found.items()
        if len(by_alpha) > 1
    }


def _label(experiment: Experiment, subject: str) -> str:
    return ": ".join(filter(None, (subject_title(subject), experiment.setting_name(user_of(subject)))))


def _strip_title(experiment: Experiment, subject: str) -> str:
    user = experiment.user_config(user_of(subject))
    if user.protection.kind != "network":
        return f"{experiment.name}, {_label(experiment, subject)}"
    network = f"alpha {user.alpha:g}, {user.features.layer}, width {user.width}, {user.training.epochs:g} epochs"
    return f"{experiment.name}, {subject_title(subject)}: {network}"
