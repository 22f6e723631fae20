"""Starts a Flower simulation of its own for one run, and leaves nothing running behind."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

import psutil

from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.run.progress import Status, clear
from sim.run.signals import handling

_START_TIMEOUT_S = 180
_STOP_TIMEOUT_S = 15
_GRACE_S, _BEGIN_S, _PULSE_S = 10, 60, 1
"""For how long nobody need be there to start a simulation's process, how long that may take, and how often it is
looked for."""
_FRAME = set("─│╭╮╰╯")
"""What Flower draws boxes around its errors with."""
_HOME, _OWNER = "veil-", "owner.lock"
"""How the name of a simulation's home begins, and the file in it that its process holds locked."""
_LONGEST_PLACE = 20
"""A socket's path may have 103 bytes, on Linux 107; Ray's have 82 in the folder for temporary files."""


def app_folder() -> Path:
    """Return the Flower app that this code is; a :class:`ConfigError` if it was installed without its project file."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "pyproject.toml").is_file():
        raise ConfigError(f"{folder}: no pyproject.toml; install veilsim from a checkout with 'pip install -e .'")
    return folder


def log_of(run: Path) -> Path:
    """Return the file that everything Flower prints in a run goes to."""
    return run / "flower.log"


def simulation_failed(run: Path, seen: int = 0) -> bool:
    """Return whether a simulation has ended with an exception, by its log after the first ``seen`` bytes."""
    return b"Simulation raised an exception" in log_of(run).read_bytes()[seen:]


def simulation_environment(run: Path, home: Path, port: int, experiment: Experiment) -> dict[str, str]:
    """Return the environment of a hermetic simulation: a home and a port of its own, no telemetry."""
    return {
        **os.environ,
        "VEILSIM_RUN": str(run),
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(home),
        # Up to this size an argument or a result travels in the call itself; above, through Ray's object store, which
        # costs two cores more than the copy does. A batch of 128 images of 32 pixels is 1.5 MB.
        "RAY_max_direct_call_object_size": "8000000",
        # After a kill, Ray's agents would wait a minute for a daemon that nobody starts again.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
        "OMP_NUM_THREADS": str(experiment.runtime.threads),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


@contextlib.contextmanager
def simulation(run: Path, experiment: Experiment, app: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Start the simulation of a prepared run; yields the SuperLink's process, and ends everything at the end.

    Args:
        run: the run's folder.
        experiment: decides how many nodes and workers there are.
        app: folder of the Flower app to run; by default veilsim's own. It is given the same run config.

    Raises:
        ConfigError: Flower did not start; the message names the log.
    """
    place = temporary_folder()
    sweep_homes(place)
    home, port = Path(tempfile.mkdtemp(prefix=_HOME, dir=place)), _free_port()
    environment = simulation_environment(run, home, port, experiment)
    command = "flower-superlink --insecure --simulation --isolation subprocess --host 127.0.0.1"
    command += f" --port {port} --control-api-address 127.0.0.1:{_free_port()}"
    clear(run)
    Status("starting", "starting Flower").write(run)
    superlink: subprocess.Popen[bytes] | None = None
    owned = _owned(home)
    try:
        with log_of(run).open("ab") as log:
            superlink = subprocess.Popen(
                command.split(),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        _wait_until_ready(port, superlink, log_of(run))
        Status("starting", "starting the ServerApp").write(run)
        _submit(app or app_folder(), run, experiment, environment)
        yield superlink
    finally:
        # No second signal breaks off the end of what was started; it takes half a minute at most.
        with handling({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN}):
            if superlink is not None:
                _stop(superlink, run)
            _remove(home)
            owned.close()


def temporary_folder() -> Path:
    """Return the folder for temporary files or, where its path is too long, ``/tmp``: Ray's sockets live below it."""
    usual, short = Path(tempfile.gettempdir()), Path("/tmp")
    if len(os.fsencode(usual)) <= _LONGEST_PLACE:
        return usual
    if not os.access(short, os.W_OK):
        raise ConfigError(f"TMPDIR: got {usual}: must have {_LONGEST_PLACE} bytes at most, as {short} cannot be used")
    return short


def sweep_homes(folder: Path) -> None:
    """Remove the homes of simulations whose process is gone without having done so, as when it was killed."""
    for home in folder.glob(f"{_HOME}*"):
        with contextlib.suppress(OSError), (home / _OWNER).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(home)


def _remove(home: Path) -> None:
    """Remove a home, last what tells whose it is: where something of it cannot be, the next sweep tries again."""
    with contextlib.suppress(OSError):  # somebody else has removed it, or may alone
        for path in home.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _OWNER:
                path.unlink(missing_ok=True)
        if all(path.name == _OWNER for path in home.iterdir()):
            shutil.rmtree(home, ignore_errors=True)


def _owned(home: Path) -> TextIOWrapper:
    """Hold the lock of a home, which tells that its process is there, until what is returned is closed."""
    lock = (home / "owner.partial").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Only now it has its name: between the two, a sweep would take the home for one that nobody owns.
    Path(lock.name).rename(home / _OWNER)
    return lock


def _submit(app: Path, run: Path, experiment: Experiment, environment: dict[str, str]) -> None:
    runtime = experiment.runtime
    nodes = 1 + experiment.user_count + runtime.evaluators
    federation = f"num-supernodes={nodes} client-resources-num-cpus=1 init-args-num-cpus={runtime.worker_count}"
    if runtime.gpu_fraction:
        federation += f" client-resources-num-gpus={runtime.gpu_fraction}"
    command = ["flwr", "run", str(app), "--run-config", f'run="{run}" owner={os.getpid()}']
    command += ["--federation-config", federation]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    with log_of(run).open("a") as log:
        log.write(done.stdout + done.stderr)
    if done.returncode:
        reason = " ".join(word for word in (done.stderr or done.stdout).split() if not _FRAME & set(word))[-300:]
        raise ConfigError(f"flwr run failed ({reason}); its output is in {log_of(run)}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    # Linux: the SuperLink gets SIGTERM when whoever started it dies, however that happens.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _wait_until_ready(port: int, superlink: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if superlink.poll() is not None:
            raise ConfigError(f"Flower's SuperLink ended with code {superlink.returncode}; see {log_path}")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
            return
        time.sleep(0.1)
    raise ConfigError(f"Flower's SuperLink did not start within {_START_TIMEOUT_S} s; see {log_path}")


def processes_of(run: Path) -> list[int]:
    """Return every process that was started for a run, whatever process group it is in."""
    processes = psutil.process_iter(["environ"])
    return [each.pid for each in processes if (each.info["environ"] or {}).get("VEILSIM_RUN") == str(run)]


class Pulse:
    """Tells when what runs a simulation is gone without a word, as when it was killed or could write nothing more."""

    def __init__(self, run: Path) -> None:
        self._run, self._missed = run, 0
        self._since = self._next = time.monotonic()
        self._simulation: psutil.Process | None = None

    def has_stopped(self) -> bool:
        """Return whether neither the process of the ServerApp is there, nor one that is about to start it."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _PULSE_S
        # To look through all processes of a machine takes tens of milliseconds: only until the one is known.
        if self._simulation is not None and _works(self._simulation):
            return False
        found = self._found()
        self._simulation = found.get("flwr-simulation", self._simulation)
        runs, starter = "flwr-simulation" in found, "flower-superexec" in found
        starts = self._simulation is None and now - self._since < (_BEGIN_S if starter else _GRACE_S)
        # A process that cannot be looked at for once, as while it becomes another, is not gone.
        self._missed = 0 if runs or starts else self._missed + 1
        return self._missed > 1

    def _found(self) -> dict[str, psutil.Process]:
        found: dict[str, psutil.Process] = {}
        for number in processes_of(self._run):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(number)
                command = " ".join(process.cmdline())
                found |= {name: process for name in ("flwr-simulation", "flower-superexec") if name in command}
        return found


def _works(process: psutil.Process) -> bool:
    """Return whether a process is there, and not only waited for by who started it."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _stop(superlink: subprocess.Popen[bytes], run: Path) -> None:
    """End the SuperLink and everything below it: the simulation, Ray's daemons, the workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(superlink.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        superlink.wait(_STOP_TIMEOUT_S)
    began = time.monotonic()
    while (left := processes_of(run)) and (waited := time.monotonic() - began) < _STOP_TIMEOUT_S:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM if waited < _STOP_TIMEOUT_S / 2 else signal.SIGKILL)
        time.sleep(0.2)
        superlink.poll()
