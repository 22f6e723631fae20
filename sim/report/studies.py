"""What the studies of a run found: tables, pictures, sentences."""

import math

import pandas as pd

from roles.common.naming import user_name
from roles.common.weights import State
from roles.evaluator.measures import psnr
from roles.evaluator.results import Findings
from roles.evaluator.studies import StudyConfig
from roles.evaluator.study import HeatMap
from sim.config.experiment import Experiment
from sim.report.figures.strips import StripRow, draw_strips
from sim.report.figures.studies import draw_study
from sim.report.findings import findings_of
from sim.report.table import HIDDEN, HIDDEN_DB, measured_users
from sim.report.text import write_table
from sim.run.folder import RunFolder, part_name
from sim.run.subject import CONTROL, Subject

USER_COLUMNS = ("user", "attacker", "victim")
"""Columns that hold a user's number, which tables call by its name, or the name of a control."""


def study_table(study: StudyConfig, run: RunFolder, experiment: Experiment) -> pd.DataFrame:
    """Return the rows of a study's finished parts, with the columns that the study describes."""
    rows = sum(findings_of(study, run, experiment).values(), Findings())
    table = pd.DataFrame(rows, columns=list(study.columns))
    named = {column: table[column].map(_name) for column in USER_COLUMNS if column in table}
    return table.assign(**named).convert_dtypes()


def _name(user: int | str) -> str:
    """Return the name of a user; what is no user's has one."""
    return user if isinstance(user, str) else user_name(user)


def conclusion_of(study: StudyConfig, run: RunFolder, experiment: Experiment) -> str:
    """Say what the finished parts of a study amount to, and how many failed."""
    found = findings_of(study, run, experiment)
    rows = sum(found.values(), Findings())
    reasons = {part: reason for part in found if (reason := run.failure(part_name(study.kind, part)))}
    said = [study.conclusion(rows)] if rows else []
    for part, reason in list(reasons.items())[:1]:
        said.append(f"{len(reasons)} of {len(found)} parts failed; the first: {part} ({reason}).")
    return " ".join(said) or "There was no user it could be done with."


def _with_itn(study: StudyConfig, table: pd.DataFrame, run: RunFolder, experiment: Experiment) -> pd.DataFrame:
    """Add ``itn_ssim`` where the picture has a place for it: how well the run's own ITN does on the same images."""
    form = study.figure
    if isinstance(form, HeatMap) or not any("itn_ssim" in reference.columns for reference in form.references):
        return table
    whose = "victim" if "victim" in table else "user"
    itn, images = experiment.attack.itns[-1].name, getattr(study, "images", None)

    def found(name: str) -> float:
        subject = Subject.named(name)
        result = run.attack(subject if subject == CONTROL else Subject.of(experiment, subject.user))
        estimates = None if result is None else result.estimates.get(itn)
        return math.nan if estimates is None else float(estimates.ssim[:images].median())

    known = {name: found(name) for name in table[whose].unique()}
    return table.assign(itn_ssim=table[whose].map(known))


def _strips(pictures: State) -> list[StripRow]:
    """Return rows of pictures by name, plain and protected ones first, all but plain with their PSNR against these."""
    first = [name for name in ("plain", "protected") if name in pictures]
    shown = {name: pictures[name] for name in dict.fromkeys([*first, *pictures])}
    near = {name: psnr(images, shown["plain"]).tolist() for name, images in shown.items() if name != "plain"}
    return [
        StripRow(name, images, [f"{value:.1f} dB" for value in near[name]] if name in near else None)
        for name, images in shown.items()
    ]


def beyond_verdicts(run: RunFolder, experiment: Experiment, table: pd.DataFrame) -> list[str]:
    """Return, as lines of a Markdown list, which studies got more of users whom a run's table calls hidden.

    A verdict is by the run's inverse networks, attacks on keys and a ladder; other studies have no say in it.
    """
    users = measured_users(table)
    hidden, lines = set(users.loc[users["verdict"] == "hidden", "subject"]), list[str]()
    for study in experiment.studies:
        found = study_table(study, run, experiment)
        whose = next((column for column in ("victim", "user") if column in found), None)
        if study.kind == "ladder" or whose is None or "gain_ssim" not in found:
            continue
        gained = (found["gain_ssim"] >= HIDDEN[1]) | (found["gain_psnr"] >= HIDDEN_DB)
        more = found[gained & found[whose].isin(hidden)]
        if len(more):
            best = more.sort_values("gain_ssim").iloc[-1]
            gain = f"{best['gain_ssim']:+.2f} SSIM and {best['gain_psnr']:+.1f} dB over the trivial guess"
            lines.append(
                f"- **{study.kind} gets more than verdicts know**, of {more[whose].nunique()} hidden users; the most, "
                f"{gain}, of {best[whose]}."
            )
    return lines


def report_studies(run: RunFolder, experiment: Experiment) -> list[str]:
    """Write the table and the picture of every study, and return what they say as lines of a Markdown list."""
    for study in experiment.studies:
        table = study_table(study, run, experiment)
        write_table(run.path / "studies", table, study.kind)
        if len(table):
            shown = _with_itn(study, table, run, experiment)
            draw_study(run.path / "figures" / f"study-{study.kind}", study.figure, shown)
        for part in findings_of(study, run, experiment):
            if pictures := run.pictures(study.kind, part):
                draw_strips(run.path / "figures" / f"study-{study.kind}-strips-{part}", _strips(pictures))
    return [f"- {study.kind}: {conclusion_of(study, run, experiment)}" for study in experiment.studies]
