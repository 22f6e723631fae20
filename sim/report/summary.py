"""A run in words: what was run, its table in short, and whether anything was hidden."""

from typing import Any, NamedTuple

import pandas as pd

from sim.config.experiment import Experiment
from sim.report.columns import attack_column, attacks_in, title_of
from sim.report.rest import moving_users
from sim.report.statistics import bootstrapped_median_interval
from sim.report.table import controls_of, measured_users, moved_users, users_of, verdict_counts
from sim.report.text import markdown, percent, psnr_and_ssim, templates, with_interval, with_range
from sim.run.environment import hardware
from sim.run.folder import RunFolder
from sim.run.subject import Subject

_CONTROL_SSIM = 0.8
_MOST_SHOWN = 20
"""Users in figures and summary; the table has all."""


def summary_of(
    run: RunFolder, experiment: Experiment, table: pd.DataFrame, shown: list[int], of_studies: list[str]
) -> str:
    """Return the run in words: what was run, the rows of ``shown`` users, whether anything was hidden, its studies."""
    short = markdown(_short_table(table, experiment, shown))
    return said("summary", experiment, run.facts(), table, shown, short, of_studies) + "\n"


def findings(table: pd.DataFrame, experiment: Experiment) -> list[str]:
    """Return, as lines of a Markdown list, how many users were hidden, what weakens that, and how users are spread."""
    return said("findings", experiment, table).split("\n")


def said(macro: str, *about: object) -> str:
    """Return what a macro of ``templates/words.md`` says."""
    environment = templates("sim.report")
    of_tables = (attack_ssims, control_of, measured_users, moved_users, moving_users, users_of, verdict_counts)
    asked = (*of_tables, Subject, bootstrapped_median_interval, hardware, with_interval, with_range)
    environment.globals |= {it.__name__: it for it in asked} | {"most_shown": _MOST_SHOWN}
    return str(getattr(environment.get_template("words.md").module, macro)(*about)).strip()


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
    ssims = attack_ssims(control)
    if ssims.empty:
        return None
    worst = int(ssims.max(axis=1).argmin())
    best = str(ssims.iloc[worst].astype(float).idxmax())
    before, after = float(control["protected_ssim"].iloc[worst]), float(ssims[best].iloc[worst])
    itn = best.removeprefix("itn_").removesuffix("_ssim")
    return Control(itn, before, after, after >= _CONTROL_SSIM and after > before)


def attack_ssims(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a table with the median SSIM of each attack's estimates."""
    return rows[[f"{attack}_ssim" for attack in attacks_in(rows)]]


def control_in_words(table: pd.DataFrame) -> str:
    """Return a sentence on what the positive control showed, and on what that means for "hidden"."""
    return said("on_control", control_of(table))


def _short_table(table: pd.DataFrame, experiment: Experiment, shown: list[int]) -> pd.DataFrame:
    """Return the rows of some users and of the control, with few columns, as texts."""
    itns = [attack_column(itn.name) for itn in experiment.attack.itns]
    setting = ["setting"] if experiment.users.settings else []

    def cells_of(row: "pd.Series[Any]") -> dict[str, str]:
        cells = {"": Subject.named(str(row["subject"])).title} | {name: row[name] for name in setting}
        if pd.isna(row.get("protected_psnr")):
            return cells | {"verdict": "failed"}
        cells |= {"images": "-" if pd.isna(row.get("images")) else str(row["images"]), "acc.": percent(row, "accuracy")}
        cells |= {title_of(name): psnr_and_ssim(row, name) for name in ("protected", "class_mean")}
        cells |= {title_of(itn): f"{psnr_and_ssim(row, itn)}/{percent(row, f'{itn}_accuracy')}" for itn in itns}
        return cells | {"verdict": str(row["verdict"])}

    rows = table.loc[[*shown, *controls_of(table).index]]
    columns = ["", *setting, "images", "acc.", *map(title_of, ["protected", "class_mean", *itns]), "verdict"]
    return pd.DataFrame([cells_of(row) for _, row in rows.iterrows()], columns=columns)
