"""A run in words: what was run, its table in short, and whether anything was hidden."""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import pandas as pd

from roles.common.naming import user_name
from roles.evaluator.attacks import CIPHER_ATTACKS
from sim.config.experiment import Experiment
from sim.report.columns import LADDER, attack_column, attacks_in, title_of, verdicts_in_words
from sim.report.ladder import PLATEAU
from sim.report.rest import moving_users
from sim.report.statistics import bootstrapped_median_interval
from sim.report.table import (
    GUESSES,
    attacked,
    best_attack,
    controls_of,
    extremes,
    measured_users,
    row_of,
    seen_through_users,
    users_of,
    verdict_counts,
)
from sim.report.text import REPORT, markdown, number, percent, templates, with_interval, with_range
from sim.run.environment import hardware
from sim.run.folder import RunFolder
from sim.run.subject import Subject

_CONTROL_SSIM = 0.8
_MOST_SHOWN, _MOST_NAMED = 20, 3
"""Users in figures and summary, of whom the table has all, and those that a headline calls by their numbers."""
_FORMS = {"psnr": ".1f", "ssim": ".2f"}


def summary_of(
    run: RunFolder, experiment: Experiment, table: pd.DataFrame, shown: list[int], of_studies: list[str]
) -> str:
    """Return the run in words: what was run, the rows of ``shown`` users, whether anything was hidden, its studies."""
    short = markdown(_short_table(table, experiment, shown))
    return said("summary", experiment, run.facts(), table, shown, short, of_studies) + "\n"


def findings(table: pd.DataFrame, experiment: Experiment) -> list[str]:
    """Return, as lines of a Markdown list, how many users were hidden, what weakens that, and how users are spread."""
    return said("findings", experiment, table).split("\n")


def headline(table: pd.DataFrame, facts: Mapping[str, Any]) -> str:
    """Return, in a few sentences, who is protected, at what accuracy, and how sure that is."""
    return said("headline", facts, table)


def extremes_in_words(table: pd.DataFrame) -> dict[str, str]:
    """Return what became of the users whose images are given away most and least (see :func:`extremes`), by name."""
    names = extremes(table)
    hows = ("most", "least") if len(names) > 1 else ("",)
    return {name: said("extreme", row_of(table, name), how) for name, how in zip(names, hows, strict=False)}


def said(macro: str, *about: object) -> str:
    """Return what a macro of ``templates/words.md`` says."""
    return str(getattr(_words(), macro)(*about)).strip()


@cache
def _words() -> Any:
    """Return the macros, compiled once: a page of many runs asks for them hundreds of times."""
    environment = templates("sim.report")
    of_tables = (
        attack_ssims,
        attacked,
        control_of,
        measured_users,
        moving_users,
        seen_through_users,
        users_of,
        verdict_counts,
    )
    own = (in_percent, judged, not_at_rest, said_of, verdict_in_words, verdicts_in_words, who, with_best)
    asked = (*of_tables, *own, Subject, bootstrapped_median_interval, hardware, with_interval, with_range)
    environment.globals |= {it.__name__: it for it in asked}
    environment.globals |= {"most_shown": _MOST_SHOWN, "cipher_attacks": CIPHER_ATTACKS, "report": REPORT}
    environment.filters |= {"user_name": user_name, "hardware_of": hardware}
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    return environment.get_template("words.md").module


def who(rows: pd.DataFrame, total: int) -> str:
    """Return who the rows of a table are, of ``total`` users: by number if they are few.

    >>> rows = pd.DataFrame({"subject": ["user-0001", "user-0003"]})
    >>> who(rows, 9), who(rows, 2), who(rows[:1], 9), who(rows[:1], 1)
    ('users 1 and 3', 'both users', 'user 1', 'the user')
    """
    names = [Subject.named(name).title.removeprefix("user ") for name in rows["subject"]]
    if len(names) == total:
        return {1: "the user", 2: "both users"}.get(total, f"all {total:,} users")
    if len(names) == 1:
        return f"user {names[0]}"
    return f"users {', '.join(names[:-1])} and {names[-1]}" if len(names) <= _MOST_NAMED else f"{len(names):,} users"


def said_of(table: pd.DataFrame, verdict: str) -> str:
    """Return who has a verdict, as :func:`who` does; empty if nobody has."""
    rows = users_of(table)
    own = rows[rows["verdict"] == verdict] if "verdict" in rows else rows[:0]
    return who(own, len(rows)) if len(own) else ""


def verdict_in_words(row: "pd.Series[Any]") -> str:
    """Return the verdict of a row and, where a larger budget of the attacker may change it, a word on that.

    >>> verdict_in_words(pd.Series({"verdict": "hidden", "ladder": "still rising"}))
    'hidden, still rising'
    """
    # A user without a ladder has NA there, which compares with nothing.
    ladder = row.get(LADDER)
    return str(row["verdict"]) if pd.isna(ladder) or ladder == PLATEAU else f"{row['verdict']}, {ladder}"


def not_at_rest(table: pd.DataFrame) -> str:
    """Return for whom a ladder of attacks has come to no plateau, as :func:`who` does; empty if for nobody."""
    users = measured_users(table)
    rising = users[users[LADDER].notna() & (users[LADDER] != PLATEAU)] if LADDER in users else users[:0]
    return who(rising, len(users_of(table))) if len(rising) else ""


