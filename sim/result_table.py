"""The table of a run: one row a user and one a control, what its columns mean, and how well images were hidden."""

import functools
import re
from typing import Any

import pandas as pd

from roles.evaluator.attack import CIPHER_ATTACKS, AttackResult, Measured
from roles.evaluator.measures import moved_ssim
from roles.user.config import UserConfig
from sim.config import Experiment
from sim.evaluator_node import BLUR
from sim.nodes import user_name
from sim.runs import RunFolder, subject_of
from sim.statistics import median_interval, share_interval
from sim.tables import attack_column, attacks_in, markdown

HIDDEN_DB, _HIDDEN_SSIM = 1.0, 0.05
HIDDEN = (2.0, _HIDDEN_SSIM)
"""How much accuracy, in points, a protection that holds may cost, and how much SSIM (beside ``HIDDEN_DB`` of PSNR) may
be had of its images beyond a trivial guess."""
GUESSES = ("class_mean", "mean_image")
"""The trivial guesses. The class mean is the better one, unless classes are predicted wrongly: a protection that ruins
accuracy would else make every attack that learns the mean image look like one that gains something."""
SEEN_SSIM = 0.5
"""From which on an image is like the plain one."""

COLUMNS = {
    "subject": "user-0000 and so on, or control-blur: plain images blurred, which every ITN must be able to recover",
    "setting": "how the user differs from the others, where users.settings says so",
    "protection": "network (the paper's), plain, tanaka, pixel or gan",
    "alpha": "weight of L_feat, of a network",
    "phi": "layer of VGG16 that L_feat is measured at",
    "width": "channels of the first level of h_theta",
    "images": "images in the user's X'",
    "steps": "training steps of h_theta; of a conventional protection, lessons and exams of its classifier",
    "selected_epoch": "epoch with the lowest validation objective, whose theta (or classifier) was used",
    "accuracy": "share of protected test images that psi, or the user's own classifier, classifies correctly",
    "accuracy_low": "lower end of the 95% interval of accuracy over test images (Wilson)",
    "accuracy_high": "upper end of the 95% interval of accuracy over test images (Wilson)",
    "plain_accuracy": "share of the same test images, plain, that psi classifies correctly",
    "protected_psnr": "median over test images, protected against plain, in dB",
    "protected_ssim": "median over test images, protected against plain",
    "moved_ssim": "median SSIM of the protected pictures that are kept with plain ones, both without a margin, once "
    "all are moved back the same way by up to 3 pixels (an eighth of the side, if that is less)",
    "moved_down": "that way: how many pixels protected pictures lie below plain ones; 0 where no move gains 0.05",
    "moved_right": "and to the right of them",
    "class_mean_psnr": "median PSNR of the trivial guess: the mean image of the predicted class",
    "class_mean_ssim": "median SSIM of the trivial guess",
    "mean_image_psnr": "median PSNR of the guess without a label: the mean of the attacker's train images",
    "mean_image_ssim": "median SSIM of the guess without a label",
    "itn_<name>_psnr": "median PSNR of the inverse network's estimates",
    "itn_<name>_ssim": "median SSIM of the inverse network's estimates",
    "itn_<name>_ssim_low": "lower end of the 95% interval of that median over test images (order statistics)",
    "itn_<name>_ssim_high": "upper end of the 95% interval of that median over test images (order statistics)",
    "itn_<name>_psnr_worst1": "PSNR that 1% of the estimates reach or exceed: the images that leak most",
    "itn_<name>_lpips": "median LPIPS of the inverse network's estimates, where it was asked for",
    "itn_<name>_accuracy": "share of the estimates that psi classifies correctly",
    "itn_<name>_recovered": "share of test images whose estimate has SSIM 0.5 or more, 0.05 over its class mean",
    "fr_attack_psnr": "median PSNR of what FR-Attack makes of pixel-based encryption, from protected images alone: of "
    "each value and its negative the darker one, so that outlines are there and brightness is not",
    "fr_attack_ssim": "median SSIM of what FR-Attack makes of it; outlines without brightness have about 0.3",
    "fr_attack_accuracy": "share of what FR-Attack makes of it that psi classifies correctly",
    "fr_attack_recovered": "share of test images that FR-Attack recovers",
    "key_attack_psnr": "median PSNR of what ten known pairs make of encryption under one key; 100 if exact",
    "key_attack_ssim": "median SSIM of what they make of it",
    "key_attack_accuracy": "share of what they make of it that psi classifies correctly",
    "key_attack_recovered": "share of test images that they recover",
    "verdict": "hidden, partial, recovered or visible (see verdict_of)",
    "queries": "requests for a loss or a gradient, lessons and exams, that the user sent",
    "queried_images": "protected images in them",
    "sent_bytes": "bytes of arrays that the user sent for them",
    "received_bytes": "bytes of arrays that came back",
    "failure": "why a user has no result",
}
"""The columns of ``table.csv`` and ``table.parquet``; accuracies are in [0, 1]. A run keeps them in ``columns.md``."""


