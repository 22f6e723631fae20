"""The table of a run: one row a user and one a control, and how well images were hidden."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch.nn import functional as F

from roles.common.naming import user_name
from roles.common.suspicion import suspicions
from roles.evaluator.baselines import enough, given_away
from roles.evaluator.results import AttackResult, Seen
from roles.evaluator.seen import as_seen
from sim.config.experiment import Experiment
from sim.report.columns import (
    CIPHER_TITLES,
    LADDER,
    attack_column,
    attacks_in,
    name_in_results,
    possible_columns,
    recorded,
    title_of,
)
from sim.report.ladder import ladders_of
from sim.report.rest import at_the_end
from sim.report.statistics import median_interval, share_interval
from sim.run.folder import RunFolder
from sim.run.subject import CONTROL, Subject

HIDDEN_DB, _HIDDEN_SSIM = 1.0, 0.05
HIDDEN = (2.0, _HIDDEN_SSIM)
"""How much accuracy, in points, a protection that holds may cost, and how much SSIM (beside ``HIDDEN_DB`` of PSNR) may
be had of its images beyond a trivial guess."""
GUESSES = ("class_mean", "mean_image")
"""The trivial guesses, the same for all users of a run; the class mean, which takes labels, is nearly always better."""
_AS_SEEN = ("seen_ssim", "moved_ssim")
"""SSIM of protected images as a person sees them; earlier versions looked through moves alone, or not at all."""
_SHOWN, _BARELY_SHOWN = 1 / 3, 0.1
"""Of the details that set an image apart: from where on they show it, and up to where they hide it."""
_OF_BEST = ("recovered", "recognised", "accuracy")
"""What pages say of the best attack on a user."""
_MOST = 0.5
"""From this share of images on, a protection gives them away."""
_MOST_EXPOSED = 0.05
"""Share of images that a protection that holds may give away: whoever knows the class of a digit and guesses between
two shapes that are typical of it hits 1 to 3% of them by luck."""


def verdict_of(row: "pd.Series[Any]") -> str:
    """Say in a word how well a protection hid the test images, from its row of a table.

    An image is given away where SSIM is at least 0.5 and makes up for at least half of what a trivial guess lacks, the
    better of :data:`GUESSES`: digits are so alike that the mean image of a class has an SSIM of 0.6. A protected image
    gives itself away as a person sees it (``seen_ssim``), or where it shows a third of the details that set the plain
    one apart from its class (``shown``).

    - ``visible``: at least half of the protected images give themselves away.
    - ``recovered``: an attack's estimates give at least half of them away. The best rung of a ladder is an attack.
    - ``hidden``: no attack gains 1 dB or 0.05 SSIM on the guess in the median, nor do the protected images, which show
      at most a tenth of those details; and at most 5% of the images are given away by anything (``exposed``).
    - ``partial``: all between.

    In a row of an earlier version, which has no such shares, medians stand for them.
    """
    known = row.dropna()
    names = ["protected", *attacks_in(known)]
    guess = {of: max(known[key] for name in GUESSES if (key := f"{name}_{of}") in known) for of in ("psnr", "ssim")}
    ssims = {name: known[f"{name}_ssim"] for name in names}
    ssims["protected"] = max(known.get(name, 0.0) for name in ("protected_ssim", *_AS_SEEN))
    if "exposed" in known:
        shares = {name: known[f"{name}_recovered"] for name in names[1:]} | {"protected": known["protected_visible"]}
        given_away = [name for name, share in shares.items() if share >= _MOST]
    else:
        given_away = [name for name, found in ssims.items() if found >= enough(guess["ssim"])]
    if given_away:
        return "visible" if "protected" in given_away else "recovered"
    gains_db = max(known[f"{name}_psnr"] for name in names) - guess["psnr"] >= HIDDEN_DB
    gains_ssim = max(ssims.values()) - guess["ssim"] >= _HIDDEN_SSIM
    leaks = known.get("shown", 0.0) > _BARELY_SHOWN or known.get("exposed", 0.0) > _MOST_EXPOSED
    return "partial" if gains_db or gains_ssim or leaks else "hidden"


def table_of(run: RunFolder, experiment: Experiment) -> pd.DataFrame:
    """Return one row a user and one a control, with those of :func:`possible_columns` that there are values for."""
    plain_accuracy = run.facts()["psi"]["plain_accuracy"]

    @functools.cache  # users may all publish one theta, which was attacked once
    def measures_of(subject: Subject) -> dict[str, Any]:
        result = run.attack(subject)
        return {} if result is None else {"plain_accuracy": plain_accuracy, **_measures(result)}

    ladders = ladders_of(run, experiment)
    rows: list[dict[str, object]] = []
    for user in range(experiment.user_count):
        subject, config, published = Subject.of(experiment, user), experiment.user_config(user), run.user(user)
        row: dict[str, object] = {"subject": user_name(user), "protection": config.protection.kind}
        row |= {"setting": experiment.setting_name(user)} if experiment.users.settings else {}
        row |= {"width": config.width} if config.trains_network else {}
        row |= {"alpha": config.alpha, "phi": config.features.layer} if row["protection"] == "network" else {}
        measures: dict[str, Any] = {}
        if published is not None:
            row |= {name.replace("-", "_"): int(value) for name, value in published.facts.items()}
            if config.trains_network:
                row |= suspicions(published.checks)
                row |= at_the_end(published.curve, int(published.facts["selected-epoch"]))
            measures = measures_of(subject)
            if experiment.strategy.averages:
                # What is published is the last average, which no user has validated by itself.
                for of_its_own in ("selected_epoch", "passes_through", "dfil"):
                    row.pop(of_its_own, None)
        failure = run.failure(user_name(user)) or run.failure(subject.name)
        failure = failure if _lacks_some(measures, subject, experiment) else ""
        rows.append(row | _with_ladder(measures, ladders.get(user_name(user))) | {"failure": failure})
    if found := measures_of(CONTROL):
        failure = run.failure(CONTROL.name) if _lacks_some(found, CONTROL, experiment) else ""
        rows.append({"subject": CONTROL.name, **_with_ladder(found, ladders.get(CONTROL.name)), "failure": failure})
    table = pd.DataFrame(rows)
    columns = possible_columns([attack_column(itn.name) for itn in experiment.attack.itns])
    return table[[column.key for column in columns if column.key in table]].convert_dtypes()


def _lacks_some(measures: Mapping[str, object], subject: Subject, experiment: Experiment) -> bool:
    return any(f"{attack_column(itn.name)}_psnr" not in measures for itn in subject.itns_of(experiment))


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


def seen_through_users(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of users whose protected images a person makes out though PSNR and SSIM say that they are far."""
    users = measured_users(table)
    if "seen_ssim" not in users:
        return users[:0]
    through = (users["verdict"] == "visible") & (users["protected_ssim"] < enough(guess_of(users, "ssim")))
    found: pd.DataFrame = users[through]
    return found


