"""What the studies of a run have found so far."""

from roles.evaluator.results import Findings
from roles.evaluator.studies import StudyConfig
from sim.config.experiment import Experiment
from sim.run.folder import RunFolder


def findings_of(study: StudyConfig, run: RunFolder, experiment: Experiment) -> dict[str, Findings]:
    """Return the rows that each part of a study has found; none of a part that is not finished."""
    users = study.among(run.published())
    parts = study.parts(users, experiment.attack_seed) if users else []
    return {part: run.findings(study.kind, part, users) or [] for part in parts}
