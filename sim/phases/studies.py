"""Studies of several users: their parts are sent to evaluators, and what those find is kept."""

from logging import ERROR

from flwr.app import Message, RecordDict
from flwr.common.logger import log

from sim.exchange.job import job_content
from sim.exchange.payloads import StudyPart, decode_findings, decode_pictures, encode_study
from sim.phases.evaluation import failure_of
from sim.phases.roster import Roster
from sim.run.folder import part_name


def run_studies(roster: Roster) -> None:
    """Have evaluators do all parts of all studies; those that an earlier attempt has finished are skipped.

    A part that fails leaves a hole in the table, and a note of why.

    Raises:
        WorkerDied: a worker process of the simulation is gone.
    """
    run, experiment, published = roster.run, roster.job.experiment, roster.run.published()
    parts = [
        StudyPart(study.kind, part, users)
        for study in experiment.studies
        if (users := study.among(published))
        for part in study.parts(users, experiment.attack_seed)
    ]
    missing = [part for part in parts if run.findings(part.kind, part.part, part.published) is None]
    ended: list[StudyPart] = []
    run.forget_failed_parts()

    def show() -> None:
        left = len(missing) - len(ended)
        roster.board.show("studies", "studies", len(parts) - left, len(parts), studies=left)

    def submit(part: StudyPart) -> None:
        def message_to(node: int) -> Message:
            return Message(job_content(roster.job, study=encode_study(part)), node, "evaluate.study")

        def keep(content: RecordDict) -> None:
            # Pictures first: a part whose rows are there is done.
            run.keep_pictures(part.kind, part.part, decode_pictures(content))
            run.keep_findings(part.kind, part.part, part.published, decode_findings(content))

        def finished(reply: Message) -> None:
            reason = failure_of(reply, keep)
            if reason is not None:
                log(ERROR, "study %s, part %s failed: %s", part.kind, part.part, reason)
                run.keep_failure(part_name(part.kind, part.part), reason)
            ended.append(part)
            show()

        roster.relay.submit(roster.evaluators, message_to, finished)

    if missing:
        show()
        for part in missing:
            submit(part)
        with run.timing("studies_seconds"):
            roster.relay.run()
