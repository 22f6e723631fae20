"""A run in words: what was run, its table in short, and whether anything was hidden."""

from typing import Any

import pandas as pd

from sim.config import Experiment
from sim.evaluator_node import BLUR
from sim.nodes import subject_title
from sim.result_table import measured_users, moved_users
from sim.runs import RunFolder, hardware
from sim.statistics import bootstrapped_median_interval
from sim.tables import attacks_in, markdown, psnr_and_ssim, with_interval, with_range

_CONTROL_SSIM = 0.8
_MOST_SHOWN = 20
"""Users in figures and summary; the table has all."""
_USERS_FOR_A_SPREAD, _WORST_NAMED = 5, 3


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
        "for what it has beyond that, or beyond the mean of all images where labels are so wrong that this is nearer.",
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
        f"{hardware(facts, experiment)}, {facts.get('seconds', 0):.0f} s.",
    ]


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


def findings(table: pd.DataFrame, experiment: Experiment) -> list[str]:
    """Return, as lines of a Markdown list, how many users were hidden, what weakens that, and how users are spread."""
    users = table[table["subject"] != BLUR]
    counts = users["verdict"].value_counts() if "verdict" in users else pd.Series(dtype=int)
    lines = [
        "- "
        + "; ".join(f"{count} of {len(users)} users: {verdict}" for verdict, count in counts.items())
        + ". (visible: the protected images themselves resemble the plain ones, beyond a trivial guess; recovered: an "
        "attack's estimates do; hidden: neither gains 1 dB or 0.05 SSIM on it.)"
    ]
    moved = moved_users(table)
    if len(moved):
        lines.append(
            f"- {len(moved)} of {len(users)} users move their images by a few pixels: moved back, the protected "
            f"pictures that are kept have a median SSIM of {with_range(moved['moved_ssim'], '.2f')} with plain ones. "
            "L_feat, PSNR and SSIM compare pixel by pixel; a person does not."
        )
    if experiment.strategy.publishes_one:
        lines.append("- All users publish the same theta: it was attacked once, and every row shows that attack.")
    elif experiment.strategy.averages:
        lines.append(
            "- All users publish the same weights, each with batch-norm statistics of its own: every user was attacked."
        )
    lines.append(f"- {control_in_words(table)}")
    if any(config.features.weights == "random" for config in experiment.user_configs()):
        lines.append("- phi has random weights: this run shows the machinery, not the paper's protection.")
    failed = users[users["failure"] != ""]
    lines += [f"- {row['subject']} failed: {row['failure']}" for _, row in failed[:_MOST_SHOWN].iterrows()]
    if len(failed) > _MOST_SHOWN:
        lines.append(f"- and {len(failed) - _MOST_SHOWN} more failed (table.csv says why)")
    return [*lines, *_spread(table, experiment)]


def control_of(table: pd.DataFrame) -> tuple[str, float, float, bool] | None:
    """Return what the positive control showed, or None where it has no result; of several controls, the worst.

    Returns:
        the inverse network that does best on it, the median SSIM of blurred images and that of its estimates, and
        whether this is good enough for "hidden" to mean anything.
    """
    control = table[table["subject"] == BLUR].dropna(axis="columns", how="all")
    ssims = [f"{attack}_ssim" for attack in attacks_in(control)]
    if control.empty or not ssims:
        return None
    worst = control.iloc[int(control[ssims].max(axis=1).argmin())]
    best = str(worst[ssims].astype(float).idxmax())
    before, after = float(worst["protected_ssim"]), float(worst[best])
    return best.removeprefix("itn_").removesuffix("_ssim"), before, after, after >= _CONTROL_SSIM and after > before


def control_in_words(table: pd.DataFrame) -> str:
    """Return a sentence on what the positive control showed, and on what that means for "hidden"."""
    control = control_of(table)
    if control is None:
        return 'The positive control has no result: "hidden" means nothing here.'
    best, before, after, works = control
    said = f"Positive control: the {best} ITN brings blurred images from median SSIM {before:.3f} to {after:.3f}"
    return said + (", so it can undo a blur." if works else ': too weak for "hidden" to mean anything.')


def _conventional(experiment: Experiment) -> list[str]:
    """Say what cannot be seen in the table of users whose protection is a key."""
    kinds = {config.protection.kind for config in experiment.user_configs() if config.needs_classifier}
    if not kinds:
        return []
    return [
        "",
        f"Images under {' and '.join(sorted(kinds))} encryption are classified by a classifier that the provider has "
        "trained on them, reconstructions by psi. Against a key, an ITN has pairs that a true attacker would need to "
        "have encrypted for it; FR-Attack has protected images alone, and a key that all images share is asked of ten "
        "known pairs (both in table.csv).",
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
        who = [subject_title(str(row["subject"]))]
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


def _spread(table: pd.DataFrame, experiment: Experiment) -> list[str]:
    """Say how users are spread and who fares worst, where they are enough and have a theta each."""
    measured = measured_users(table)
    if len(measured) < _USERS_FOR_A_SPREAD or experiment.strategy.averages:
        return []
    users = measured.set_index("subject")
    accuracy = 100 * users["accuracy"].astype(float)
    ssim = users[[f"{attack}_ssim" for attack in attacks_in(users)]].max(axis=1).astype(float)

    def named(worst: "pd.Series[float]", form: str) -> str:
        return ", ".join(f"{subject_title(str(subject))} ({value:{form}})" for subject, value in worst.items())

    return [
        f"- Over {len(users)} users, median [95% bootstrap interval over users]: accuracy "
        f"{with_interval(accuracy.median(), bootstrapped_median_interval(accuracy))}, best attack's SSIM "
        f"{with_interval(ssim.median(), bootstrapped_median_interval(ssim), '.2f')}. Recovered best: "
        f"{named(ssim.nlargest(_WORST_NAMED), '.2f')}; least accurate: "
        f"{named(accuracy.nsmallest(_WORST_NAMED), '.1f')}."
    ]
