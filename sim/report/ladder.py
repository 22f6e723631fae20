"""What the study of a ladder says of each subject of a run's table."""

from roles.common.naming import user_name
from roles.evaluator.results import Findings
from roles.evaluator.studies.ladder import Ladder, climbs
from sim.config.experiment import Experiment
from sim.report.columns import LADDER
from sim.report.findings import findings_of
from sim.run.folder import RunFolder

_MEASURES = ("psnr", "ssim", "recovered", "recognised", "retrieved")
PLATEAU, RISING, FELL = "plateau", "still rising", "top rung fell behind"


def ladders_of(run: RunFolder, experiment: Experiment) -> dict[str, dict[str, object]]:
    """Return, by the name of a user or control, the columns of its ladder: of its best rung, and if it still rises.

    Empty where the run has no such study, or none of its parts is finished.
    """
    study = next((study for study in experiment.studies if isinstance(study, Ladder)), None)
    if study is None:
        return {}
    rows = sum(findings_of(study, run, experiment).values(), Findings())
    found: dict[str, dict[str, object]] = {}
    for whose, climb in climbs(rows, len(study.rungs)).items():
        name = whose if isinstance(whose, str) else user_name(whose)
        found[name] = {f"{LADDER}_{of}": climb.best[of] for of in _MEASURES if of in climb.best}
        ended = PLATEAU if climb.plateau else FELL if climb.fell else RISING
        found[name] |= {f"{LADDER}_rung": climb.best["rung"], LADDER: ended}
    return found
