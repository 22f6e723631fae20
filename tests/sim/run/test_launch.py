"""What can be said of launching without a simulation; ``test_simulation.py`` starts some."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sim.config.experiment import Experiment
from sim.run import launch
from sim.run.launch import (
    Pulse,
    app_folder,
    log_of,
    processes_of,
    simulation_environment,
    simulation_failed,
    sweep_homes,
)


def test_the_flower_app_is_where_its_project_file_is() -> None:
    assert (app_folder() / "sim" / "server_app.py").is_file()


def test_the_processes_of_a_run_are_those_that_were_started_for_it(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    command = [sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()"]
    environment = os.environ | {"VEILSIM_RUN": str(run)}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        assert processes_of(run) == [process.pid]
        assert processes_of(tmp_path) == []
    assert processes_of(run) == []


def test_a_simulation_is_hermetic(experiment: Experiment, tmp_path: Path) -> None:
    variables = simulation_environment(tmp_path / "run", tmp_path / "home", 4321, experiment)
    assert variables["FLWR_HOME"] == variables["RAY_TMPDIR"] == str(tmp_path / "home")
    assert variables["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"] == "4321"
    assert (variables["FLWR_TELEMETRY_ENABLED"], variables["RAY_USAGE_STATS_ENABLED"]) == ("0", "0")
    assert variables["PATH"].startswith(str(Path(sys.executable).parent))


def test_a_simulation_has_failed_if_its_log_says_so_of_this_attempt(tmp_path: Path) -> None:
    log_of(tmp_path).write_bytes(b"Simulation raised an exception\n")
    assert simulation_failed(tmp_path)
    assert not simulation_failed(tmp_path, seen=log_of(tmp_path).stat().st_size)


@contextmanager
def process_called(name: str, run: Path) -> Iterator[None]:
    """A process of a run, under the name of one of Flower's."""
    command = ["bash", "-c", f"exec -a {name} sleep 60"]
    with subprocess.Popen(command, env=os.environ | {"VEILSIM_RUN": str(run)}) as process:
        while not any(name in psutil.Process(one).cmdline() for one in processes_of(run)):
            time.sleep(0.01)
        yield
        process.kill()


def test_a_simulation_has_stopped_when_its_process_is_gone_or_nobody_is_there_to_start_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_PULSE_S", 0)
    pulse = Pulse(tmp_path)
    with process_called("flower-superexec", tmp_path):
        assert not pulse.has_stopped()  # it is about to start the simulation
        with process_called("flwr-simulation", tmp_path):
            assert not pulse.has_stopped()
        assert not pulse.has_stopped()  # once may be chance
        assert pulse.has_stopped()
    monkeypatch.setattr(launch, "_GRACE_S", 0)
    pulse = Pulse(tmp_path)
    assert [pulse.has_stopped() for _ in range(3)] == [False, True, True]


def test_a_simulation_that_begins_is_given_time_and_one_that_never_does_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_PULSE_S", 0)
    pulse = Pulse(tmp_path)
    assert not any(pulse.has_stopped() for _ in range(5))
    with process_called("flower-superexec", tmp_path):
        monkeypatch.setattr(launch, "_GRACE_S", 0)
        assert not any(pulse.has_stopped() for _ in range(5))
        monkeypatch.setattr(launch, "_BEGIN_S", 0)
        assert [pulse.has_stopped() for _ in range(2)] == [False, True]


def test_what_needs_a_short_path_is_in_tmp_where_the_usual_place_has_a_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, expected in (("/var/tmp", "/var/tmp"), (str(tmp_path / ("x" * 80)), "/tmp")):
        monkeypatch.setattr(tempfile, "tempdir", place)
        assert launch.temporary_folder() == Path(expected)


def test_a_home_that_cannot_be_removed_whole_stays_one_that_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "veil-gone"
    (home / "apps").mkdir(parents=True)
    (home / "owner.lock").touch()
    (home / "config.toml").touch()
    with monkeypatch.context() as stuck:
        stuck.setattr(launch.shutil, "rmtree", lambda path, ignore_errors: None)  # as where files are still written
        sweep_homes(tmp_path)
    assert {path.name for path in home.iterdir()} == {"apps", "owner.lock"}
    sweep_homes(tmp_path)
    assert not home.exists()


def test_homes_of_simulations_that_were_killed_are_swept_and_others_stay(tmp_path: Path) -> None:
    for name in ("veil-gone", "veil-living", "veil-of-somebody-else", "other"):
        (tmp_path / name).mkdir()
    for name in ("veil-gone", "veil-living", "other"):
        (tmp_path / name / "owner.lock").touch()
    hold = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); "
    hold += "time.sleep(60)"
    lock = tmp_path / "veil-living" / "owner.lock"
    with subprocess.Popen([sys.executable, "-c", hold, lock], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        sweep_homes(tmp_path)
        holder.kill()
    assert {path.name for path in tmp_path.iterdir()} == {"veil-living", "veil-of-somebody-else", "other"}
