"""What a run found: one table, the figures of the paper, and a summary that says plainly what was hidden."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from roles.evaluator.attack import FR_ATTACK, AttackResult, Measured
from roles.evaluator.measures import PSNR_CAP
from roles.user.config import UserConfig
from sim.config import Experiment
from sim.evaluator_node import BLUR
from sim.figures import (
    Box,
    Panel,
    StripRow,
    TradeOff,
    draw_accuracy,
    draw_learning_curves,
    draw_psnr_boxes,
    draw_strips,
    draw_trade_off,
)
from sim.nodes import user_name, user_of
from sim.progress import write_atomically
from sim.runs import RunFolder, subject_of
from sim.statistics import bootstrapped_median_interval, median_interval, share_interval
from sim.studies import report_studies
from sim.tables import attacks_in, markdown, psnr_and_ssim, with_interval, write_table

_HIDDEN_DB, _HIDDEN_SSIM = 1.0, 0.05
HIDDEN = (2.0, _HIDDEN_SSIM)
"""How much accuracy, in points, a protection that holds may cost, and how much SSIM an attack may gain on it."""
_SEEN_SSIM = 0.5
_CONTROL_SSIM = 0.8
_MOST_SHOWN = 12
"""Users in figures and summary; the table has all."""
_USERS_FOR_A_SPREAD, _WORST_NAMED = 5, 3

PANELS = [
    Panel("train_loss", "L_class, training"),
    Panel("validation_feature_loss", "L_feat, validation", log=True),
    Panel("validation_objective", "objective (Eq. 4), validation"),
    Panel("validation_accuracy", "accuracy, validation"),
]
"""What is drawn of every user's learning curve."""

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
    "class_mean_psnr": "median PSNR of the trivial guess: the mean image of the predicted class",
    "class_mean_ssim": "median SSIM of the trivial guess",
    "itn_<name>_psnr": "median PSNR of the inverse network's estimates",
    "itn_<name>_ssim": "median SSIM of the inverse network's estimates",
    "itn_<name>_ssim_low": "lower end of the 95% interval of that median over test images (order statistics)",
    "itn_<name>_ssim_high": "upper end of the 95% interval of that median over test images (order statistics)",
    "itn_<name>_psnr_worst1": "PSNR that 1% of the estimates reach or exceed: the images that leak most",
    "itn_<name>_lpips": "median LPIPS of the inverse network's estimates, where it was asked for",
    "itn_<name>_accuracy": "share of the estimates that psi classifies correctly",
    "fr_attack_psnr": "median PSNR of what FR-Attack makes of pixel-based encryption, from protected images alone",
    "fr_attack_ssim": "median SSIM of what FR-Attack makes of it",
    "fr_attack_accuracy": "share of what FR-Attack makes of it that psi classifies correctly",
    "verdict": "hidden, partial, recovered or visible (see verdict_of)",
    "queries": "requests for a loss or a gradient, lessons and exams, that the user sent",
    "queried_images": "protected images in them",
    "sent_bytes": "bytes of arrays that the user sent for them",
    "received_bytes": "bytes of arrays that came back",
    "failure": "why a user has no result",
}
"""The columns of ``table.csv`` and ``table.parquet``; accuracies are in [0, 1]. A run keeps them in ``columns.md``."""


def _median(measured: Measured, measure: str) -> float:
    return float(getattr(measured, measure).median())


def verdict_of(result: AttackResult) -> str:
    """Say in a word how well a protection hid the test images.

    ``visible``: the protected image is itself like the plain one (median SSIM at least 0.5). ``recovered``: an attack's
    estimates are. ``hidden``: the best attack gains less than 1 dB and less than 0.05 SSIM, in the median, on the mean
    image of the predicted class, which whoever knows the label can draw. ``partial``: all between.
    """
    if _median(result.protected, "ssim") >= _SEEN_SSIM:
        return "visible"
    estimates = result.estimates.values()
    best = {measure: max(_median(e, measure) for e in estimates) for measure in ("psnr", "ssim")}
    if best["ssim"] >= _SEEN_SSIM:
        return "recovered"
    trivial = result.baselines["class_mean"]
    hidden = (
        best["psnr"] - _median(trivial, "psnr") < _HIDDEN_DB and best["ssim"] - _median(trivial, "ssim") < _HIDDEN_SSIM
    )
    return "hidden" if hidden else "partial"