def verdict_of(row: "pd.Series[Any]") -> str:
    """Say in a word how well a protection hid the test images, from the medians over them in its row of a table.

    What counts is what is had beyond a trivial guess, the better of :data:`GUESSES`: digits are so alike that the mean
    image of a class has an SSIM of 0.6. ``visible``: the protected image is like the plain one (SSIM at least 0.5) by
    more than that (0.05 or more). ``recovered``: an attack's estimate is. ``hidden``: neither gains 1 dB or 0.05 SSIM.
    ``partial``: all between. Medians say nothing of a minority: that is what the columns ``_recovered`` are for.
    """
    guess = {measure: max(row[f"{name}_{measure}"] for name in GUESSES) for measure in ("psnr", "ssim")}

    def shows(name: str) -> bool:
        ssim = row[f"{name}_ssim"]
        return bool(ssim >= SEEN_SSIM and ssim - guess["ssim"] >= _HIDDEN_SSIM)

    def gains(name: str) -> bool:
        psnr, ssim = (row[f"{name}_{measure}"] - guess[measure] for measure in ("psnr", "ssim"))
        return bool(psnr >= HIDDEN_DB or ssim >= _HIDDEN_SSIM)

    attacks = attacks_in(row.dropna())
    if shows("protected"):
        return "visible"
    if any(map(shows, attacks)):
        return "recovered"
    return "partial" if any(map(gains, ["protected", *attacks])) else "hidden"


def table_of(run: RunFolder, experiment: Experiment) -> pd.DataFrame:
    """Return one row a user and one a control, with the columns of :data:`COLUMNS`."""
    plain_accuracy = run.facts()["psi"]["plain_accuracy"]

    @functools.cache  # users may all publish one theta, which was attacked once
    def measures_of(subject: str) -> dict[str, object]:
        result = run.attack(subject)
        return {} if result is None else {"plain_accuracy": plain_accuracy, **_measures(result)}

    rows: list[dict[str, object]] = []
    for user in range(experiment.user_count):
        row: dict[str, object] = {"subject": user_name(user)}
        if experiment.users.settings:
            row["setting"] = experiment.setting_name(user)
        row |= _protection(experiment.user_config(user))
        subject = subject_of(experiment, user)
        published = run.user(user)
        measures = {} if published is None else measures_of(subject)
        if published is not None:
            row |= {name.replace("-", "_"): int(value) for name, value in published.facts.items()}
            if experiment.strategy.averages:
                del row["selected_epoch"]  # what is published is the last average
        row |= measures
        row["failure"] = "" if measures else run.failure(user_name(user)) or run.failure(subject)
        rows.append(row)
    if measures_of(BLUR):
        rows.append({"subject": BLUR, **measures_of(BLUR), "failure": ""})
    table = pd.DataFrame(rows)
    order = [column for pattern in COLUMNS for column in _matching(pattern, experiment) if column in table]
    return table[order].convert_dtypes()


def columns_of(table: pd.DataFrame) -> str:
    """Return what each column of a run's or a sweep's table holds, in Markdown."""
    patterns = {re.escape(column).replace("<name>", ".+"): meaning for column, meaning in COLUMNS.items()}

    def meaning_of(column: str) -> str:
        found = (meaning for pattern, meaning in patterns.items() if re.fullmatch(pattern, column))
        return next(found, "what the run has of this axis of the sweep")

    rows = [[f"`{column}`", meaning_of(str(column))] for column in table.columns]
    return f"# Columns\n\nAccuracies are in [0, 1].\n\n{markdown(['column', 'holds'], rows)}\n"


