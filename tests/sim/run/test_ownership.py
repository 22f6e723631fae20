import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sim.config.errors import ConfigError
from sim.run import ownership
from sim.run.ownership import claim, watch_owner


def test_a_run_is_worked_on_by_one_at_a_time(tmp_path: Path) -> None:
    with claim(tmp_path / "run", "server"):
        with (
            pytest.raises(ConfigError, match=r"run: another process is working on this run") as caught,
            claim(tmp_path / "run", "server"),
        ):
            pass
        assert "\n" not in str(caught.value)
        with claim(tmp_path / "another run", "server"):
            pass


def test_a_claim_ends_with_the_work_however_it_ends(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no more disk"), claim(tmp_path, "server"):
        raise RuntimeError("no more disk")
    with claim(tmp_path, "server"):
        pass


HOLD_AND_WAIT = """
import fcntl, sys
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("mine", flush=True)
sys.stdin.read()
"""


def test_a_claim_ends_with_the_process_that_was_killed(tmp_path: Path) -> None:
    with claim(tmp_path, "server"):
        (lock,) = (tmp_path / "state").iterdir()
    command = [sys.executable, "-c", HOLD_AND_WAIT, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == b"mine\n"
            with pytest.raises(ConfigError, match="another process"), claim(tmp_path, "server"):
                pass
        finally:
            other.kill()
    with claim(tmp_path, "server"):
        pass


class Inline:
    """A thread that is none: it runs when it is started."""

    def __init__(self, target: Callable[[], None], **_: object) -> None:
        self.start = target


def test_nobody_is_watched_without_an_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "threading", SimpleNamespace(Thread=None))
    watch_owner(0)


def test_a_process_ends_when_its_owner_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    slept: list[float] = []

    def kill(process: int, signal: int) -> None:
        asked.append((process, signal))
        if len(asked) == 3:
            raise ProcessLookupError

    def end(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(ownership, "threading", SimpleNamespace(Thread=Inline))
    monkeypatch.setattr(ownership, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setattr(ownership, "os", SimpleNamespace(kill=kill, _exit=end))
    with pytest.raises(SystemExit) as caught:
        watch_owner(1234)
    assert caught.value.code == 1
    assert asked == [(1234, 0)] * 3  # signal 0 asks and does nothing
    assert slept == [1, 1]