def table_of(run: RunFolder, experiment: Experiment) -> pd.DataFrame:
    """Return one row a user and one a control, with the columns of :data:`COLUMNS`."""
    plain_accuracy = run.facts()["psi"]["plain_accuracy"]
    rows: list[dict[str, object]] = []
    for user in range(experiment.user_count):
        row: dict[str, object] = {"subject": user_name(user)}
        if experiment.users.settings:
            row["setting"] = experiment.setting_name(user)
        row |= _protection(experiment.user_config(user))
        subject = subject_of(experiment, user)
        published = run.user(user)
        result = None if published is None else run.attack(subject)
        if published is not None:
            row |= {name.replace("-", "_"): int(value) for name, value in published.facts.items()}
            if experiment.strategy.averages:
                del row["selected_epoch"]  # what is published is the last average
        if result is not None:
            row |= {"plain_accuracy": plain_accuracy, **_measures(result)}
        row["failure"] = "" if result is not None else run.failure(user_name(user)) or run.failure(subject)
        rows.append(row)
    control = run.attack(BLUR)
    if control is not None:
        rows.append({"subject": BLUR, "plain_accuracy": plain_accuracy, **_measures(control), "failure": ""})
    table = pd.DataFrame(rows)
    order = [column for pattern in COLUMNS for column in _matching(pattern, experiment) if column in table]
    return table[order].convert_dtypes()


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
    trivial = result.baselines["class_mean"]
    accuracy, count = result.protected.accuracy, len(result.protected.psnr)
    assert accuracy is not None
    accuracy_low, accuracy_high = share_interval(round(accuracy * count), count)
    row: dict[str, object] = {
        "accuracy": accuracy,
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "protected_psnr": _median(result.protected, "psnr"),
        "protected_ssim": _median(result.protected, "ssim"),
        "class_mean_psnr": _median(trivial, "psnr"),
        "class_mean_ssim": _median(trivial, "ssim"),
        "verdict": verdict_of(result),
    }
    for name, estimate in result.estimates.items():
        prefix = name if name == FR_ATTACK else f"itn_{name}"
        row |= {
            f"{prefix}_psnr": _median(estimate, "psnr"),
            f"{prefix}_ssim": _median(estimate, "ssim"),
            f"{prefix}_accuracy": estimate.accuracy,
        }
        if name == FR_ATTACK:
            continue
        row[f"{prefix}_ssim_low"], row[f"{prefix}_ssim_high"] = median_interval(estimate.ssim)
        row[f"{prefix}_psnr_worst1"] = float(estimate.psnr.quantile(0.99))
        if estimate.lpips is not None:
            row[f"{prefix}_lpips"] = _median(estimate, "lpips")
    return row


def write_report(run: RunFolder, experiment: Experiment) -> str:
    """Write table, figures and summary into the run folder, and return the summary."""
    table = table_of(run, experiment)
    write_table(run.path, table)
    write_atomically(run.path / "columns.md", columns_of(table))
    shown = shown_users(table, experiment)
    _draw(run, experiment, table, shown)
    summary = summary_of(run, experiment, table, shown, report_studies(run, experiment))
    write_atomically(run.path / "summary.md", summary)
    return summary


def columns_of(table: pd.DataFrame) -> str:
    """Return what each column of a run's or a sweep's table holds, in Markdown."""
    patterns = {re.escape(column).replace("<name>", ".+"): meaning for column, meaning in COLUMNS.items()}

    def meaning_of(column: str) -> str:
        found = (meaning for pattern, meaning in patterns.items() if re.fullmatch(pattern, column))
        return next(found, "what the run has of this axis of the sweep")

    rows = [[f"`{column}`", meaning_of(str(column))] for column in table.columns]
    return f"# Columns\n\nAccuracies are in [0, 1].\n\n{markdown(['column', 'holds'], rows)}\n"


def shown_users(table: pd.DataFrame, experiment: Experiment) -> list[int]:
    """Return the users that strips and summary show, in their order: all, or a few from most to least recovered.

    Recovered is measured by the best inverse network's median SSIM. The first and the last in this order are among
    them, the others at equal distances in between. Users without a result have no place in it.
    """
    users = list(range(experiment.user_count))
    ssims = [column for name in (itn.name for itn in experiment.attack.itns) if (column := f"itn_{name}_ssim") in table]
    if len(users) <= _MOST_SHOWN or not ssims:
        return users[:_MOST_SHOWN]
    ranked = table.loc[users, ssims].max(axis=1).dropna().sort_values(kind="stable").index.tolist()
    if not ranked:
        return users[:_MOST_SHOWN]
    last = len(ranked) - 1
    return sorted({ranked[round(place * last / (_MOST_SHOWN - 1))] for place in range(_MOST_SHOWN)})


