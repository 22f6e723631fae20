"""The ServerApp: an experiment from psi to report, phase by phase.

Read this file first: everything that happens in a run is called from :func:`run_experiment`, in order.
"""

import time
from collections.abc import Callable
from logging import ERROR, INFO
from pathlib import Path
from typing import cast

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from roles.common.naming import user_name
from roles.common.process import settle
from sim.config.checks import check
from sim.config.errors import in_our_words, one_line
from sim.config.experiment import Experiment
from sim.config.files import load_experiment
from sim.exchange.job import Job
from sim.exchange.load import ProviderLoad
from sim.exchange.messages import LOAD
from sim.exchange.payloads import decode_load
from sim.phases.classifier import endpoint_open, train_classifier
from sim.phases.evaluation import Evaluation
from sim.phases.roster import RunFailed, call_roll
from sim.phases.studies import run_studies
from sim.phases.users import train_alone, train_together
from sim.report.write import write_report
from sim.run.folder import RunFolder
from sim.run.ownership import claim, watch_owner
from sim.run.progress import Board, Status
from sim.run.progress_line import ProgressLine
from sim.run.subject import subjects_of
from sim.run.tracking import Tracker

app = ServerApp()

_LOG_INTERVAL_S = 20


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run config names.

    ``config`` is a YAML file, ``set`` holds overrides separated by spaces, ``run`` is the folder of a run that
    ``veilsim run`` has prepared (else one is made under ``runs/``), ``owner`` the process that started it.
    """
    settle()
    config = context.run_config
    watch_owner(int(cast(int, config["owner"])))
    nodes = len(list(grid.get_node_ids()))
    run = _open_run(str(config["run"]), str(config["config"]), str(config["set"]).split(), nodes)
    with claim(run.path, "server"):
        try:
            run_experiment(grid, run, run.experiment().with_users(nodes))
        except Exception as error:
            log(ERROR, "run %s failed: %s", run.path, error)
            Status("failed", error=one_line(error)).write(run.path)
            raise


def _open_run(run: str, config: str, overrides: list[str], nodes: int) -> RunFolder:
    if run:
        return RunFolder.open(Path(run))
    path = Path(config)
    if not path.is_absolute() and not path.exists():
        # Under `flwr run` the working directory is the SuperLink's: the configs travel with the app.
        path = Path(__file__).parent.parent / path
    loaded = load_experiment(path, overrides)
    with in_our_words(path):
        experiment = loaded.resolved().with_users(nodes)
    check(experiment, path)
    folder = Path("runs").resolve() / f"{experiment.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    log(INFO, "run folder: %s", folder)
    return RunFolder.create(folder, experiment)


def run_experiment(grid: Grid, run: RunFolder, experiment: Experiment) -> None:
    """Train psi, let users train against it, publish, attack, report; skip what an earlier attempt has finished.

    Raises:
        RunFailed: the nodes are not those that it needs, psi cannot be had or is another than in an earlier attempt, no
            user finished its training or, under a strategy that averages, a round of it, or psi has changed.
    """
    job = Job(experiment, run.path, first_round=run.finished_rounds() if experiment.strategy.averages else 0)
    tracker, load = Tracker(run, experiment), ProviderLoad(run.load())
    ahead = {"classifier": 1 + len(experiment.other_classifiers), "users": 1, "attacks": 1}
    itns = max(len(run.missing_itns(subject, experiment)) for subject in subjects_of(experiment))
    board = Board(run.path, ahead | {"studies": len(experiment.studies)}, max(1, itns))
    with run.timing("seconds") as note_seconds:
        board.show("starting", "starting Ray and its workers")
        roster = call_roll(grid, run, job, _ProgressLog(run, load, note_seconds).tell, load, board)
        digest = train_classifier(roster)
        with endpoint_open(roster):
            evaluation = Evaluation(roster, tracker.published)
            if experiment.strategy.averages:
                train_together(roster, evaluation)
            else:
                train_alone(roster, evaluation)
            if not evaluation.finish():
                raise RunFailed(f"no user finished its training; the first said: {run.failure(user_name(0))}")
            run_studies(roster)
        last = roster.ask_provider("query.psi")
        # A ledger holds what was asked in all attempts; what is relayed, the relay has counted.
        run.keep_load(decode_load(last.metric_records[LOAD]) or load.rows())
        if last.config_records["psi"]["digest"] != digest:
            raise RunFailed("psi has changed while users trained: the results of this run mean nothing")

    board.show("report", "writing the report")
    for line in write_report(run, experiment).splitlines():
        log(INFO, "%s", line)
    tracker.finished()
    for user in run.published():
        if not run.failure(user_name(user)):
            run.forget_training(user)
    run.forget_sessions()
    Status("complete").write(run.path)


class _ProgressLog:
    """Logs how far a run is, now and then: all that ``flwr run --stream`` shows of it.

    What the provider was asked and the time that it took are kept at the same times, for a run that is killed.
    """

    def __init__(self, run: RunFolder, load: ProviderLoad, note_seconds: Callable[[], None]) -> None:
        self._run, self._load, self._note_seconds = run, load, note_seconds
        self._line, self._last = ProgressLine(run.path), time.monotonic()

    def tell(self) -> None:
        """Log a line, if the last was some time ago."""
        if time.monotonic() - self._last >= _LOG_INTERVAL_S:
            self._last = time.monotonic()
            log(INFO, "%s", self._line.of(Status.read(self._run.path)))
            self._run.keep_load(self._load.rows())
            self._note_seconds()
