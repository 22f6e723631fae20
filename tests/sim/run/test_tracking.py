"""A run in TensorBoard and MLflow: what is shown, once, and what goes wrong there costs nothing."""

import shutil
import time
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from roles.evaluator.results import AttackResult, Measured, Seen
from sim.config.experiment import Experiment
from sim.report.text import write_table
from sim.run.folder import Publication, RunFolder
from sim.run.subject import CONTROL, Subject
from sim.run.tracking import Tracker

USERS = 3


def measured(count: int) -> Measured:
    return Measured(torch.full((count,), 20.0), torch.full((count,), 0.5), None, 0.5)


def result() -> AttackResult:
    pictures = {name: torch.full((4, 3, 8, 8), 99, dtype=torch.uint8) for name in ("plain", "protected", "itn")}
    seen = Seen(torch.zeros(6), torch.zeros(6), 0, 0)
    return AttackResult(measured(6), seen, {"itn": measured(6)}, {"class_mean": measured(6)}, {}, pictures)


@pytest.fixture
def run(experiment: Experiment, tmp_path: Path) -> RunFolder:
    """A run whose users have published, been attacked, and stand in the table; the last has failed."""
    partition = {"kind": "sizes", "sizes": [24, 36, 12]}
    users = {"count": USERS, "partition": partition, "settings": [{"alpha": 0.3}, {"width": 3}]}
    experiment = Experiment.model_validate(experiment.model_dump() | {"users": users})
    run = RunFolder.create(tmp_path / "runs" / "the-run", experiment)
    for user in range(USERS - 1):
        curve = [{"epoch": 1 + n, "step": 5 * (1 + n), "lr": 0.1, "train_loss": 2 - n + user} for n in range(2)]
        run.keep_user(user, {}, Publication({"images": 24}, curve))
        run.keep_attack(Subject("user", user), result())
    run.keep_attack(CONTROL, result())
    rows = [{"subject": f"user-000{user}", "accuracy": 0.5 + user / 10, "verdict": "partial"} for user in range(2)]
    rows += [{"subject": "user-0002", "failure": "no more disk"}, {"subject": "control-blur", "accuracy": 0.3}]
    write_table(run.path, pd.DataFrame(rows).convert_dtypes())
    for name in ("columns.md", "summary.md", "figures/psnr.png"):
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("text")
    return run


def tracker_of(run: RunFolder, **tracking: Any) -> Tracker:
    experiment = run.experiment()
    return Tracker(run, experiment.model_copy(update={"tracking": experiment.tracking.model_copy(update=tracking)}))


def show(run: RunFolder, **tracking: Any) -> None:
    tracker = tracker_of(run, **tracking)
    for user in range(USERS - 1):
        tracker.published(user)
    tracker.finished()


def test_a_run_that_asks_for_no_tracker_leaves_no_trace_of_any(run: RunFolder) -> None:
    before = set(run.path.parent.rglob("*"))
    show(run)
    assert set(run.path.parent.rglob("*")) == before


def test_a_tracker_that_fails_is_a_warning(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise OSError("no more\ndisk")

    for name in ("_write_curve", "_write_results", "_log_run"):
        monkeypatch.setattr(f"sim.run.tracking.{name}", broken)
    warnings: list[str] = []
    monkeypatch.setattr("sim.run.tracking.log", lambda level, text, *values: warnings.append(text % values))
    show(run, tensorboard=True, mlflow=True)
    expected = "tracking.{}: OSError: no more disk (the run folder has everything)"
    assert warnings == [expected.format(name) for name in ("tensorboard", "tensorboard", "tensorboard", "mlflow")]


# ---- TensorBoard -------------------------------------------------------------------------------------------------


def events_of(folder: Path) -> Any:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events_of(folder).Scalars(tag)]


def test_a_user_that_has_published_shows_its_learning_curve_by_step(run: RunFolder) -> None:
    tracker_of(run, tensorboard=True).published(1)
    folder = run.path / "tensorboard"
    assert scalars(folder / "user-0001", "curve/train_loss") == [(5, 3.0), (10, 2.0)]
    assert set(events_of(folder / "user-0001").Tags()["scalars"]) == {"curve/lr", "curve/train_loss"}
    assert not (folder / "user-0000").exists()


