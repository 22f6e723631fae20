"""The session on a GPU keeps what it finds, ends what takes too long, and plans no more epochs than it has time for."""

import json
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from roles.common.weights import load, save
from sim.config.files import load_experiment
from tests.bench import gpu_session
from tests.bench.gpu import epochs_for, overrides, rates_of
from tests.bench.gpu_session import Session, keep_theta


@pytest.fixture
def session(tmp_path: Path) -> Session:
    loading = threading.Thread(target=lambda: None)
    loading.start()
    return Session(tmp_path, tmp_path, "digits", "random", False, time.monotonic() + 60, loading)


def test_a_part_that_fails_is_noted_and_the_next_is_done(session: Session) -> None:
    def fails(_: Session) -> dict[str, int]:
        raise RuntimeError("no GPU")

    session.do("first", fails)
    session.do("second", lambda _: {"found": 1})
    kept = json.loads((session.out / "results.json").read_text())
    assert kept["first"]["error"] == "RuntimeError: no GPU"
    assert kept["second"]["found"] == 1


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_has_started(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_session, "END_S", 1)
    script = (
        "import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'],"
    )
    script += " start_new_session=True).pid, flush=True); time.sleep(99)"
    assert session.run([sys.executable, "-c", script], 3) == 124
    started = int(next(line for line in (session.out / "log.txt").read_text().splitlines() if line.isdecimal()))
    assert not psutil.pid_exists(started) or psutil.Process(started).status() == psutil.STATUS_ZOMBIE
    assert session.run([sys.executable, "-c", "raise SystemExit(3)"], 30) == 3


def test_epochs_are_what_is_left_beside_psi_the_attacks_and_the_rest() -> None:
    rates = {"h_theta": 352.0, "psi": 704.0, "itn": 352.0}
    # At 0.8 of these, an epoch of h_theta takes 1.25 s: 90 s, 30 epochs of inverse networks, 100 epochs of psi, ten.
    seconds = 90 + 30 * 1.25 + 100 * 0.625 + 10 * 1.25
    assert epochs_for(seconds, rates, with_psi=True) == 10
    assert epochs_for(seconds, rates, with_psi=False) == 60
    assert epochs_for(10_000, rates, with_psi=True) == 200
    assert epochs_for(60, {}, with_psi=True) < 1


def test_rates_are_of_one_user_of_the_width_that_is_to_be_run(tmp_path: Path) -> None:
    def row(network: str, way: str, width: int, users: int, *rates: float) -> dict[str, object]:
        return {"point": {"network": network, "way": way, "width": width, "users": users}, "rates": rates}

    rows = [row("h_theta", "direct", 64, 1, 150.0), row("h_theta", "direct", 16, 1, 240.0)]
    rows += [row("h_theta", "direct", 64, 8, 210.0), row("psi", "product", 16, 1, 450.0, 430.0, 460.0)]
    rows += [row("psi", "graphs", 16, 1, 500.0), row("itn", "product", 32, 1)]
    (tmp_path / "bench.json").write_text(json.dumps({"results": rows}))
    assert rates_of(tmp_path / "bench.json", 64) == {"h_theta": 150.0, "psi": 450.0}
    assert rates_of(tmp_path / "none.json", 64) == {}


def test_the_cell_is_the_papers_but_for_time_and_its_attack(session: Session) -> None:
    path = Path(__file__).parents[2] / "configs" / "paper_resnet20.yaml"
    paper, cell = yaml.safe_load(path.read_text()), load_experiment(path, overrides("transposed", 120, session))
    assert (cell.user.alpha, cell.user.width, cell.user.upsampling) == (0.005, 64, "transposed")
    assert cell.user.training.epochs == 120
    for name in ("lr", "momentum", "weight_decay", "schedule", "gamma"):
        assert getattr(cell.user.training, name) == paper["user"]["training"][name]
    assert [(itn.name, itn.width, itn.upsampling) for itn in cell.attack.itns] == [("strong", 32, "transposed")]


def test_a_theta_is_kept_in_half_precision_unless_it_is_large(tmp_path: Path) -> None:
    path, theta = tmp_path / "users" / "user-0000" / "theta.safetensors", torch.rand(9, 2**20)
    for copies, said in ((1, "2.0 MiB in half precision, kept"), (9, "18.0 MiB in half precision, not kept")):
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, {f"weight{number}": theta[number].clone() for number in range(copies)} | {"steps": torch.tensor(3)})
        assert keep_theta(tmp_path, tmp_path / f"{copies}.safetensors") == said
    kept = load(tmp_path / "1.safetensors")[0]
    assert kept["weight0"].dtype == torch.float16 and kept["steps"].item() == 3
    assert not (tmp_path / "9.safetensors").exists()
    assert keep_theta(tmp_path / "nothing", tmp_path / "x.safetensors") == "there is none"
