"""What whoever waits for a run is told at its end."""

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.run import watch as watching
from sim.run.folder import RunFolder
from sim.run.progress import Status
from sim.run.watch import named, resuming, watch


@pytest.fixture
def run(experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    return RunFolder.create(tmp_path / "run", experiment)


def ending_in(status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put in place of a simulation one that has come to ``status`` at once."""

    @contextmanager
    def simulation(run: Path, experiment: Experiment) -> Iterator[subprocess.Popen[bytes]]:
        assert Status.read(run) == Status("starting")  # what an earlier attempt said is forgotten
        status.write(run)
        RunFolder(run).note({"seconds": RunFolder(run).facts().get("seconds", 0.0) + 164})
        (run / "summary.md").write_text("# found\n")
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            yield process

    monkeypatch.setattr(watching, "simulation", simulation)


def told_by(run: RunFolder) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    assert watch(run, console) == "# found\n"
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def test_a_run_says_where_it_is_and_in_the_end_what_its_time_was_for(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending_in(Status("complete"), monkeypatch)
    first, *_, last = told_by(run)
    assert first == "run folder: run"
    assert last.startswith("complete after 0:0")
    assert "work 2:44 (the summary's 164 s); start, report and end" in last


def test_a_resumed_run_tells_its_own_work_and_that_of_all_attempts(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Status("failed", error="killed").write(run.path)
    run.note({"seconds": 100.0})
    ending_in(Status("complete"), monkeypatch)
    assert "work 2:44, with earlier attempts 4:24 (the summary's 264 s)" in told_by(run)[-1]


def test_a_run_that_fails_says_why_and_how_to_go_on(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    ending_in(Status("failed", error="no more disk"), monkeypatch)
    with pytest.raises(ConfigError, match=r"^no more disk \(resume with: veilsim run --resume run\)$"):
        told_by(run)


def test_a_folder_is_named_as_a_shell_takes_it_and_as_short_as_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "a" / "b" / "c" / "d" / "e" / "f" / "g" / "h"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert named(below / "my run") == "'my run'"
    assert named(Path("/srv")) == "/srv"
    assert resuming(below / "runs" / "one") == "veilsim run --resume runs/one"
