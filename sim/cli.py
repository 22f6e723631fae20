"""The command line: ``veilsim run CONFIG [key=value ...]``."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from sim.checks import check
from sim.config import ConfigError, Experiment
from sim.config_files import load_experiment
from sim.launch import app_folder, log_of, simulation, simulation_failed
from sim.ownership import claim
from sim.page import write_page
from sim.progress import ProgressLine, Status
from sim.runs import RunFolder
from sim.sweep import SweepFolder, is_sweep, load_cells

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
_console = Console()
_errors = Console(stderr=True, soft_wrap=True, highlight=False)
_POLL_S = 0.5
_CHANGEABLE = "runtime.workers"
"""What a resumed run may have otherwise than before: it changes no result."""


@cli.callback()
def _veilsim() -> None:
    """Many users, one provider, an evaluator: transformation-network training on Flower and Ray."""


@cli.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="Experiment to run, such as configs/quickstart.yaml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value on top of it.", metavar="[KEY=VALUE]...")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder of a run that was interrupted: go on with it (and, if so, runtime.workers=N)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run (by default runs/NAME-DATE).")] = None,
) -> None:
    """Run an experiment, or all experiments of a sweep, and print what was found."""
    try:
        prepared = _prepare(config, overrides or [], resume, out)
        if isinstance(prepared, SweepFolder):
            _watch_all(prepared)
        else:
            _console.print(Markdown(_watch(prepared)))
            _console.print(f"table, figures, weights: {prepared.path}", soft_wrap=True, highlight=False)
    except ConfigError as error:
        _errors.print(f"veilsim: {error}", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _errors.print("veilsim: stopped")
        raise typer.Exit(130) from None


@cli.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def bench(context: typer.Context, name: Annotated[str, typer.Argument(help="exchange or users.")]) -> None:
    """Run a benchmark of this checkout; --help after its name tells its options."""
    names = ("exchange", "users")
    try:
        if name not in names:
            raise ConfigError(f"bench {name}: must be one of {', '.join(names)}")
        path = os.pathsep.join([str(app_folder()), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    except ConfigError as error:
        _errors.print(f"veilsim: {error}", markup=False)
        raise typer.Exit(1) from None
    command = [sys.executable, "-m", f"tests.bench.{name}", *context.args]
    raise typer.Exit(subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False).returncode)


@cli.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs or sweeps; several are compared.", metavar="RUN...")
    ],
    out: Annotated[Path | None, typer.Option(help="The file (by default report.html in the first folder).")] = None,
) -> None:
    """Write what runs found as one HTML file that holds everything within itself."""
    try:
        _console.print(f"report: {write_page(runs, out)}", soft_wrap=True, highlight=False)
    except ConfigError as error:
        _errors.print(f"veilsim: {error}", markup=False)
        raise typer.Exit(1) from None


def _prepare(
    config: Path | None, overrides: list[str], resume: Path | None, out: Path | None
) -> RunFolder | SweepFolder:
    if resume is not None:
        # The first override stands where a config would.
        given = [*([] if config is None else [str(config)]), *overrides, *([] if out is None else ["--out"])]
        return _resumed(resume.resolve(), given)
    if config is None:
        raise ConfigError("name a config, such as configs/quickstart.yaml, or a run to --resume")
    if not config.is_file() and (app_folder() / config).is_file():
        config = app_folder() / config
    if is_sweep(config, overrides):
        cells = load_cells(config, overrides)
        resolved = [replace(cell, experiment=_checked(cell.experiment, config)) for cell in cells]
        name = resolved[0].experiment.name
        return SweepFolder.create(_new_folder(out, name), name, resolved)
    experiment = _checked(load_experiment(config, overrides), config)
    return RunFolder.create(_new_folder(out, experiment.name), experiment)


def _resumed(path: Path, overrides: list[str]) -> RunFolder | SweepFolder:
    if other := next((given for given in overrides if given.partition("=")[0] != _CHANGEABLE), None):
        raise ConfigError(f"--resume goes on with a run as it was: it takes {_CHANGEABLE}=N alone, got {other!r}")
    prepared = SweepFolder(path) if SweepFolder.is_one(path) else RunFolder.open(path)
    if overrides:
        runs = prepared.runs() if isinstance(prepared, SweepFolder) else [prepared]
        with claim(path, "launcher"):
            for run in runs:
                if not run.is_done():
                    run.override(overrides)
    if isinstance(prepared, RunFolder):
        check(prepared.experiment(), prepared.path / "config.yaml")
    return prepared


def _checked(experiment: Experiment, config: Path) -> Experiment:
    experiment = experiment.resolved()
    if experiment.users.count == "auto":
        raise ConfigError(f"{config}: users.count: got 'auto': veilsim run sizes the federation itself; give a number")
    with _console.status("preparing data"):
        check(experiment, config)
    return experiment


def _new_folder(out: Path | None, name: str) -> Path:
    return (out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}").resolve()


def _watch_all(sweep: SweepFolder) -> None:
    """Run all cells that are not complete or in which something failed, and print the summary of all.

    Raises:
        ConfigError: some failed; the others were run all the same.
    """
    runs, failed = sweep.runs(), 0
    with claim(sweep.path, "launcher"):
        for number, run in enumerate(runs, 1):
            if run.is_done():
                continue
            _console.print(f"cell {number}/{len(runs)}: {run.path.name}", highlight=False)
            try:
                check(run.experiment(), run.path / "config.yaml")
                _watch(run)
            except ConfigError as error:
                failed += 1
                _errors.print(f"veilsim: {error}", markup=False)
    _console.print(Markdown(sweep.write_report()))
    _console.print(f"table, cells: {sweep.path}", soft_wrap=True, highlight=False)
    if failed:
        raise ConfigError(f"{failed} of {len(runs)} cells failed (resume with: veilsim run --resume {sweep.path})")


def _watch(run: RunFolder) -> str:
    """Run the simulation of a prepared folder, showing how far it is; return its summary.

    Raises:
        ConfigError: the run failed; the message says why.
    """
    _console.print(f"run folder: {run.path}", soft_wrap=True, highlight=False)
    began = time.monotonic()
    log = log_of(run.path)
    # What an earlier attempt has logged is not about this one.
    seen = log.stat().st_size if log.is_file() else 0
    with (
        claim(run.path, "launcher"),
        simulation(run.path, run.experiment()) as superlink,
        Live(console=_console, refresh_per_second=4) as live,
    ):
        line = ProgressLine(run.path)
        while (status := Status.read(run.path)).phase not in ("complete", "failed"):
            live.update(Text(line.of(status)))
            if superlink.poll() is not None or simulation_failed(run.path, seen):
                # The ServerApp may have had its last word in between.
                status = Status.read(run.path)
                if status.phase not in ("complete", "failed"):
                    status = Status("failed", error=f"the simulation ended without a word; see {log}")
                break
            time.sleep(_POLL_S)
        live.update(Text(f"{status.phase} after {timedelta(seconds=round(time.monotonic() - began))}"))
    if status.phase == "failed":
        raise ConfigError(f"{status.error} (resume with: veilsim run --resume {run.path})")
    return (run.path / "summary.md").read_text()


def main() -> None:
    """Entry point of the ``veilsim`` command."""
    cli()


if __name__ == "__main__":
    main()
