"""Starts the deployment of docs/DEPLOYMENT.md as processes of this machine, which can be killed and started again."""

import contextlib
import copy
import os
import random
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import yaml
from typer.testing import CliRunner

from sim.cli import cli
from sim.run.launch import app_folder, processes_of
from tests.sim.tiny import TINY

SCRIPT = app_folder() / "docs" / "deployment" / "loopback.sh"
NODES = ("provider", "user-0", "user-1", "evaluator-0")


class Deployment:
    """The script at work in a folder.

    Args:
        folder: takes what it writes, and marks its processes.
        config: the experiment, of two users and an evaluator.
        overrides: of the config.
        run: the folder of a run to go on with.
    """

    def __init__(self, folder: Path, config: Path, overrides: str, run: Path | None = None) -> None:
        self.folder, self._restarted = folder, list[subprocess.Popen[bytes]]()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        more = {"PATH": path, "PORT": str(six_ports()), "VEILSIM_RUN": str(folder)}
        with (folder / "said.txt").open("w") as said:
            self.script = psutil.Popen(
                [str(SCRIPT), str(folder), overrides, str(config)],
                env={**os.environ, **more, **({} if run is None else {"RUN": str(run)})},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def run(self) -> Path:
        """Return the folder of the run, once the script has ended; an AssertionError if it has failed."""
        assert self.script.wait(1800) == 0, self.said()[-3000:]
        return Path(self.said().strip().splitlines()[-1])

    def table(self) -> bytes:
        """Wait for the run, and return its table."""
        return (self.run() / "table.csv").read_bytes()

    def said(self) -> str:
        """Return what the script and the run have said."""
        return (self.folder / "said.txt").read_text(errors="replace")

    def kill_and_start(self, node: str) -> None:
        """Kill a SuperNode, which ends what it has started, and start it as it was until it stays.

        For a minute Flower takes it for the one that was killed, and turns it away.
        """
        of_node = [one for one in self.processes() if f"{node}.key" in command_of(one)]
        node_itself = [one for one in of_node if one.name() != "bash"]
        command, environment, place = node_itself[0].cmdline(), node_itself[0].environ(), node_itself[0].cwd()
        node_itself[0].kill()
        if len(of_node) > len(node_itself):
            return  # what has started it again before does so once more
        with (self.folder / f"{node}-again.log").open("w") as log:
            loop = ["bash", "-c", 'until "$@"; do sleep 3; done', "again", *command]
            start = partial(subprocess.Popen, env=environment, cwd=place, stdout=log, stderr=log)
            self._restarted.append(start(loop, start_new_session=True))

    def end_restarted(self) -> None:
        """End, as a person would, what the script did not start."""
        for process in self._restarted:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)
        self._restarted.clear()

    def wait_for(self, name: str, said: str) -> None:
        """Wait until a process has written a line to its log."""
        deadline, log = time.monotonic() + 300, self.folder / name
        while not (log.is_file() and said in log.read_text(errors="replace")):
            assert time.monotonic() < deadline and self.script.poll() is None, f"{name} never said {said!r}"
            time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        """Return all that was started for it and runs."""
        return processes_in(self.folder)

    def ends(self) -> bool:
        """Return whether nothing of it runs, a little later."""
        deadline = time.monotonic() + 20
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        return not self.processes()

    def kill(self) -> None:
        """Kill all of it."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.script.wait(20)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return all that was started for the deployment in a folder and runs."""
    found: list[psutil.Process] = []
    for number in processes_of(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(number))
    return found


def command_of(process: psutil.Process) -> str:
    """Return the command line of a process, empty if it has just ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def six_ports() -> int:
    """Return the first of six ports that are free."""
    while True:
        first = random.SystemRandom().randrange(20_000, 30_000)
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
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def simulated(config: Path, overrides: str, run: Path) -> bytes:
    """Return the table of the same experiment in a simulation."""
    changed = ["users.count=2", "runtime.evaluators=1", *overrides.split()]
    result = CliRunner().invoke(cli, ["run", str(config), *changed, "--out", str(run)])
    assert result.exit_code == 0, result.output
    return (run / "table.csv").read_bytes()
