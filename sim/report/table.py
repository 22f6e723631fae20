"""The table of a run: one row a user and one a control, and how well images were hidden."""

import functools
from typing import Any

import pandas as pd

from roles.common.naming import user_name
from roles.evaluator.measures import moved_ssim
from roles.evaluator.results import AttackResult
from sim.config.experiment import Experiment
from sim.report.columns import CIPHER_TITLES, attack_column, attacks_in, possible_columns
from sim.report.rest import at_the_end
from sim.report.statistics import median_interval, share_interval
from sim.run.folder import RunFolder
from sim.run.subject import CONTROL, Subject

HIDDEN_DB, _HIDDEN_SSIM = 1.0, 0.05
HIDDEN = (2.0, _HIDDEN_SSIM)
"""How much accuracy, in points, a protection that holds may cost, and how much SSIM (beside ``HIDDEN_DB`` of PSNR) may
be had of its images beyond a trivial guess."""
GUESSES = ("class_mean", "mean_image")
"""The trivial guesses. The class mean, which takes labels, is the better one, unless classes are predicted wrongly: a
protection that ruins accuracy would else make every attack that learns the mean image look like it gains something."""
SEEN_SSIM = 0.5
"""From which on an image is like the plain one."""


def verdict_of(row: "pd.Series[Any]") -> str:
    """Say in a word how well a protection hid the test images, from the medians over them in its row of a table.

    What counts is what is had beyond a trivial guess, the better of :data:`GUESSES`: digits are so alike that the mean
    image of a class has an SSIM of 0.6. ``visible``: the protected image is like the plain one (SSIM at least 0.5) by
    more than that (0.05 or more). ``recovered``: an attack's estimate is. ``hidden``: neither gains 1 dB or 0.05 SSIM.
    ``partial``: all between. Medians say nothing of a minority: that is what the columns ``_recovered`` are for.
    """
    known = row.dropna()
    names = ["protected", *attacks_in(known)]
    guess = {of: max(known[key] for name in GUESSES if (key := f"{name}_{of}") in known) for of in ("psnr", "ssim")}
    gains = {name: (known[f"{name}_psnr"] - guess["psnr"], known[f"{name}_ssim"] - guess["ssim"]) for name in names}
    seen = [name for name in names if known[f"{name}_ssim"] >= SEEN_SSIM and gains[name][1] >= _HIDDEN_SSIM]
    if seen:
        return "visible" if "protected" in seen else "recovered"
    return "partial" if any(psnr >= HIDDEN_DB or ssim >= _HIDDEN_SSIM for psnr, ssim in gains.values()) else "hidden"


def table_of(run: RunFolder, experiment: Experiment) -> pd.DataFrame:
    """Return one row a user and one a control, with those of :func:`possible_columns` that there are values for."""
    plain_accuracy = run.facts()["psi"]["plain_accuracy"]

    @functools.cache  # users may all publish one theta, which was attacked once
    def measures_of(subject: Subject) -> dict[str, object]:
        result = run.attack(subject)
        return {} if result is None else {"plain_accuracy": plain_accuracy, **_measures(result)}

    rows: list[dict[str, object]] = []
    for user in range(experiment.user_count):
        subject, config, published = Subject.of(experiment, user), experiment.user_config(user), run.user(user)
        row: dict[str, object] = {"subject": user_name(user), "protection": config.protection.kind}
        row |= {"setting": experiment.setting_name(user)} if experiment.users.settings else {}
        row |= {"width": config.width} if config.trains_network else {}
        row |= {"alpha": config.alpha, "phi": config.features.layer} if row["protection"] == "network" else {}
        measures: dict[str, object] = {}
        if published is not None:
            row |= {name.replace("-", "_"): int(value) for name, value in published.facts.items()}
            if config.trains_network:
                row |= at_the_end(published.curve, int(published.facts["selected-epoch"]))
            measures = measures_of(subject)
            if experiment.strategy.averages:
                # What is published is the last average, which no user has validated by itself.
                del row["selected_epoch"]
                row.pop("passes_through", None)
        failure = "" if measures else run.failure(user_name(user)) or run.failure(subject.name)
        rows.append(row | measures | {"failure": failure})
    if measures_of(CONTROL):
        rows.append({"subject": CONTROL.name, **measures_of(CONTROL), "failure": ""})
    table = pd.DataFrame(rows)
    columns = possible_columns([attack_column(itn.name) for itn in experiment.attack.itns])
    return table[[column.key for column in columns if column.key in table]].convert_dtypes()


