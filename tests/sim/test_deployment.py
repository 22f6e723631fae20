"""The deployment of docs/DEPLOYMENT.md: one SuperLink and four SuperNodes as processes, with TLS and authentication."""

import contextlib
import copy
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from sim.cli import cli
from sim.run.launch import app_folder
from tests.sim.tiny import TINY

SCRIPT = app_folder() / "docs" / "deployment" / "loopback.sh"
NODES = 4

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("openssl", "ssh-keygen", "curl"))), reason="needs openssl, ssh-keygen and curl"
)


class Deployment:
    """The script at work in a folder."""

    def __init__(self, folder: Path, config: Path, overrides: str, port: int) -> None:
        self.folder, self._restarted = folder, list[subprocess.Popen[bytes]]()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (folder / "said.txt").open("w") as said:
            self.script = psutil.Popen(
                [str(SCRIPT), str(folder), overrides, str(config)],
                env={**os.environ, "PATH": path, "PORT": str(port), "VEILSIM_TEST": str(folder)},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def table(self) -> bytes:
        """Wait for the run, and return its table."""
        assert self.script.wait(1800) == 0, (self.folder / "said.txt").read_text()[-3000:]
        run = Path((self.folder / "said.txt").read_text().strip().splitlines()[-1])
        return (run / "table.csv").read_bytes()

    def kill_and_start(self, node: str) -> None:
        """Kill a SuperNode, which ends what it has started, and start it as it was until it stays.

        For a minute Flower takes it for the one that was killed, and turns it away.
        """
        (found,) = [one for one in self.script.children(True) if f"{node}.key" in _command(one)]
        command, environment, place = found.cmdline(), found.environ(), found.cwd()
        found.kill()
        found.wait(10)
        with (self.folder / f"{node}-again.log").open("w") as log:
            loop = ["bash", "-c", 'until "$@"; do sleep 3; done', "again", *command]
            start = partial(subprocess.Popen, env=environment, cwd=place, stdout=log, stderr=log)
            self._restarted.append(start(loop, start_new_session=True))

    def end_restarted(self) -> None:
        """End, as a person would, what the script did not start."""
        for process in self._restarted:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)

    def wait_for(self, name: str, said: str) -> None:
        """Wait until a process has written a line to its log."""
        deadline, log = time.monotonic() + 300, self.folder / name
        while not (log.is_file() and said in log.read_text(errors="replace")):
            assert time.monotonic() < deadline and self.script.poll() is None, f"{name} never said {said!r}"
            time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        found = psutil.process_iter(["environ"])
        return [one for one in found if (one.info["environ"] or {}).get("VEILSIM_TEST") == str(self.folder)]


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""  # it has just ended


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a deployment, of which nothing runs after the test."""
    path = tmp_path / "deployed"
    path.mkdir()
    yield path
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("VEILSIM_TEST") == str(path):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def port() -> int:
    """The first of six that are free."""
    while True:
        first = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for number in range(6):
                probes.enter_context(socket.create_server(("127.0.0.1", first + number)))
            return first


def config_in(folder: Path, epochs: int) -> Path:
    """Write an experiment of one inverse network, whose users train for so many epochs."""
    config = copy.deepcopy(TINY)
    config["user"]["training"]["epochs"] = epochs  # type: ignore[index]
    config["attack"]["itns"] = config["attack"]["itns"][:1]  # type: ignore[index]
    config["studies"] = [{"kind": "transfer", "images": 30}]  # asks for published thetas
    path = folder.parent / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def simulated(config: Path, overrides: str, run: Path) -> bytes:
    set_ = ["users.count=2", "runtime.evaluators=1", *overrides.split()]
    result = CliRunner().invoke(cli, ["run", str(config), *set_, "--out", str(run)])
    assert result.exit_code == 0, result.output
    return (run / "table.csv").read_bytes()


def eventually_none(deployment: Deployment) -> bool:
    deadline = time.monotonic() + 20
    while deployment.processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    return not deployment.processes()


def test_nodes_that_are_killed_and_started_again_change_nothing_and_nothing_is_left_running(
    folder: Path, port: int, tmp_path: Path
) -> None:
    config, overrides = config_in(folder, epochs=800), "strategy.rounds=8"
    deployment = Deployment(folder, config, overrides, port)
    for user in ("user-0", "user-1"):
        deployment.wait_for(f"{user}.log", "Receiving: train message")
    time.sleep(15)  # its process starts, and trains
    deployment.kill_and_start("provider")
    deployment.kill_and_start("user-1")
    table = deployment.table()
    said = (folder / "said.txt").read_text()
    assert "user 1 is asked again" in said and "the provider is asked again" in said
    for node in ("provider", "user-0", "user-1", "evaluator-0"):
        assert list((folder / node / "state").iterdir())  # each writes in its own folder
    deployment.end_restarted()
    assert eventually_none(deployment)
    assert table == simulated(config, overrides, tmp_path / "run")


def test_by_relay_it_is_the_same(folder: Path, port: int, tmp_path: Path) -> None:
    config = config_in(folder, epochs=1)
    overrides = "runtime.exchange=relay users.images=16 strategy.rounds=1 studies=[]"
    table = Deployment(folder, config, overrides, port).table()
    assert table == simulated(config, overrides, tmp_path / "run")
