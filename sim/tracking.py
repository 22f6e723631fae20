"""A run in TensorBoard and MLflow, beside its folder: an addition that never costs the run its results.

TensorBoard shows every user as a run of its own, in ``tensorboard/`` of the run folder: its learning curve as soon as
it has published, measures and pictures at the end. MLflow shows the run as one run, all of it at the end: its config as
parameters, medians over users, the users' measures with the user's number as step, table, summary and figures. What is
shown of a resumed run takes the place of what an earlier attempt has shown.
"""

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from logging import WARNING
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from flwr.common.logger import log

from roles.evaluator.attack import AttackResult
from sim.config import Experiment, one_line
from sim.evaluator_node import BLUR
from sim.nodes import user_name
from sim.runs import RunFolder, subject_of

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_AT_ONCE = {"params": 100, "metrics": 1000}
"""How many of each MLflow takes in one call."""
_LONGEST_PARAM = 6000
_FILES = ("config.yaml", "table.csv", "table.parquet", "columns.md", "summary.md")


class Tracker:
    """Shows a run where its config asks for it; whatever goes wrong there is logged, and the run goes on."""

    def __init__(self, run: RunFolder, experiment: Experiment) -> None:
        self._run, self._experiment = run, experiment
        self._tensorboard, self._mlflow = experiment.tracking.tensorboard, experiment.tracking.mlflow

    def published(self, user: int) -> None:
        """Show the learning curve of a user that has published."""
        if self._tensorboard:
            _attempt("tensorboard", lambda: _write_curve(self._run, user))

    def finished(self) -> None:
        """Show the results, once the report is written."""
        if self._tensorboard:
            _attempt("tensorboard", lambda: _write_results(self._run, self._experiment))
        if self._mlflow:
            _attempt("mlflow", lambda: _log_run(self._run, self._experiment))


def _attempt(tracker: str, show: Callable[[], None]) -> None:
    try:
        show()
    except Exception as error:  # whatever a disk, a server or another project's code may raise
        log(
            WARNING,
            "tracking.%s: %s: %s (the run folder has everything)",
            tracker,
            type(error).__name__,
            one_line(error),
        )


def _numbers(row: "pd.Series[Any]") -> Iterator[tuple[str, float]]:
    """Yield the measures of a table's row, but for those that it lacks."""
    for column, value in row.items():
        if isinstance(value, Real) and not math.isnan(value):
            yield str(column), float(value)


# ---- TensorBoard -------------------------------------------------------------------------------------------------


def _events_of(run: RunFolder, subject: str, kind: str) -> Path:
    return run.path / "tensorboard" / subject / f"events.out.tfevents.{kind}"


def _write_events(run: RunFolder, subject: str, kind: str, fill: Callable[["SummaryWriter"], None]) -> None:
    """Write an event file, whole or not at all, in place of the one that an earlier attempt has written."""
    from torch.utils.tensorboard import SummaryWriter  # takes seconds, and is there for those alone who ask for it

    draft, path = run.path / "state" / "events", _events_of(run, subject, kind)
    shutil.rmtree(draft, ignore_errors=True)
    with SummaryWriter(draft) as writer:
        fill(writer)
    (written,) = draft.iterdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    written.replace(path)


def _write_curve(run: RunFolder, user: int) -> None:
    published = run.user(user)
    assert published is not None

    def fill(writer: "SummaryWriter") -> None:
        for row in published.curve:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    writer.add_scalar(f"curve/{name}", value, int(row["step"]))

    _write_events(run, user_name(user), "1-curve", fill)


def _write_results(run: RunFolder, experiment: Experiment) -> None:
    for user in range(experiment.user_count):
        # A run may have been killed after its user had published and before that was shown.
        if run.is_published(user) and not _events_of(run, user_name(user), "1-curve").exists():
            _write_curve(run, user)
    attacked = {user_name(user): subject_of(experiment, user) for user in range(experiment.user_count)} | {BLUR: BLUR}
    for subject, row in pd.read_parquet(run.path / "table.parquet").set_index("subject").iterrows():
        result = run.attack(attacked[str(subject)])
        if result is None:
            continue

        def fill(writer: "SummaryWriter", row: "pd.Series[Any]" = row, result: AttackResult = result) -> None:
            for column, value in _numbers(row):
                writer.add_scalar(f"result/{column}", value, 0)
            # As in the figures: a strip of the plain images, one of the protected ones, and one of each attack's.
            names = ["plain", "protected", *result.estimates]
            strips = [torch.cat(list(result.pictures[name]), dim=2) for name in names]
            writer.add_image("/".join(names), torch.cat(strips, dim=1), 0)

        _write_events(run, str(subject), "2-results", fill)


# ---- MLflow ------------------------------------------------------------------------------------------------------


def _log_run(run: RunFolder, experiment: Experiment) -> None:
    # Newer versions refuse a folder otherwise, which is what was asked for.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    asked = experiment.tracking.mlflow
    client = MlflowClient(asked if isinstance(asked, str) else (run.path.parent / "mlruns").as_uri())
    group = client.get_experiment_by_name(experiment.name)
    if before := run.facts().get("mlflow_run"):
        with contextlib.suppress(MlflowException):  # somebody has deleted it
            client.delete_run(before)
    identifier = client.create_run(
        client.create_experiment(experiment.name) if group is None else group.experiment_id,
        run_name=run.path.name,
        tags={"veilsim.run_folder": str(run.path)},
    ).info.run_id
    run.note({"mlflow_run": identifier})

    table = pd.read_parquet(run.path / "table.parquet")
    users, now = table[table["subject"] != BLUR], round(1000 * time.time())
    metrics = [Metric(f"median/{name}", value, now, 0) for name, value in _numbers(users.median(numeric_only=True))]
    for user, (_, row) in enumerate(users.iterrows()):
        metrics += [Metric(name, value, now, user) for name, value in _numbers(row)]
    params = [Param(key, value[:_LONGEST_PARAM]) for key, value in flattened(experiment.model_dump(mode="json"))]
    batches: dict[str, Any] = {"params": params, "metrics": metrics}
    for kind, items in batches.items():
        for start in range(0, len(items), _AT_ONCE[kind]):
            client.log_batch(identifier, **{kind: items[start : start + _AT_ONCE[kind]]})
    for name in _FILES:
        client.log_artifact(identifier, str(run.path / name))
    if (run.path / "figures").is_dir():
        client.log_artifacts(identifier, str(run.path / "figures"), "figures")
    client.set_terminated(identifier)


def flattened(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of a config by dotted key, as text; a list of plain values is one value.

    >>> list(flattened({"name": "a", "users": {"settings": [{"alpha": 0.1}], "sizes": [3, 4]}}))
    [('name', 'a'), ('users.settings.0.alpha', '0.1'), ('users.sizes', '[3, 4]')]
    """
    listed = isinstance(content, list) and any(isinstance(value, dict | list) for value in content)
    if isinstance(content, dict) or listed:
        for name, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from flattened(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, str(content)
