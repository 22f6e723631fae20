"""NVIDIA's Multi-Process Service of one's own: with it processes use a GPU at the same time, without it in turns."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

_CONTROL = "nvidia-cuda-mps-control"
_PIPES = "CUDA_MPS_PIPE_DIRECTORY"
_START_S, _STOP_S = 60, 20
_TRY = """
import ctypes
cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
raise SystemExit(bool(cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)))
"""


def is_installed() -> bool:
    """Return whether this machine has the service."""
    return shutil.which(_CONTROL) is not None


@contextlib.contextmanager
def service(*, on: bool) -> Iterator[bool]:
    """Start the service for what is started within the context, or keep it from any that there is.

    Yields whether it runs: it does not where it is not installed, or no process gets a GPU through it. In the end
    nothing of it is left.
    """
    with tempfile.TemporaryDirectory(prefix="veil-mps-") as folder:
        own = {_PIPES: f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        before = {name: os.environ.get(name) for name in own}
        for path in own.values():
            Path(path).mkdir()
        # Where nobody listens, a process takes its turns without the service.
        os.environ |= own
        try:
            runs = on and is_installed() and _starts()
            if not runs:
                _stop(own[_PIPES])
            yield runs
        finally:
            _stop(own[_PIPES])
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def _starts() -> bool:
    try:
        # What it prints must not be waited for: the daemon would keep the pipe open.
        silent: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        subprocess.run([_CONTROL, "-d"], **silent, timeout=_START_S, check=True)
        subprocess.run([sys.executable, "-c", _TRY], timeout=_START_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _stop(pipes: str) -> None:
    if not _processes(pipes):
        return
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run([_CONTROL], input="quit\n", text=True, timeout=_STOP_S, check=False, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    while left := _processes(pipes):
        waited = time.monotonic() - began
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM if waited < _STOP_S / 2 else signal.SIGKILL)
        if waited > _STOP_S:
            return
        time.sleep(0.2)


def _processes(pipes: str) -> list[int]:
    """Return the service's processes: daemon and server, but not those that use it."""
    found = []
    for process in psutil.process_iter(["environ", "cmdline"]):
        command = process.info["cmdline"] or [""]
        if (process.info["environ"] or {}).get(_PIPES) == pipes and _is_service(command):
            found.append(process.pid)
    return found


def _is_service(command: list[str]) -> bool:
    return any(Path(word).name.startswith("nvidia-cuda-mps") for word in command[:2])
