"""Whole runs, on real Flower and real Ray: what a user of the command line relies on."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

from roles.common.weights import load
from sim.cli import cli
from sim.config.files import load_experiment
from sim.run.folder import RunFolder
from sim.run.launch import processes_of
from sim.run.progress import Status
from sim.server_app import run_experiment
from tests.sim.in_memory_grid import InMemoryGrid
from tests.sim.tiny import TINY


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def veilsim(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sim.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="session")
def direct_run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "direct"
    done = veilsim("run", tiny_config, "runtime.exchange=direct", "runtime.workers=2", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr + (out / "flower.log").read_text()[-3000:]
    return out


def theta_of(run: Path, user: int) -> dict[str, torch.Tensor]:
    return load(run / "users" / f"user-{user:04d}" / "theta.safetensors")[0]


def assert_same_thetas(one: Path, other: Path) -> None:
    for user in range(3):
        first, second = theta_of(one, user), theta_of(other, user)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def assert_same_tables(one: Path, other: Path) -> None:
    for name in ("table", "studies/transfer", "studies/curious"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(one / f"{name}.parquet"), pd.read_parquet(other / f"{name}.parquet")
        )


def test_a_run_ends_with_a_row_for_every_user_and_for_the_positive_control(direct_run: Path) -> None:
    table = pd.read_parquet(direct_run / "table.parquet")
    assert list(table["subject"]) == ["user-0000", "user-0001", "user-0002", "control-blur"]
    users = table[:3]
    assert (users["images"] == 33).all()
    assert (users["steps"] == 16).all()
    # 16 gradients and 8 validation passes of 20 images, in one message each.
    assert (users["queries"] == 24).all()
    assert (users["queried_images"] == 8 * 33 + 8 * 20).all()
    image_bytes = 3 * 16 * 16 * 4
    assert (users["sent_bytes"] > 8 * 53 * image_bytes).all()
    assert (users["received_bytes"] == 8 * 33 * image_bytes).all()
    for column in ("accuracy", "itn_paper_accuracy", "itn_strong_accuracy", "plain_accuracy"):
        assert table[column].between(0, 1).all()
    assert table["verdict"].isin(["hidden", "partial", "recovered", "visible"]).all()
    assert (table["failure"].fillna("") == "").all()


def test_a_run_leaves_nothing_running_behind(direct_run: Path) -> None:
    assert processes_of(direct_run) == []


def test_a_run_folder_holds_what_made_it(direct_run: Path) -> None:
    facts = json.loads((direct_run / "run.json").read_text())
    assert facts["packages"]["flwr"].startswith("1.42")
    assert facts["psi"]["digest"]
    config = yaml.safe_load((direct_run / "config.yaml").read_text())
    assert config["user"]["alpha"] == 0.05
    assert "Positive control" in (direct_run / "summary.md").read_text()
    for name in ("psnr", "curves", "strips-user-0002", "strips-control-blur"):
        assert (direct_run / "figures" / f"{name}.png").stat().st_size > 1000
        assert (direct_run / "figures" / f"{name}.pdf").stat().st_size > 1000
    assert list(direct_run.rglob("*.partial")) == []


def test_the_provider_counts_everything_that_it_is_asked(direct_run: Path) -> None:
    counted = pd.read_json(direct_run / "provider" / "load.json")[["requests", "images"]].sum()
    # Each user: its images' ids, 16 gradients, 8 validation passes, and the labels of its test images.
    users = 3 * (1 + 16 + 8 + 1)
    # Of users and control, the labels of what two inverse networks make of the test images; of the control, its own.
    attacks = 3 * 2 + 3
    # Curious asks for what was seen of each user.
    studies = 3
    assert counted["requests"] == users + attacks + studies
    assert counted["images"] == 3 * (8 * 33 + 8 * 20 + 30) + 30 * attacks


def test_by_the_providers_endpoint_all_is_the_same_and_nothing_is_left_running(
    direct_run: Path, tiny_config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "endpoint"
    done = veilsim("run", tiny_config, "runtime.exchange=endpoint", "runtime.workers=2", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr + (out / "flower.log").read_text()[-3000:]
    assert_same_thetas(direct_run, out)
    assert_same_tables(direct_run, out)
    one, other = (
        pd.read_json(run / "provider" / "load.json")[["requests", "images"]].sum() for run in (direct_run, out)
    )
    assert one.equals(other)
    assert processes_of(out) == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_flwr_run_works_with_overrides_and_its_relayed_fedavg_equals_one_in_a_single_process(
    tiny_config: Path, tmp_path: Path
) -> None:
    overrides = ["strategy.name=fedavg", "strategy.batch_norm=local", "strategy.rounds=2"]
    overrides += ["user.training.epochs=2", "studies=[]"]
    home = tmp_path / "flwr"
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    app = Path(__file__).parent.parent.parent
    settings = " ".join([*overrides, "users.count=auto", "runtime.evaluators=0", "runtime.exchange=relay"])
    try:
        done = subprocess.run(
            [
                *("flwr", "run", str(app), "--stream"),
                *("--run-config", f'config="{tiny_config}" set="{settings}"'),
                *("--federation-config", "num-supernodes=4 client-resources-num-cpus=1"),
            ],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        (run,) = (tmp_path / "runs").iterdir()
        assert Status.read(run).phase == "complete", done.stdout[-3000:] + done.stderr[-2000:]
    finally:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"FLWR_HOME={home}".encode() in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
    assert len(pd.read_csv(run / "table.csv")) == 4
    first, second = theta_of(run, 0), theta_of(run, 1)
    assert torch.equal(first["head.weight"], second["head.weight"])
    assert not torch.equal(first["down.0.1.running_mean"], second["down.0.1.running_mean"])
    settings_here = [setting.replace("auto", "3") for setting in settings.split()]
    alone = RunFolder.create(tmp_path / "alone", load_experiment(tiny_config, settings_here))
    run_experiment(InMemoryGrid(range(4)), alone, alone.experiment())
    assert_same_thetas(run, alone.path)


def rounds_of(run: Path, user: int) -> list[int]:
    files = (run / "state" / f"user-{user:04d}").glob("round-*.safetensors")
    return [int(path.stem.removeprefix("round-")) for path in files]


@pytest.fixture(scope="session")
def killed_run(direct_run: Path, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A relayed run on four workers that was killed with SIGKILL in the middle of the users' phase; psi is there."""
    out = tmp_path_factory.mktemp("runs") / "killed"
    command = [sys.executable, "-m", "sim.cli", "run", str(tiny_config), "--out", str(out)]
    command += ["runtime.exchange=relay", "runtime.workers=4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and Status.read(out).phase in ("starting", "classifier"):
        time.sleep(0.02)
    while time.monotonic() < deadline and not all(rounds_of(out, user) for user in (0, 1)):
        time.sleep(0.02)
    assert processes_of(out)
    process.kill()
    process.wait()
    assert all(1 <= max(rounds_of(out, user)) < 4 for user in (0, 1))
    assert not list(out.glob("users/*/published.json"))
    # Nobody is left to end them: they notice, Ray's daemons last.
    deadline = time.monotonic() + 120
    while processes_of(out) and time.monotonic() < deadline:
        time.sleep(0.2)
    return out


def test_killing_a_run_ends_everything_it_had_started(killed_run: Path) -> None:
    assert processes_of(killed_run) == []


def kill_a_worker(run: Path) -> None:
    """Kill one of the processes that act for nodes, once users train."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for process in processes_of(run) if Status.read(run).phase == "users" else []:
            with contextlib.suppress(OSError):
                if (Path("/proc") / str(process) / "cmdline").read_bytes().startswith(b"ray::ClientAppActor"):
                    os.kill(process, signal.SIGKILL)
                    return
        time.sleep(0.02)


def test_a_killed_run_that_then_loses_a_worker_says_so_in_a_line_and_ends_as_an_unbroken_one_when_resumed_again(
    killed_run: Path, direct_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(killed_run, run)
    command = [sys.executable, "-m", "sim.cli", "run", "--resume", str(run), "runtime.workers=3"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    kill_a_worker(run)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    (line,) = said.splitlines()
    assert (
        "a process of Ray's was killed, by somebody or for want of memory (then lower runtime.workers); nothing" in line
    )
    assert line.endswith(f"(resume with: veilsim run --resume {run})")
    assert processes_of(run) == []

    # Killed on four workers, resumed on three: the table of a direct run on two, with the psi that was trained for it.
    done = veilsim("run", "--resume", run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert yaml.safe_load((run / "config.yaml").read_text())["runtime"]["workers"] == 3
    assert_same_thetas(run, direct_run)
    assert_same_tables(run, direct_run)
    here, there = (json.loads((folder / "run.json").read_text())["psi"] for folder in (run, direct_run))
    assert here["reused"] is True
    assert here["digest"] == there["digest"]


def test_bad_input_is_one_line_and_exit_code_1() -> None:
    done = veilsim("run", "nowhere.yaml")
    assert done.returncode == 1
    assert done.stderr.strip() == "veilsim: nowhere.yaml: no such config file"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run"], "name a config"),
        (["run", "--resume", "nowhere"], "not a run folder"),
        (["run", "configs/quickstart.yaml", "user.alhpa=1"], "did you mean 'alpha'?"),
        (["run", "configs/quickstart.yaml", "users.count=auto"], "users.count"),
    ],
)
def test_bad_input_says_what_would_be_right(arguments: list[str], expected: str) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert expected in done.stderr


def test_a_run_folder_is_never_overwritten(direct_run: Path, tiny_config: Path) -> None:
    done = veilsim("run", tiny_config, "--out", direct_run)
    assert done.returncode == 1
    assert "holds a run already" in done.stderr