def test_results_are_the_measures_of_every_row_that_has_some_and_its_pictures(run: RunFolder) -> None:
    show(run, tensorboard=True)
    folder = run.path / "tensorboard"
    assert {path.name for path in folder.iterdir()} == {"user-0000", "user-0001", "control-blur"}
    assert scalars(folder / "user-0001", "result/accuracy") == [(0, pytest.approx(0.6))]
    (image,) = events_of(folder / "user-0001").Images("plain/protected/itn")
    assert (image.width, image.height) == (4 * 8, 3 * 8)
    assert not (run.path / "state" / "events").exists() or not any((run.path / "state" / "events").iterdir())


def test_a_resumed_run_shows_everything_once_and_what_its_killed_attempt_had_not_shown(run: RunFolder) -> None:
    show(run, tensorboard=True)
    shutil.rmtree(run.path / "tensorboard" / "user-0000")
    write_table(run.path, pd.DataFrame([{"subject": f"user-000{user}", "accuracy": 0.9} for user in range(2)]))
    tracker_of(run, tensorboard=True).finished()
    for user in range(2):
        folder = run.path / "tensorboard" / f"user-000{user}"
        assert scalars(folder, "curve/train_loss") == [(5, 2.0 + user), (10, 1.0 + user)]
        assert scalars(folder, "result/accuracy") == [(0, pytest.approx(0.9))]


def test_showing_a_user_takes_a_small_part_of_a_second(run: RunFolder) -> None:
    tracker = tracker_of(run, tensorboard=True)
    tracker.published(0)  # imports TensorBoard
    began = time.perf_counter()
    for _ in range(20):
        tracker.published(0)
    assert time.perf_counter() - began < 4


# ---- MLflow ------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the folder beside the run."""
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")
    return mlflow.MlflowClient((run.path.parent / "mlruns").as_uri())


def only_run(client: Any) -> Any:
    group = client.get_experiment_by_name("small")
    (found,) = client.search_runs([group.experiment_id])
    return found


def test_a_run_is_one_run_of_mlflow_with_its_config_measures_and_files(run: RunFolder, client: Any) -> None:
    show(run, mlflow=True)
    found = only_run(client)
    assert (found.info.run_name, found.info.status) == ("the-run", "FINISHED")
    assert found.data.params["user.alpha"] == "0.1"
    assert found.data.params["users.settings.1.width"] == "3"
    assert found.data.params["users.partition.sizes"] == "[24, 36, 12]"
    history = client.get_metric_history(found.info.run_id, "accuracy")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (1, pytest.approx(0.6))]
    assert found.data.metrics["median/accuracy"] == pytest.approx(0.55)
    files = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert files == {"config.yaml", "table.csv", "table.parquet", "columns.md", "summary.md", "figures"}


def test_a_resumed_run_takes_the_place_of_its_earlier_attempt_in_mlflow(run: RunFolder, client: Any) -> None:
    show(run, mlflow=True)
    first = only_run(client).info.run_id
    show(run, mlflow=True)
    second = only_run(client)
    assert second.info.run_id != first
    assert len(client.get_metric_history(second.info.run_id, "accuracy")) == 2
    assert run.facts()["mlflow_run"] == second.info.run_id


def test_runs_of_one_config_stand_side_by_side(run: RunFolder, client: Any) -> None:
    other = RunFolder(run.path.with_name("another"))
    shutil.copytree(run.path, other.path)
    show(run, mlflow=True)
    show(other, mlflow=True)
    group = client.get_experiment_by_name("small")
    assert {found.info.run_name for found in client.search_runs([group.experiment_id])} == {"the-run", "another"}


def test_a_tracking_uri_is_where_the_run_goes(run: RunFolder, client: Any, tmp_path: Path) -> None:
    show(run, mlflow=(tmp_path / "elsewhere").as_uri())
    assert only_run(mlflow.MlflowClient((tmp_path / "elsewhere").as_uri())).info.run_name == "the-run"
    assert client.get_experiment_by_name("small") is None