def _draw(run: RunFolder, experiment: Experiment, table: pd.DataFrame, shown: list[int]) -> None:
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
    draw_table(figures, table)


def draw_table(figures: Path, table: pd.DataFrame) -> None:
    """Draw what a table shows: accuracy against what can be seen and, of networks of several alphas, against alpha."""
    measured = measured_users(table)
    if measured.empty:
        return
    draw_trade_off(figures / "trade-off", trade_offs(measured), HIDDEN)
    if "alpha" in measured and measured["alpha"].nunique() > 1:
        lines: dict[str, list[tuple[float, float]]] = {}
        for _, row in measured.dropna(subset=["alpha"]).iterrows():
            name = str(row["phi"]) + (f", width {row['width']}" if measured["width"].nunique() > 1 else "")
            lines.setdefault(name, []).append((float(row["alpha"]), 100 * float(row["accuracy"])))
        draw_accuracy(figures / "accuracy", lines, 100 * float(measured["plain_accuracy"].iloc[0]))


def measured_users(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of users that were attacked: neither the control's, nor those of users that failed."""
    return table[table["subject"] != BLUR].dropna(subset=["accuracy"]) if "accuracy" in table else table[:0]


def trade_offs(measured: pd.DataFrame) -> list[TradeOff]:
    """Return what each protection costs and keeps; ``measured`` is as of :func:`measured_users`, not empty."""
    gaps = 100 * (measured["accuracy"] - measured["plain_accuracy"])
    gains = best_ssim(measured) - measured["class_mean_ssim"]
    kinds = (
        measured["protection"].where(measured["phi"].isna(), measured["phi"])
        if "phi" in measured
        else (measured["protection"])
    )
    labels = measured["setting"] if "setting" in measured else measured["subject"].map(_shown)
    return [
        TradeOff(str(label), float(gap), float(gain), str(kind))
        for label, gap, gain, kind in zip(labels, gaps, gains, kinds, strict=True)
    ]


def best_ssim(measured: pd.DataFrame) -> "pd.Series[float]":
    """Return, for each row of a table, the median SSIM of the best that is to be had.

    That is an attack's estimate, or the protected image itself where it shows what it shows.
    """
    return measured[["protected_ssim", *(f"{attack}_ssim" for attack in attacks_in(measured))]].max(axis=1)


def _shown(subject: str) -> str:
    name, dash, number = subject.partition("-")
    return f"{name} {int(number)}" if dash and number.isdecimal() else subject


def _label(experiment: Experiment, subject: str) -> str:
    return ": ".join(filter(None, (_shown(subject), experiment.setting_name(user_of(subject)))))


def _strip_title(experiment: Experiment, subject: str) -> str:
    user = experiment.user_config(user_of(subject))
    if user.protection.kind != "network":
        return f"{experiment.name}, {_label(experiment, subject)}"
    return f"{experiment.name}, {_shown(subject)}: alpha {user.alpha:g}, {user.features.layer}"


def estimate_title(name: str) -> str:
    """Return what figures call the estimates of an inverse network, by its name, or of FR-Attack."""
    return "FR-Attack" if name == FR_ATTACK else f"ITN ({name})"


def boxes_of(experiment: Experiment, subject: str, result: AttackResult) -> list[Box]:
    """Return the PSNR boxes of one user, or of the control: protected images, every attack, the trivial guess."""
    label = "control: blur" if subject == BLUR else _label(experiment, subject)
    # A PSNR that is infinite has no place on an axis: images that nothing was done to get no box.
    untouched = float(result.protected.psnr.min()) >= PSNR_CAP
    return [
        *([] if untouched else [Box(label, result.protected.psnr, "protected")]),
        *(Box(label, estimate.psnr, estimate_title(name)) for name, estimate in result.estimates.items()),
        Box(label, result.baselines["class_mean"].psnr, "class-mean baseline"),
    ]


def _strips_over_alpha(run: RunFolder, experiment: Experiment) -> dict[str, list[StripRow]]:
    """Return what Fig. 5 shows, by what the networks have in common: plain images, then protected ones by rising alpha.

    Of several users with one alpha, the first is shown; where all have one, there is nothing to show.
    """
    found: dict[str, dict[float, AttackResult]] = {}
    for user in range(len(experiment.user_configs())):
        config = experiment.user_config(user)
        if config.protection.kind != "network":
            continue
        of_name = found.setdefault(f"{config.features.layer}-width-{config.width}", {})
        result = None if config.alpha in of_name else run.attack(subject_of(experiment, user))
        if result is not None:
            of_name[config.alpha] = result
    return {
        name: [
            StripRow("plain", next(iter(by_alpha.values())).pictures["plain"], None),
            *(StripRow(f"alpha {alpha:g}", by_alpha[alpha].pictures["protected"], None) for alpha in sorted(by_alpha)),
        ]
        for name, by_alpha in found.items()
        if len(by_alpha) > 1
    }


def _strips(result: AttackResult) -> list[StripRow]:
    def captions(measured: Measured) -> list[str]:
        return [f"{value:.2f} dB" for value in measured.psnr[: len(result.pictures["plain"])].tolist()]

    return [
        StripRow("plain", result.pictures["plain"], None),
        StripRow("protected", result.pictures["protected"], captions(result.protected)),
        *(
            StripRow(estimate_title(name), result.pictures[name], captions(estimate))
            for name, estimate in result.estimates.items()
        ),
    ]


def summary_of(
    run: RunFolder, experiment: Experiment, table: pd.DataFrame, shown: list[int], of_studies: list[str]
) -> str:
    """Return the run in words: what was run, the table in short, whether anything was hidden, and what studies say."""
    facts = run.facts()
    psi = facts["psi"]
    lines = [
        f"# {experiment.name}",
        "",
        *introduction(facts, experiment),
        "",
        _short_table(table, experiment, shown),
        "",
        *_left_out(len(shown), experiment),
        f"acc.: % of protected test images that psi classifies correctly (plain: {100 * psi['plain_accuracy']:.1f}). "
        "Pairs are PSNR in dB / SSIM, medians over the test images; of an ITN's estimates, also the % that psi "
        "classifies correctly. class mean: the trivial guess from the predicted label; a reconstruction counts "
        "for what it has beyond that.",
        *_conventional(experiment),
        "",
        *findings(table, experiment),
        *of_studies,
        "",
    ]
    return "\n".join(lines)


def introduction(facts: dict[str, Any], experiment: Experiment) -> list[str]:
    """Return what was run, in three sentences; ``facts`` is ``run.json``."""
    psi, user = facts["psi"], experiment.user
    return [
        f"{experiment.user_count} users ({experiment.strategy.describe()}, {experiment.users.partition.kind} X'), psi "
        f"{experiment.classifier.name} on {experiment.data.name}: {100 * psi['test_accuracy']:.2f}% of plain test "
        "images"
        f"{' (trained earlier)' if psi['reused'] else ''}.",
        f"h_theta: U-Net of width {user.width}, {user.training.epochs:g} epochs; alpha {user.alpha:g}, "
        f"phi {user.features.describe()}{'; but for what a setting changes' if experiment.users.settings else ''}.",
        f"Exchange {experiment.runtime.exchange}, {experiment.runtime.precision}, seed {experiment.seed}; "
        f"{facts['processor']}, {facts.get('seconds', 0):.0f} s.",
    ]


def _conventional(experiment: Experiment) -> list[str]:
    """Say what cannot be seen in the table of users whose protection is a key."""
    kinds = {config.protection.kind for config in experiment.user_configs() if config.needs_classifier}
    if not kinds:
        return []
    return [
        "",
        f"Images under {' and '.join(sorted(kinds))} encryption are classified by a classifier that the provider has "
        "trained on them, reconstructions by psi. Against a key, an ITN has pairs that a true attacker would need to "
        "have encrypted for it; FR-Attack (table.csv) has protected images alone.",
    ]


def _left_out(shown: int, experiment: Experiment) -> list[str]:
    if shown == experiment.user_count:
        return []
    return [
        f"Shown are {shown} of {experiment.user_count} users, those whose images are recovered best and least among "
        "them; all are in table.csv.",
        "",
    ]


def _short_table(table: pd.DataFrame, experiment: Experiment, shown: list[int]) -> str:
    names = [itn.name for itn in experiment.attack.itns]
    header = [
        "",
        *(["setting"] if experiment.users.settings else []),
        "images",
        "acc.",
        "protected",
        "class mean",
        *(f"ITN {name}" for name in names),
        "verdict",
    ]
    rows: list[list[str]] = []
    controls = list(range(experiment.user_count, len(table)))
    for _, row in table.loc[shown + controls].iterrows():
        who = [_shown(str(row["subject"]))]
        if experiment.users.settings:
            who.append("-" if pd.isna(row["setting"]) else str(row["setting"]))
        if pd.isna(row.get("accuracy")):
            rows.append([*who, *["-"] * (len(header) - len(who) - 1), "failed"])
            continue
        cells = [
            *who,
            "-" if pd.isna(row.get("images")) else str(row["images"]),
            f"{100 * row['accuracy']:.1f}",
            psnr_and_ssim(row, "protected"),
            psnr_and_ssim(row, "class_mean"),
        ]
        cells += [f"{psnr_and_ssim(row, f'itn_{n}')}/{100 * row[f'itn_{n}_accuracy']:.1f}" for n in names]
        rows.append([*cells, str(row["verdict"])])
    return markdown(header, rows)


def control_of(table: pd.DataFrame, experiment: Experiment) -> tuple[str, float, float, bool] | None:
    """Return what the positive control showed, or None where it has no result.

    Returns:
        the inverse network that does best on it, the median SSIM of blurred images and that of its estimates, and
        whether this is good enough for "hidden" to mean anything.
    """
    control = table[table["subject"] == BLUR]
    if control.empty:
        return None
    best = max(
        (itn.name for itn in experiment.attack.itns), key=lambda name: float(control[f"itn_{name}_ssim"].iloc[0])
    )
    before, after = float(control["protected_ssim"].iloc[0]), float(control[f"itn_{best}_ssim"].iloc[0])
    return best, before, after, after >= _CONTROL_SSIM and after > before


def findings(table: pd.DataFrame, experiment: Experiment) -> list[str]:
    """Return, as lines of a Markdown list, how many users were hidden, what weakens that, and how users are spread."""
    users = table[table["subject"] != BLUR]
    counts = users["verdict"].value_counts() if "verdict" in users else pd.Series(dtype=int)
    lines = [
        "- "
        + "; ".join(f"{count} of {len(users)} users: {verdict}" for verdict, count in counts.items())
        + ". (visible: the protected images themselves resemble the plain ones; recovered: an attack's estimates do; "
        "hidden: no attack gains 1 dB or 0.05 SSIM on the class mean.)"
    ]
    if experiment.strategy.publishes_one:
        lines.append("- All users publish the same theta: it was attacked once, and every row shows that attack.")
    elif experiment.strategy.averages:
        lines.append(
            "- All users publish the same weights, each with batch-norm statistics of its own: every user was attacked."
        )
    control = control_of(table, experiment)
    if control is not None:
        best, before, after, works = control
        lines.append(
            f"- Positive control: the {best} ITN brings blurred images from median SSIM {before:.3f} to {after:.3f}"
            + (", so it can recover what is there." if works else ': too weak for "hidden" to mean anything.')
        )
    else:
        lines.append('- The positive control has no result: "hidden" means nothing in this run.')
    if any(config.features.weights == "random" for config in experiment.user_configs()):
        lines.append("- phi has random weights: this run shows the machinery, not the paper's protection.")
    failed = users[users["failure"] != ""]
    lines += [f"- {row['subject']} failed: {row['failure']}" for _, row in failed[:_MOST_SHOWN].iterrows()]
    if len(failed) > _MOST_SHOWN:
        lines.append(f"- and {len(failed) - _MOST_SHOWN} more failed (table.csv says why)")
    return [*lines, *_spread(table, experiment)]


def _spread(table: pd.DataFrame, experiment: Experiment) -> list[str]:
    """Say how users are spread and who fares worst, where they are enough and have a theta each."""
    measured = measured_users(table)
    if len(measured) < _USERS_FOR_A_SPREAD or experiment.strategy.averages:
        return []
    users = measured.set_index("subject")
    accuracy = 100 * users["accuracy"].astype(float)
    ssim = users[[f"{attack}_ssim" for attack in attacks_in(users)]].max(axis=1).astype(float)

    def named(worst: "pd.Series[float]", form: str) -> str:
        return ", ".join(f"{_shown(str(subject))} ({value:{form}})" for subject, value in worst.items())

    return [
        f"- Over {len(users)} users, median [95% bootstrap interval over users]: accuracy "
        f"{with_interval(accuracy.median(), bootstrapped_median_interval(accuracy))}, best attack's SSIM "
        f"{with_interval(ssim.median(), bootstrapped_median_interval(ssim), '.2f')}. Recovered best: "
        f"{named(ssim.nlargest(_WORST_NAMED), '.2f')}; least accurate: "
        f"{named(accuracy.nsmallest(_WORST_NAMED), '.1f')}."
    ]
