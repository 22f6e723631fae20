"""What ``veilsim run`` does: it makes or opens the folder of a run or a sweep, and runs what is left of it."""

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from roles.common.files import UnreadableFile
from sim.cli.commands import Stopped, code_of, complain, console
from sim.config.checks import check
from sim.config.errors import ConfigError, in_our_words, of_system
from sim.config.experiment import Experiment
from sim.config.files import load_experiment
from sim.report.page.write import renew_page
from sim.report.sweep import write_sweep_report
from sim.report.terminal import print_summary
from sim.report.text import REPORT
from sim.run.folder import RunFolder
from sim.run.launch import app_folder
from sim.run.ownership import claim
from sim.run.sweep import Cell, SweepFolder, is_sweep, load_cells
from sim.run.watch import named, resuming, watch

_CHANGEABLE = "runtime.workers"
"""What a resumed run may have otherwise than before: it changes no result."""


def created(config: Path, overrides: list[str], out: Path | None) -> RunFolder | SweepFolder:
    """Make the folder of a new run or sweep.

    Args:
        config: its config, also relative to this checkout.
        overrides: ``key=value``, on top of it.
        out: the folder; by default one under ``runs``.

    Raises:
        ConfigError: it cannot be run, or there can be no such folder.
    """
    if not config.is_file() and (app_folder() / config).is_file():
        config = app_folder() / config
    sweep = is_sweep(config, overrides)
    cells = load_cells(config, overrides) if sweep else [Cell("", {}, load_experiment(config, overrides))]
    with in_our_words(config):
        cells = [replace(cell, experiment=cell.experiment.resolved()) for cell in cells]
    for cell in cells:
        if cell.experiment.users.count == "auto":
            needed = "veilsim run sizes the federation itself; give a number"
            raise ConfigError(f"{config}: users.count: got 'auto': {needed}")
        _check(cell.experiment, config)
    name = cells[0].experiment.name
    folder = (out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    return SweepFolder.create(folder, name, cells) if sweep else RunFolder.create(folder, cells[0].experiment)


def resumed(path: Path, overrides: list[str]) -> RunFolder | SweepFolder:
    """Return the run or sweep in a folder, with the ``overrides`` that a resumed one may be given.

    Raises:
        ConfigError: there is none, another process works on it, or an override changes what it is.
    """
    if other := next((given for given in overrides if given.partition("=")[0] != _CHANGEABLE), None):
        raise ConfigError(f"--resume goes on with a run as it was: it takes {_CHANGEABLE}=N alone, got {other!r}")
    prepared = SweepFolder(path) if SweepFolder.is_one(path) else RunFolder.open(path)
    if overrides:
        with claim(path, "launcher"):
            for run in prepared.runs() if isinstance(prepared, SweepFolder) else [prepared]:
                with suppress(UnreadableFile):  # of a cell: it is named when its turn comes
                    if not run.is_done():
                        run.keep_experiment(run.experiment(overrides))
    if isinstance(prepared, RunFolder) and not prepared.is_done():
        _check(prepared.experiment(), prepared.path / "config.yaml")
    return prepared


def finish(prepared: RunFolder | SweepFolder) -> None:
    """Run what is left of a run or a sweep, and print what was found.

    Raises:
        ConfigError: it failed.
        Stopped: whoever waits for it has stopped it.
    """
    try:
        if isinstance(prepared, SweepFolder):
            _watch_all(prepared)
        else:
            _watch_one(prepared)
        with console.status("writing the page"):
            renew_page(prepared.path)
    except KeyboardInterrupt as stop:
        raise Stopped(f"stopped; go on with: {resuming(prepared.path)}", code_of(stop)) from None
    except OSError as error:  # such as a disk that is full
        told = of_system(error, prepared.path)
        raise ConfigError(f"{told} (resume with: {resuming(prepared.path)})") from error


def _check(experiment: Experiment, path: Path) -> None:
    with console.status("preparing data"):
        store = check(experiment, path)
    if store.shared:
        total, name = store.counts["test"], experiment.data.name
        complain(f"warning: data.name {name!r}: {store.shared} of {total} test images are training images as well")


def _watch_one(run: RunFolder) -> None:
    complete = run.is_done()
    summary = (run.path / "summary.md").read_text() if complete else watch(run, console)
    if complete:
        console.print("the run was complete already: nothing is left to resume")
    _show(summary, "table, figures, weights", run.path)


def _watch_all(sweep: SweepFolder) -> None:
    """Run all cells that are not complete or in which something failed, and print the summary of all.

    Raises:
        ConfigError: some failed; the others were run all the same.
    """
    runs, failed = sweep.runs(), 0
    with claim(sweep.path, "launcher"):
        for number, run in enumerate(runs, 1):
            try:
                if run.is_done():
                    continue
                console.print(f"cell {number}/{len(runs)}: {run.path.name}")
                _check(run.experiment(), run.path / "config.yaml")
                watch(run, console)
            except (ConfigError, UnreadableFile) as error:
                failed += 1
                complain(error)
    _show(write_sweep_report(sweep), "table, cells", sweep.path)
    if failed:
        raise ConfigError(f"{failed} of {len(runs)} cells failed (resume with: {resuming(sweep.path)})")


def _show(summary: str, what: str, path: Path) -> None:
    """Say where the results are and what was found; the summary's last line, what to do next, names the folder."""
    console.print(f"{what}: {named(path)}", soft_wrap=True, markup=False)
    print_summary(console, summary.replace(REPORT, f"veilsim report {named(path)}"))