def with_best(rows: pd.DataFrame, measure: str) -> "pd.Series[float]":
    """Return what the best attack on each row has of a measure, where it has any."""
    values = {index: row.get(f"{best_attack(row)}_{measure}") for index, row in attacked(rows).iterrows()}
    return pd.Series(values, dtype=float).dropna()


def in_percent(shares: "pd.Series[float]") -> str:
    """Return the median of shares and, where they differ, the lowest and the highest, in percent.

    >>> in_percent(pd.Series([0.108, 0.757, 0.925])), in_percent(pd.Series([0.5]))
    ('75.7% (10.8 to 92.5)', '50.0%')
    """
    percent = 100 * shares.dropna()
    spread = percent.round(1).nunique() > 1
    return f"{percent.median():.1f}%" + (f" ({percent.min():.1f} to {percent.max():.1f})" if spread else "")


def shown_users(table: pd.DataFrame, experiment: Experiment) -> list[int]:
    """Return the users that strips and summary show, in their order: all, or a few from most to least recovered.

    Recovered is measured by the best inverse network's median SSIM. The first and the last in this order are among
    them, the others at equal distances in between. Users without a result have no place in it.
    """
    users = list(range(experiment.user_count))
    ssims = [key for itn in experiment.attack.itns if (key := f"{attack_column(itn.name)}_ssim") in table]
    ranked = table.loc[users, ssims].max(axis=1).dropna().sort_values(kind="stable").index.tolist()
    if len(users) <= _MOST_SHOWN or not ranked:
        return users[:_MOST_SHOWN]
    return sorted({ranked[round(place * (len(ranked) - 1) / (_MOST_SHOWN - 1))] for place in range(_MOST_SHOWN)})


class Control(NamedTuple):
    """What the positive control showed.

    ``before`` is the median SSIM of blurred images, ``after`` that of the estimates of ``itn``, the inverse network
    that does best on them; ``works`` says whether this is good enough for "hidden" to mean anything.
    """

    itn: str
    before: float
    after: float
    works: bool


def control_of(table: pd.DataFrame) -> Control | None:
    """Return what the positive control showed, or None where it has no result; of several controls, the worst."""
    control = controls_of(table).dropna(axis="columns", how="all")
    # What the run's own inverse networks make of it; what a ladder does, its study says.
    ssims = attack_ssims(control).filter(regex="^itn_")
    if ssims.empty:
        return None
    worst = int(ssims.max(axis=1).argmin())
    best = str(ssims.iloc[worst].astype(float).idxmax())
    before, after = float(control["protected_ssim"].iloc[worst]), float(ssims[best].iloc[worst])
    itn = best.removeprefix("itn_").removesuffix("_ssim")
    return Control(itn, before, after, after >= _CONTROL_SSIM and after > before)


def control_in_a_word(table: pd.DataFrame) -> str:
    """Return whether the positive control works, too short for more."""
    control = control_of(table)
    return "-" if control is None else "works" if control.works else "too weak"


def attack_ssims(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a table with the median SSIM of each attack's estimates."""
    return rows[[f"{attack}_ssim" for attack in attacks_in(rows)]]


def control_in_words(table: pd.DataFrame) -> str:
    """Return a sentence on what the positive control showed, and on what that means for "hidden"."""
    return said("on_control", control_of(table))


def judged(table: pd.DataFrame) -> bool:
    """Return whether a classifier that is not psi was asked what images show."""
    return "protected_recognised" in table


def _short_table(table: pd.DataFrame, experiment: Experiment, shown: list[int]) -> pd.DataFrame:
    """Return the rows of some users, of the trivial guess and of the control, as texts; narrow, for a terminal."""
    setting, labelled = experiment.users.settings, experiment.attack.labels
    recognised = "recognised" if judged(table) else "accuracy"

    def cells_of(row: "pd.Series[Any]") -> dict[str, str]:
        cells = {"": Subject.named(str(row["subject"])).title} | ({"setting": row["setting"]} if setting else {})
        if pd.isna(row.get("protected_psnr")):
            return cells | {"verdict": "failed"}
        best = best_attack(row)
        cells |= {"acc.": percent(row, "accuracy"), "verdict": verdict_in_words(row)}
        cells |= {"given away": percent(row, "exposed"), "shown": percent(row, "shown")}
        cells |= {"best attack": title_of(best), "PSNR": number(row, f"{best}_psnr", ".1f")}
        return cells | {"SSIM": number(row, f"{best}_ssim", ".2f"), "recognised": percent(row, f"{best}_{recognised}")}

    rows = [cells_of(row) for _, row in table.loc[shown].iterrows()]
    for guess in [name for name in GUESSES if f"{name}_psnr" in table][:1]:
        first, cells = attacked(table).iloc[0], {"": "trivial guess", "best attack": title_of(guess)}
        rows.append(cells | {of.upper(): number(first, f"{guess}_{of}", form) for of, form in _FORMS.items()})
    for _, row in controls_of(table).iterrows():
        rows.append(cells_of(row) | {"": "control: blur", "setting": "-", "verdict": control_in_a_word(table)})
    columns = ["", *(["setting"] if setting else []), *(["acc."] if labelled else []), "verdict", "given away", "shown"]
    columns += ["best attack", "PSNR", "SSIM", *(["recognised"] if labelled else [])]
    return pd.DataFrame(rows, columns=columns)
