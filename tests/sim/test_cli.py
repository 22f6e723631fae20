"""What the command line makes of its arguments; that runs come of it, ``test_simulation.py`` shows."""

import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

import sim.cli.experiments
from sim.cli import cli
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.report.text import REPORT
from sim.run.folder import RunFolder
from sim.run.ownership import claim
from sim.run.progress import Status
from sim.run.sweep import SweepFolder, load_cells


@pytest.fixture
def experiment(experiment: Experiment) -> Experiment:
    """One that passes all checks: its inverse network is no deeper than its images allow."""
    attack = {"test_images": 30, "blur_sigma": 0.5, "itns": [{"name": "itn", "depth": 2, "training": {"epochs": 1}}]}
    return Experiment.model_validate(experiment.model_dump() | {"attack": attack})


@pytest.fixture
def config(experiment: Experiment, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
    return path


@pytest.fixture
def run(experiment: Experiment, tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", experiment)


@pytest.fixture
def sweep(experiment: Experiment, tmp_path: Path) -> SweepFolder:
    """Four cells: complete, complete with a user that failed, failed, not begun."""
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(experiment.model_dump(mode="json") | {"sweep": {"seed": [0, 1, 2, 3]}}))
    sweep = SweepFolder.create(tmp_path / "sweep", "small", load_cells(path))
    cells = sweep.runs()
    for cell, phase in zip(cells, ("complete", "complete", "failed"), strict=False):
        Status(phase).write(cell.path)
    cells[1].keep_failure("user-0001", "no more disk")
    return sweep


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | str]]:
    """The folders that a simulation would be started for, and with how many workers; each then fails."""
    started: list[tuple[str, int | str]] = []

    def watch(run: RunFolder, console: Console) -> str:
        started.append((run.path.name, run.experiment().runtime.workers))
        raise ConfigError("stopped here")

    monkeypatch.setattr(sim.cli.experiments, "watch", watch)
    monkeypatch.setattr(sim.cli.experiments, "write_sweep_report", lambda sweep: "")
    return started


def stopped(run: RunFolder, console: Console) -> str:
    raise KeyboardInterrupt


def test_a_run_that_is_stopped_says_in_a_line_how_to_go_on_and_ends_with_code_130(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim.cli.experiments, "watch", stopped)
    monkeypatch.chdir(run.path.parent)
    done = CliRunner().invoke(cli, ["run", "--resume", "run"])
    assert (done.exit_code, done.stderr) == (130, "veilsim: stopped; go on with: veilsim run --resume run\n")


def test_a_run_that_is_told_to_end_does_so_as_if_it_were_stopped_and_ends_with_code_143(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(run: RunFolder, console: Console) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        return "was not told"

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sim.cli.experiments, "watch", told)
    monkeypatch.chdir(run.path.parent)
    done = CliRunner().invoke(cli, ["run", "--resume", "run"])
    assert (done.exit_code, done.stderr) == (143, "veilsim: stopped; go on with: veilsim run --resume run\n")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_damaged_cell_of_a_sweep_is_named_and_costs_the_others_nothing(
    sweep: SweepFolder, watched: list[tuple[str, int | str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = sweep.runs()[1].path / "config.yaml"
    damaged.write_text(damaged.read_text()[:-100])
    done = CliRunner().invoke(cli, ["run", "--resume", str(sweep.path)])
    assert done.exit_code == 1
    assert f"veilsim: {damaged}: cut off, so that what is left is another experiment" in done.stderr
    assert len(watched) > 1 and sweep.runs()[1].path.name not in str(watched)


def test_a_sweep_that_is_stopped_goes_on_as_a_whole(sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.cli.experiments, "watch", stopped)
    monkeypatch.chdir(sweep.path.parent)
    done = CliRunner().invoke(cli, ["run", "--resume", "sweep"])
    assert (done.exit_code, done.stderr) == (130, "veilsim: stopped; go on with: veilsim run --resume sweep\n")


def test_what_is_stopped_before_there_is_a_folder_says_so(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.cli.experiments, "check", lambda experiment, path: stopped(RunFolder(path), Console()))
    done = CliRunner().invoke(cli, ["run", str(config)])
    assert (done.exit_code, done.stderr) == (130, "veilsim: stopped\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run"], "name a config, such as configs/quickstart.yaml, or a run to --resume"),
        (["report", "nowhere"], "nowhere"),
        (["attack"], "Missing argument 'RUN'"),
        (["attack", "nowhere", "--kind", "itn"], "not a run folder"),
        (["attack", "nowhere", "--kind", "itn", "--user", "x"], "'x' is not a valid int"),
        (["report"], "Missing argument 'RUN...'"),
        (["run", "--nothing"], "--nothing"),
        (["--nothing"], "--nothing"),
        (["nothing"], "nothing: must be one of run, attack, report, bench"),
        (["bench", "nothing"], "bench nothing: must be one of exchange, users"),
        (["bench", "--nothing"], "--nothing"),
    ],
)
def test_what_goes_wrong_in_any_command_is_one_line_and_exit_code_1(arguments: list[str], expected: str) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith("veilsim: ")
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_last_line_is_what_to_do_next(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.cli.experiments, "watch", lambda run, console: f"# Nobody is protected\n\n{REPORT}\n")
    monkeypatch.chdir(run.path.parent)
    done = CliRunner().invoke(cli, ["run", "--resume", "run"])
    assert done.output.splitlines() == [
        "table, figures, weights: run",
        "# Nobody is protected",
        "",
        "veilsim report run",
    ]