def measured_users(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of users that were attacked: neither the control's, nor those of users that failed."""
    return table[table["subject"] != BLUR].dropna(subset=["accuracy"]) if "accuracy" in table else table[:0]


def moved_users(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of users whose protected pictures are like plain ones once they are moved back."""
    measured = measured_users(table)
    if "moved_ssim" not in measured:
        return measured[:0]
    gain = measured["moved_ssim"] - guess_of(measured, "ssim")
    moved = measured[["moved_down", "moved_right"]].any(axis=1)
    return measured[moved & (measured["moved_ssim"] >= SEEN_SSIM) & (gain >= _HIDDEN_SSIM)]


def best_of(measured: pd.DataFrame, measure: str) -> "pd.Series[float]":
    """Return, for each row of a table, the median of the best that is to be had; ``measure`` is psnr or ssim.

    That is an attack's estimate, or the protected image itself where it shows what it shows.
    """
    return measured[[f"{name}_{measure}" for name in ("protected", *attacks_in(measured))]].max(axis=1)


def guess_of(measured: pd.DataFrame, measure: str) -> "pd.Series[float]":
    """Return, for each row of a table, the better of the trivial guesses' medians; ``measure`` is psnr or ssim."""
    # Runs of earlier versions have the class mean alone.
    known = [column for guess in GUESSES if (column := f"{guess}_{measure}") in measured]
    return measured[known].max(axis=1)


def _protection(config: UserConfig) -> dict[str, object]:
    row: dict[str, object] = {"protection": config.protection.kind}
    if config.trains_network:
        row["width"] = config.width
    if config.protection.kind == "network":
        row |= {"alpha": config.alpha, "phi": config.features.layer}
    return row


def _matching(pattern: str, experiment: Experiment) -> list[str]:
    names = [itn.name for itn in experiment.attack.itns]
    return [pattern.replace("<name>", name) for name in names] if "<name>" in pattern else [pattern]


def _measures(result: AttackResult) -> dict[str, object]:
    accuracy, count = result.protected.accuracy, len(result.protected.psnr)
    assert accuracy is not None
    accuracy_low, accuracy_high = share_interval(round(accuracy * count), count)
    moved = moved_ssim(result.pictures["protected"], result.pictures["plain"])
    row: dict[str, object] = {
        "accuracy": accuracy,
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "protected_psnr": _median(result.protected, "psnr"),
        "protected_ssim": _median(result.protected, "ssim"),
        **dict(zip(("moved_ssim", "moved_down", "moved_right"), moved, strict=True)),
        **{f"{name}_{of}": _median(result.baselines[name], of) for name in GUESSES for of in ("psnr", "ssim")},
    }
    for name, estimate in result.estimates.items():
        prefix = attack_column(name)
        row |= {
            f"{prefix}_psnr": _median(estimate, "psnr"),
            f"{prefix}_ssim": _median(estimate, "ssim"),
            f"{prefix}_accuracy": estimate.accuracy,
            f"{prefix}_recovered": _recovered(estimate, result.baselines["class_mean"]),
        }
        if name in CIPHER_ATTACKS:
            continue
        row[f"{prefix}_ssim_low"], row[f"{prefix}_ssim_high"] = median_interval(estimate.ssim)
        row[f"{prefix}_psnr_worst1"] = float(estimate.psnr.quantile(0.99))
        if estimate.lpips is not None:
            row[f"{prefix}_lpips"] = _median(estimate, "lpips")
    row["verdict"] = verdict_of(pd.Series(row))
    return row


def _recovered(estimate: Measured, class_mean: Measured) -> float:
    seen = (estimate.ssim >= SEEN_SSIM) & (estimate.ssim - class_mean.ssim >= _HIDDEN_SSIM)
    return float(seen.double().mean())


def _median(measured: Measured, measure: str) -> float:
    return float(getattr(measured, measure).median())
