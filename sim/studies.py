"""Studies in a run: their parts are sent to evaluators, and their rows become tables and pictures."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from logging import ERROR

import pandas as pd
from flwr.app import Message
from flwr.common.logger import log

from roles.common.seeds import derived_seed
from roles.evaluator.studies import StudyConfig
from sim.config import Experiment
from sim.evaluation import failure_of
from sim.messages import Job, job_content
from sim.nodes import user_name
from sim.progress import Status
from sim.relay import Relay
from sim.result_messages import decode_findings, encode_published
from sim.runs import RunFolder
from sim.study_figures import draw_study
from sim.tables import write_table

_USER_COLUMNS = ("user", "attacker", "victim")
"""Columns that hold a user's number, which tables call by its name."""


def parts_of(study: StudyConfig, run: RunFolder, experiment: Experiment) -> list[str]:
    """Return the parts of a study, given who has published."""
    return study.parts(_published(run, experiment), derived_seed(experiment.seed, "attack"))


def _published(run: RunFolder, experiment: Experiment) -> list[int]:
    return [user for user in range(experiment.user_count) if run.is_published(user)]


def run_studies(relay: Relay, evaluators: Sequence[int], run: RunFolder, job: Job) -> None:
    """Have evaluators do all parts of all studies; those that an earlier attempt has finished are skipped.

    A part that fails leaves a hole in the table, and a note of why.

    Raises:
        WorkerDied: a worker process of the simulation is gone.
    """
    experiment, began = job.experiment, time.time()
    published = _published(run, experiment)
    todo = [(study.kind, part) for study in experiment.studies for part in parts_of(study, run, experiment)]
    missing = [(kind, part) for kind, part in todo if run.findings(kind, part) is None]
    if not missing:
        return
    done = len(todo) - len(missing)

    def message_to(node: int, kind: str, part: str) -> Message:
        content = job_content(replace(job, subject=f"{kind}/{part}"), published=encode_published(published))
        return Message(content, node, "evaluate.study")

    def finished(reply: Message, kind: str, part: str) -> None:
        nonlocal done
        name = f"study-{kind}-{part}"
        reason = failure_of(reply, lambda content: run.keep_findings(kind, part, decode_findings(content)))
        if reason is None:
            run.forget_failure(name)
        else:
            log(ERROR, "study %s, part %s failed: %s", kind, part, reason)
            run.keep_failure(name, reason)
        done += 1
        Status("studies", done, len(todo), "parts").write(run.path)

    Status("studies", done, len(todo), "parts").write(run.path)
    for kind, part in missing:
        relay.submit(evaluators, partial(message_to, kind=kind, part=part), partial(finished, kind=kind, part=part))
    relay.run()
    run.add_seconds("studies_seconds", time.time() - began)


def study_table(study: StudyConfig, run: RunFolder, experiment: Experiment) -> pd.DataFrame:
    """Return the rows of a study's finished parts, with the columns that the study describes."""
    found = (run.findings(study.kind, part) for part in parts_of(study, run, experiment))
    table = pd.DataFrame([row for findings in found if findings is not None for row in findings.rows])
    table = table.reindex(columns=list(study.columns))
    for column in _USER_COLUMNS:
        if column in table:
            table[column] = table[column].map(user_name)
    return table.convert_dtypes()


def conclusion_of(study: StudyConfig, run: RunFolder, experiment: Experiment) -> str:
    """Say what the finished parts of a study amount to, and how many failed."""
    parts = parts_of(study, run, experiment)
    found = [findings for part in parts if (findings := run.findings(study.kind, part)) is not None]
    rows = [row for findings in found for row in findings.rows]
    failed = [(part, run.failure(f"study-{study.kind}-{part}")) for part in parts]
    reasons = [f"{part} ({reason})" for part, reason in failed if reason]
    said = [study.conclusion(rows)] if rows else []
    if reasons:
        said.append(f"{len(reasons)} of {len(parts)} parts failed; the first: {reasons[0]}.")
    return " ".join(said) or "There was no user it could be done with."


def report_studies(run: RunFolder, experiment: Experiment) -> list[str]:
    """Write the table and the picture of every study, and return what they say as lines of a summary."""
    lines: list[str] = []
    for study in experiment.studies:
        table = study_table(study, run, experiment)
        write_table(run.path / "studies", table, study.kind)
        if len(table):
            draw_study(run.path / "figures" / f"study-{study.kind}", study.figure, table)
        lines.append(f"- {study.kind}: {conclusion_of(study, run, experiment)}")
    return lines