def test_the_parts_of_a_sweep_are_lines_of_their_own(sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.cli.experiments, "watch", lambda run, console: "")
    monkeypatch.setattr(sim.cli.experiments, "write_sweep_report", lambda sweep: f"# all\n\n{REPORT}\n")
    monkeypatch.chdir(sweep.path.parent)
    done = CliRunner().invoke(cli, ["run", "--resume", "sweep"])
    assert done.output.splitlines() == [
        *(f"cell {seed + 1}/4: seed={seed}" for seed in (1, 2, 3)),
        "table, cells: sweep",
        "# all",
        "",
        "veilsim report sweep",
    ]


def error_of(*arguments: str | Path) -> str:
    done = CliRunner().invoke(cli, ["run", *map(str, arguments)])
    assert done.exit_code == 1
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr.strip()


def test_a_resumed_sweep_runs_cells_that_are_not_complete_and_those_in_which_something_failed(
    sweep: SweepFolder, watched: list[tuple[str, int | str]]
) -> None:
    CliRunner().invoke(cli, ["run", "--resume", str(sweep.path)])
    assert watched == [("seed=1", 1), ("seed=2", 1), ("seed=3", 1)]


def test_a_run_that_is_complete_is_not_run_again_but_said_to_be_so(
    run: RunFolder, watched: list[tuple[str, int | str]]
) -> None:
    Status("complete").write(run.path)
    (run.path / "summary.md").write_text("4 of 4 users: recovered")
    done = CliRunner().invoke(cli, ["run", "--resume", str(run.path)])
    assert done.exit_code == 0
    assert "4 of 4 users: recovered" in done.output
    assert "complete already: nothing is left to resume" in done.output
    assert not watched
    run.keep_failure("user-0001", "no more disk")  # which is tried again
    CliRunner().invoke(cli, ["run", "--resume", str(run.path)])
    assert watched == [("run", 1)]


def test_a_resumed_run_may_have_another_number_of_workers(run: RunFolder, watched: list[tuple[str, int | str]]) -> None:
    before = run.experiment()
    assert error_of("--resume", run.path, "runtime.workers=2") == "veilsim: stopped here"
    assert watched == [("run", 2)]
    runtime = before.runtime.model_copy(update={"workers": 2})
    assert run.experiment() == before.model_copy(update={"runtime": runtime})


def test_a_resumed_sweep_may_have_it_in_all_cells_that_are_run(
    sweep: SweepFolder, watched: list[tuple[str, int | str]]
) -> None:
    CliRunner().invoke(cli, ["run", "--resume", str(sweep.path), "runtime.workers=auto"])
    assert watched == [("seed=1", "auto"), ("seed=2", "auto"), ("seed=3", "auto")]
    assert sweep.runs()[0].experiment().runtime.workers == 1


@pytest.mark.parametrize(
    "given",
    [["user.alpha=0.3"], ["runtime.workers=2", "runtime.gpu_fraction=0.5"], ["other.yaml"], ["--out", "elsewhere"]],
)
def test_a_resumed_run_may_have_nothing_else_otherwise(run: RunFolder, given: list[str]) -> None:
    before = (run.path / "config.yaml").read_text()
    (refused,) = [word for word in given if word not in ("runtime.workers=2", "elsewhere")]
    assert error_of("--resume", run.path, *given) == (
        f"veilsim: --resume goes on with a run as it was: it takes runtime.workers=N alone, got '{refused}'"
    )
    assert (run.path / "config.yaml").read_text() == before


def test_a_number_of_workers_that_cannot_be_is_one_line(run: RunFolder) -> None:
    assert "runtime.workers: got 0: must be greater than or equal to 1" in error_of(
        "--resume", run.path, "runtime.workers=0"
    )


def test_a_run_that_another_process_is_working_on_is_not_changed(run: RunFolder) -> None:
    with claim(run.path, "launcher"):
        assert "another process is working on this run" in error_of("--resume", run.path, "runtime.workers=2")
    assert run.experiment().runtime.workers == 1


@pytest.mark.parametrize("below", ["", "run"])
@pytest.mark.parametrize("overrides", [[], ["sweep={seed: [0, 1]}"]], ids=["run", "sweep"])
def test_a_folder_that_cannot_be_made_is_one_line(
    config: Path, tmp_path: Path, below: str, overrides: list[str]
) -> None:
    file = tmp_path / "a file"
    file.write_text("something")
    error = error_of(config, *overrides, "--out", file / below)
    assert error.startswith(f"veilsim: {file}")
    assert "cannot be made a run folder" in error
    assert file.read_text() == "something"


@pytest.mark.parametrize("overrides", [[], ["sweep={seed: [0, 1]}"]], ids=["run", "sweep"])
def test_a_folder_that_holds_other_files_is_left_alone(config: Path, tmp_path: Path, overrides: list[str]) -> None:
    place = tmp_path / "other" / ("cells/seed=0" if overrides else "")
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    assert "holds 'notes.txt'" in error_of(config, *overrides, "--out", tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").rglob("*") if path.is_file()] == ["notes.txt"]
