"""A run in TensorBoard and MLflow, beside its folder: an addition that never costs the run its results.

TensorBoard shows every user as a run of its own, and its learning curve as soon as it has published. MLflow shows the
run as one run, at its end, with the user's number as step of its measures. A resumed run takes its earlier one's place.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging import WARNING
from math import isnan
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from flwr.common.logger import log

from roles.common.naming import user_name
from sim.config.errors import one_line
from sim.config.experiment import Experiment
from sim.run.folder import RunFolder
from sim.run.subject import CONTROL, Subject
from sim.run.tables import read_table

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FILES = ("config.yaml", "table.csv", "table.parquet", "columns.md", "summary.md")


@dataclass(frozen=True)
class Tracker:
    """Shows a run where its config asks for it; whatever goes wrong there is logged, and the run goes on."""

    run: RunFolder
    experiment: Experiment

    def published(self, user: int) -> None:
        """Show the learning curve of a user that has published."""
        self._show("tensorboard", lambda: _write_curve(self.run, user))

    def finished(self) -> None:
        """Show the results, once the report is written."""
        self._show("tensorboard", lambda: _write_results(self.run, self.experiment))
        self._show("mlflow", lambda: _log_run(self.run, self.experiment))

    def _show(self, tracker: str, show: Callable[[], None]) -> None:
        try:
            if getattr(self.experiment.tracking, tracker):
                show()
        except Exception as error:  # whatever a disk, a server or another project's code may raise
            text = "tracking.%s: %s: %s (the run folder has everything)"
            log(WARNING, text, tracker, type(error).__name__, one_line(error))


def _numbers(row: "pd.Series[Any]") -> dict[str, float]:
    """Return the measures of a table's row, but for those that it lacks."""
    return {str(name): float(value) for name, value in row.items() if isinstance(value, Real) and not isnan(value)}


# ---- TensorBoard -------------------------------------------------------------------------------------------------


def _events_of(run: RunFolder, name: str, kind: str) -> Path:
    return run.path / "tensorboard" / name / f"events.out.tfevents.{kind}"


@contextmanager
def _event_file(run: RunFolder, name: str, kind: str) -> Iterator["SummaryWriter"]:
    """Write an event file, whole or not at all, in place of the one that an earlier attempt has written."""
    from torch.utils.tensorboard import SummaryWriter  # takes seconds, and is there for those alone who ask for it

    draft, path = run.path / "state" / "events", _events_of(run, name, kind)
    shutil.rmtree(draft, ignore_errors=True)
    with SummaryWriter(draft) as writer:
        yield writer
    (written,) = draft.iterdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    written.replace(path)


def _write_curve(run: RunFolder, user: int) -> None:
    published = run.user(user)
    assert published is not None
    with _event_file(run, user_name(user), "1-curve") as writer:
        for row in published.curve:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    writer.add_scalar(f"curve/{name}", value, int(row["step"]))


def _write_results(run: RunFolder, experiment: Experiment) -> None:
    for user in run.published():
        # A run may have been killed after its user had published and before that was shown.
        if not _events_of(run, user_name(user), "1-curve").exists():
            _write_curve(run, user)
    subjects = {user_name(user): Subject.of(experiment, user) for user in range(experiment.user_count)}
    subjects[CONTROL.name] = CONTROL
    for name, row in read_table(run.path / "table.parquet").set_index("subject").iterrows():
        result = run.attack(subjects[str(name)])
        if result is None:
            continue
        with _event_file(run, str(name), "2-results") as writer:
            for column, value in _numbers(row).items():
                writer.add_scalar(f"result/{column}", value, 0)
            # As in the figures: a strip of the plain images, one of the protected ones, and one of each attack's.
            names = ["plain", "protected", *result.estimates]
            strips = [torch.cat(list(result.pictures[name]), dim=2) for name in names]
            writer.add_image("/".join(names), torch.cat(strips, dim=1), 0)


# ---- MLflow ------------------------------------------------------------------------------------------------------


def _log_run(run: RunFolder, experiment: Experiment) -> None:
    # Newer versions refuse a folder otherwise, which is what was asked for.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    asked = experiment.tracking.mlflow
    mlflow.set_tracking_uri(asked if isinstance(asked, str) else (run.path.parent / "mlruns").as_uri())
    mlflow.set_experiment(experiment.name)
    if before := run.facts().get("mlflow_run"):
        with suppress(mlflow.MlflowException):  # somebody has deleted it
            mlflow.delete_run(before)
    table = read_table(run.path / "table.parquet")
    users, now = table[table["subject"] != CONTROL.name], round(1000 * time.time())
    medians = _numbers(users.median(numeric_only=True))
    metrics = [mlflow.entities.Metric(f"median/{name}", value, now, 0) for name, value in medians.items()]
    for user, (_, row) in enumerate(users.iterrows()):
        metrics += [mlflow.entities.Metric(name, value, now, user) for name, value in _numbers(row).items()]
    with mlflow.start_run(run_name=run.path.name, tags={"veilsim.run_folder": str(run.path)}) as shown:
        run.note({"mlflow_run": shown.info.run_id})
        mlflow.log_params(dict(flattened(experiment.model_dump(mode="json"))))
        mlflow.MlflowClient().log_batch(shown.info.run_id, metrics)
        for name in _FILES:
            mlflow.log_artifact(str(run.path / name))
        if (run.path / "figures").is_dir():
            mlflow.log_artifacts(str(run.path / "figures"), "figures")


def flattened(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a config by dotted key; a list of plain values is one value.

    >>> list(flattened({"name": "a", "users": {"settings": [{"alpha": 0.1}], "sizes": [3, 4]}}))
    [('name', 'a'), ('users.settings.0.alpha', 0.1), ('users.sizes', [3, 4])]
    """
    if isinstance(content, list) and any(isinstance(value, dict | list) for value in content):
        content = dict(enumerate(content))
    if isinstance(content, dict):
        for name, value in content.items():
            yield from flattened(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, content