def users_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of users."""
    return table[table["subject"] != CONTROL.name]


def controls_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the positive control: one, or in a sweep one a cell."""
    return table[table["subject"] == CONTROL.name]


def attacked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of those who were attacked: not of users that failed."""
    return table.dropna(subset=["protected_psnr"]) if "protected_psnr" in table else table[:0]


def measured_users(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of users that were attacked: neither the control's, nor those of users that failed."""
    return attacked(users_of(table))


def verdict_counts(table: pd.DataFrame) -> "pd.Series[int]":
    """Return how many users have each verdict that any has."""
    return users_of(table)["verdict"].value_counts() if "verdict" in table else pd.Series(dtype=int)


def moved_users(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of users whose protected pictures are like plain ones once they are moved back."""
    users = measured_users(table)
    if "moved_ssim" not in users:
        return users[:0]
    gain = users["moved_ssim"] - guess_of(users, "ssim")
    moved = users[["moved_down", "moved_right"]].any(axis=1)
    return users[moved & (users["moved_ssim"] >= SEEN_SSIM) & (gain >= _HIDDEN_SSIM)]


def gap_of(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return, for each row of a table, accuracy minus that on plain images, in points; empty if nothing has any."""
    return 100 * (rows["accuracy"] - rows["plain_accuracy"]) if "accuracy" in rows else pd.Series(dtype=float)


def best_of(rows: pd.DataFrame, measure: str) -> "pd.Series[float]":
    """Return, for each row of a table, the best median psnr or ssim (``measure``) of protected images and attacks."""
    return rows.reindex(columns=[f"{name}_{measure}" for name in ("protected", *attacks_in(rows))]).max(axis=1)


def guess_of(rows: pd.DataFrame, measure: str) -> "pd.Series[float]":
    """Return, for each row of a table, the better of the trivial guesses' medians of psnr or ssim (``measure``)."""
    return rows.reindex(columns=[f"{name}_{measure}" for name in GUESSES]).max(axis=1)


def _measures(result: AttackResult) -> dict[str, object]:
    estimates = {attack_column(name): estimate for name, estimate in result.estimates.items()}
    named = {"protected": result.protected, **result.baselines, **estimates}
    row: dict[str, object] = {
        f"{name}_{of}": float(getattr(found, of).median()) for name, found in named.items() for of in ("psnr", "ssim")
    }
    moved = moved_ssim(result.pictures["protected"], result.pictures["plain"])
    row |= zip(("moved_ssim", "moved_down", "moved_right"), moved, strict=True)
    accuracy, count = result.protected.accuracy, len(result.protected.psnr)
    if accuracy is not None:
        low, high = share_interval(round(accuracy * count), count)
        row |= {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
    guess = next(result.baselines[name] for name in GUESSES if name in result.baselines)
    for name, estimate in estimates.items():
        seen = (estimate.ssim >= SEEN_SSIM) & (estimate.ssim - guess.ssim >= _HIDDEN_SSIM)
        row[f"{name}_recovered"] = float(seen.double().mean())
        if estimate.accuracy is not None:
            row[f"{name}_accuracy"] = estimate.accuracy
        if name in CIPHER_TITLES:
            continue
        row[f"{name}_ssim_low"], row[f"{name}_ssim_high"] = median_interval(estimate.ssim)
        row[f"{name}_psnr_worst1"] = float(estimate.psnr.quantile(0.99))
        if estimate.lpips is not None:
            row[f"{name}_lpips"] = float(estimate.lpips.median())
    return row | {"verdict": verdict_of(pd.Series(row))}
