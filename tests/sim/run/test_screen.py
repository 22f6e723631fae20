"""What stands on a screen, and in a file, while a run goes on."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from sim.run import screen
from sim.run.progress import Status
from sim.run.screen import Screen


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "_INTERVAL_S", 0.001)


def shown(run: Path, console: Console, *statuses: Status) -> str:
    """Return what is written while a run has these statuses, one after another."""
    with Screen(console, run) as told:
        time.sleep(0.1)
        for status in statuses:
            status.write(run)
            time.sleep(0.1)
        told.say("ending")
        time.sleep(0.1)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_elsewhere_than_in_a_terminal_what_is_new_to_do_is_a_line_of_plain_text(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=40)
    training = [Status("users", "training users", done, 20) for done in (1, 2)]
    text = shown(tmp_path, console, Status("starting", "starting Ray"), *training, Status("complete"))
    assert [line.partition("  0:0")[0] for line in text.splitlines()] == [
        "starting",
        "starting Ray",
        "training users 1/20: loading psi and phi",
        "ending",
    ]
    assert text.endswith("\n")


def test_and_the_same_is_told_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "_LOG_INTERVAL_S", 0.05)
    text = shown(tmp_path, Console(file=io.StringIO()), Status("starting", "starting Ray"))
    assert text.count("starting Ray") > 1


def test_in_a_terminal_one_line_changes_and_is_gone_in_the_end(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=30, color_system=None, legacy_windows=False)
    text = shown(tmp_path, console, Status("starting", "starting Ray"), Status("users", "training users", 1, 20))
    assert "starting Ray  0:0" in text
    assert "training users 1/20: loadin..." in text
    # Neither a line that is folded nor one that stays: the cursor goes back to where it was.
    assert text.count("\n") == 1
    assert text.endswith("\x1b[1A\x1b[2K")


def test_files_that_come_and_go_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, fail = Status.read, [True]

    def gone(run: Path) -> Status:
        if fail.pop() if fail else False:
            raise FileNotFoundError
        return read(run)

    monkeypatch.setattr(Status, "read", gone)
    assert "starting Ray" in shown(tmp_path, Console(file=io.StringIO()), Status("starting", "starting Ray"))
