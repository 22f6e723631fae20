"""Studies in a run: their parts are sent to evaluators, and their rows become tables and pictures."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from logging import ERROR

import pandas as pd
from flwr.app import Message
from flwr.common.logger import log

from roles.common.seeds import derived_seed
from roles.evaluator.studies import StudyConfig
from roles.evaluator.study import Row
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
_FAILURE = "study-"
"""What the name of a failure of a part begins with."""


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
    experiment, published = job.experiment, _published(run, job.experiment)
    todo = [(study.kind, part) for study in experiment.studies for part in parts_of(study, run, experiment)]
    missing = [(kind, part) for kind, part in todo if run.findings(kind, part, published) is None]
    # What failed in an earlier attempt is tried again, or is no part any more, now that others have published.
    for name in run.failures():
        if name.startswith(_FAILURE):
            run.forget_failure(name)
    if not missing:
        return
    done = len(todo) - len(missing)

    def message_to(node: int, kind: str, part: str) -> Message:
        content = job_content(replace(job, subject=f"{kind}/{part}"), published=encode_published(published))
        return Message(content, node, "evaluate.study")

    def finished(reply: Message, kind: str, part: str) -> None:
        nonlocal done
        reason = failure_of(reply, lambda content: run.keep_findings(kind, part, published, decode_findings(content)))
        if reason is not None:
            log(ERROR, "study %s, part %s failed: %s", kind, part, reason)
            run.keep_failure(f"{_FAILURE}{kind}-{part}", reason)
        done += 1
        Status("studies", done, len(todo), "parts").write(run.path)

    Status("studies", done, len(todo), "parts").write(run.path)
    for kind, part in missing:
        relay.submit(evaluators, partial(message_to, kind=kind, part=part), partial(finished, kind=kind, part=part))
    with run.timing("studies_seconds"):
        relay.run()


def _rows_found(study: StudyConfig, run: RunFolder, experiment: Experiment) -> list[Row]:
    published = _published(run, experiment)
    found = (run.findings(study.kind, part, published) for part in parts_of(study, run, experiment))
    return [row for findings in found if findings is not None for row in findings]


def study_table(study: StudyConfig, run: RunFolder, experiment: Experiment) -> pd.DataFrame:
    """Return the rows of a study's finished parts, with the columns that the study describes."""
    table = pd.DataFrame(_rows_found(study, run, experiment))
    table = table.reindex(columns=list(study.columns))
    for column in _USER_COLUMNS:
        if column in table:
            table[column] = table[column].map(user_name)
    return table.convert_dtypes()


def conclusion_of(study: StudyConfig, run: RunFolder, experiment: Experiment) -> str:
    """Say what the finished parts of a study amount to, and how many failed."""
    parts, rows = parts_of(study, run, experiment), _rows_found(study, run, experiment)
    failed = [(part, run.failure(f"{_FAILURE}{study.kind}-{part}")) for part in parts]
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
