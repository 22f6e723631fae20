"""Runs of which a file is cut off, as by a disk that was full: it is written anew, or named in one line."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roles.common.files import UnreadableFile
from sim.cli import cli
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.phases.roster import RunFailed
from sim.run.folder import RunFolder
from sim.run.progress import Status
from tests.sim.in_process_run import KilledError, killed_after, run_in, table_of

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(scope="module")
def complete(small: Experiment, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_in(tmp_path_factory.mktemp("whole") / "run", small)[0]


@pytest.fixture(scope="module")
def halfway(small: Experiment, complete: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half") / "run"
    with pytest.raises(KilledError):
        run_in(folder, small, killed_after(24))
    return folder


def damaged_copies(run: Path, folder: Path) -> list[tuple[Path, Path]]:
    """Return copies of a run, each with the file of it that is cut to half its length there."""
    found = []
    for number, path in enumerate(sorted(path for path in run.rglob("*") if path.is_file())):
        if path.suffix in (".lock", ".log") or path.stat().st_size == 0:
            continue
        copy = folder / f"{number}" / "run"
        shutil.copytree(run, copy)
        cut = copy / path.relative_to(run)
        cut.write_bytes(cut.read_bytes()[: path.stat().st_size // 2])
        found.append((copy, cut))
    return found


def is_named(cut: Path, said: str) -> bool:
    return len(said.splitlines()) == 1 and cut.name in said


def test_a_page_of_a_run_with_a_damaged_file_is_written_without_it_or_names_it(
    complete: RunFolder, tmp_path: Path
) -> None:
    wrong = {}
    for copy, cut in damaged_copies(complete.path, tmp_path):
        done = CliRunner().invoke(cli, ["report", str(copy)])
        print(cut.relative_to(copy), done.exit_code, done.stderr, repr(done.exception))
        if done.exit_code and not is_named(cut, done.stderr.strip()):
            wrong[str(cut.relative_to(copy))] = repr(done.exception) + done.stderr
    assert wrong == {}


def test_a_complete_run_whose_table_is_damaged_is_not_done_and_has_it_again_when_resumed(
    complete: RunFolder, small: Experiment, tmp_path: Path
) -> None:
    shutil.copytree(complete.path, tmp_path / "run")
    run, table = RunFolder(tmp_path / "run"), tmp_path / "run" / "table.parquet"
    assert run.is_done()
    table.write_bytes(table.read_bytes()[:200])
    assert not run.is_done()
    assert table_of(run_in(run.path, small)[0]).equals(table_of(complete))
    assert run.is_done()


def test_a_config_that_was_changed_by_hand_is_told_from_one_that_was_cut_off(
    complete: RunFolder, tmp_path: Path
) -> None:
    shutil.copytree(complete.path, tmp_path / "run")
    run, path = RunFolder(tmp_path / "run"), tmp_path / "run" / "config.yaml"
    whole = path.read_text()
    for changed in (whole.replace("alpha: 0.1", "alpha: 0.2"), whole + "seed: 5\n"):
        path.write_text(changed)
        with pytest.raises(UnreadableFile, match=r"config\.yaml: changed by hand since the run began"):
            run.experiment()
    for length in range(len(whole) - 1):
        path.write_text(whole[:length])
        with pytest.raises(UnreadableFile, match=r"config\.yaml: cut off, so that what is left is another experiment"):
            run.experiment()


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_with_a_damaged_file_goes_on_to_the_same_end_or_names_it(
    whole: bool, complete: RunFolder, halfway: Path, small: Experiment, tmp_path: Path
) -> None:
    wrong, expected = {}, table_of(complete)
    for copy, cut in damaged_copies(complete.path if whole else halfway, tmp_path):
        if cut.name != "status.json":
            Status("users").write(copy)
        said = ""
        try:
            run, _ = run_in(copy, small)
            table = table_of(run)
            if not table.equals(expected):
                said = " ".join(table["failure"].dropna()).strip() or "another table"
        except (ConfigError, RunFailed, UnreadableFile) as error:
            said = str(error)
        except Exception as error:
            said = f"{error!r}\n"
        print(cut.relative_to(copy), said)
        if said and not is_named(cut, said):
            wrong[str(cut.relative_to(copy))] = said
    assert wrong == {}