def gap_of(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return, for each row of a table, accuracy minus that on plain images, in points; empty if nothing has any."""
    return 100 * (rows["accuracy"] - rows["plain_accuracy"]) if "accuracy" in rows else pd.Series(dtype=float)


def row_of(table: pd.DataFrame, subject: str) -> "pd.Series[Any]":
    """Return the row of a table that is of a subject, by its name."""
    return table[table["subject"] == subject].iloc[0]


def best_attack(row: "pd.Series[Any]") -> str:
    """Return the attack whose estimates have the highest median SSIM in a row of a table, by how its columns begin."""
    return _best(attacks_in(row.dropna()), row)


def best_attack_on(table: pd.DataFrame, subject: str) -> str:
    """Return the best attack on a subject of which there are pictures, by its name in the results."""
    row = row_of(table, subject)
    return name_in_results(_best([name for name in attacks_in(row.dropna()) if name != LADDER], row))


def _best(attacks: Sequence[str], row: "pd.Series[Any]") -> str:
    return max(attacks, key=lambda name: float(row[f"{name}_ssim"]))


def extremes(table: pd.DataFrame) -> list[str]:
    """Return the users whose images are given away most and least, by name; one where there is one, or none."""
    users = measured_users(table)
    if users.empty:
        return []
    keys = ["exposed", "best"]
    order = users.assign(best=best_of(users, "ssim")).reindex(columns=["subject", *keys])
    order = order.sort_values(keys, kind="stable", ascending=False)
    # Users who publish one theta are one.
    apart = not order[keys].iloc[0].equals(order[keys].iloc[-1])
    return list(order["subject"].iloc[[0, -1] if apart else [0]])


def short_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return what a reader of a table asks for first, in that order; of attacks, what the best of each row found."""
    found: dict[Any, dict[str, Any]] = {}
    for index, row in attacked(table).iterrows():
        best = best_attack(row)
        found[index] = {"best_attack": title_of(best), "best_ssim": row[f"{best}_ssim"]}
        found[index] |= {f"best_{share}": row.get(f"{best}_{share}") for share in _OF_BEST}
    full = table.join(pd.DataFrame.from_dict(found, orient="index")) if found else table
    columns = [key for column in recorded("first_in_pages") if (key := column.key) in full and _is_known(full, key)]
    short: pd.DataFrame = full[columns].convert_dtypes()
    return short


def _is_known(table: pd.DataFrame, key: str) -> bool:
    """Return whether a column is to be shown: of what an attack found, if it was looked for."""
    return not key.startswith("best_") or bool(table[key].notna().any())


def best_of(rows: pd.DataFrame, measure: str) -> "pd.Series[float]":
    """Return, for each row of a table, the best median psnr or ssim (``measure``) of protected images and attacks.

    Of protected images, SSIM is that which a person has of them, where it was measured.
    """
    names = [f"{name}_{measure}" for name in ("protected", *attacks_in(rows))]
    return rows.reindex(columns=[*names, *(_AS_SEEN if measure == "ssim" else ())]).max(axis=1)


def guess_of(rows: pd.DataFrame, measure: str) -> "pd.Series[float]":
    """Return, for each row of a table, the better of the trivial guesses' medians of psnr or ssim (``measure``)."""
    return rows.reindex(columns=[f"{name}_{measure}" for name in GUESSES]).max(axis=1)


def _with_ladder(measures: dict[str, Any], ladder: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the measures of a subject with those of the best rung of its ladder, which has its say in the verdict."""
    if not measures or ladder is None:
        return measures
    # Which images a rung gives away is not kept: all of them may be among those that something else does.
    row = {**measures, **ladder, "exposed": max(measures["exposed"], ladder["ladder_recovered"])}
    return row | {"verdict": verdict_of(pd.Series(row))}


def _measures(result: AttackResult) -> dict[str, object]:
    estimates = {attack_column(name): estimate for name, estimate in result.estimates.items()}
    named = {"protected": result.protected, **result.baselines, **estimates}
    row: dict[str, object] = {
        f"{name}_{of}": float(getattr(found, of).median()) for name, found in named.items() for of in ("psnr", "ssim")
    }
    row |= {
        f"{name}_{of}": share
        for name, found in named.items()
        for of in ("recognised", "retrieved")
        if (share := getattr(found, of)) is not None
    }
    seen, accuracy, count = result.seen or _look_at(result), result.protected.accuracy, len(result.protected.psnr)
    row |= {"seen_ssim": float(seen.ssim.median()), "shown": float(seen.shown.median())}
    row |= {"moved_down": seen.down, "moved_right": seen.right}
    if accuracy is not None:
        low, high = share_interval(round(accuracy * count), count)
        row |= {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
    guesses = [result.baselines[name].ssim for name in GUESSES if name in result.baselines]
    # Of a run of an earlier version, those that pictures were kept of.
    visible = given_away(seen.ssim, [guess[: len(seen.ssim)] for guess in guesses]) | (seen.shown >= _SHOWN)
    row["protected_visible"] = float(visible.double().mean())
    exposed = F.pad(visible, (0, count - len(visible)))
    for name, estimate in estimates.items():
        recovered = given_away(estimate.ssim, guesses)
        exposed |= recovered
        row[f"{name}_recovered"] = float(recovered.double().mean())
        if estimate.accuracy is not None:
            row[f"{name}_accuracy"] = estimate.accuracy
        if name in CIPHER_TITLES:
            continue
        row[f"{name}_ssim_low"], row[f"{name}_ssim_high"] = median_interval(estimate.ssim)
        row[f"{name}_psnr_worst1"] = float(estimate.psnr.quantile(0.99))
        if estimate.lpips is not None:
            row[f"{name}_lpips"] = float(estimate.lpips.median())
    row["exposed"] = float(exposed.double().mean())
    return row | {"verdict": verdict_of(pd.Series(row))}


def _look_at(result: AttackResult) -> Seen:
    """Look at the pictures that a run of an earlier version has kept: at its test images nobody did."""
    protected, plain = result.pictures["protected"], result.pictures["plain"]
    labels = torch.zeros(len(plain), dtype=torch.int64)
    return as_seen(protected, plain, labels, result.protected.ssim[: len(plain)])
