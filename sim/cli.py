"""The command line: ``veilsim run CONFIG [key=value ...]``."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text
from typer.core import TyperGroup

from sim.config.checks import check
from sim.config.errors import ConfigError
from sim.config.files import load_experiment
from sim.report.page.write import write_page
from sim.report.sweep import write_sweep_report
from sim.run.folder import RunFolder
from sim.run.launch import app_folder, log_of, simulation, simulation_failed
from sim.run.ownership import claim
from sim.run.progress import ProgressLine, Status
from sim.run.sweep import Cell, SweepFolder, is_sweep, load_cells

_console = Console(highlight=False)
_errors = Console(stderr=True, soft_wrap=True, highlight=False)
_POLL_S = 0.5
_CHANGEABLE = "runtime.workers"
"""What a resumed run may have otherwise than before: it changes no result."""
_BENCHMARKS = ("exchange", "users")


def _complain(error: ConfigError) -> None:
    _errors.print(f"veilsim: {error}", markup=False)


class _Commands(TyperGroup):
    """Commands of which what goes wrong is one line, and exit code 1; 130 where they were stopped."""

    def invoke(self, ctx: Any) -> Any:
        """See :class:`click.Group`."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            _complain(error)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            _errors.print("veilsim: stopped")
            raise typer.Exit(130) from None


cli = typer.Typer(cls=_Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


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
    if resume is not None:
        # The first override stands where a config would.
        given = [*([] if config is None else [str(config)]), *(overrides or []), *([] if out is None else ["--out"])]
        prepared = _resumed(resume.resolve(), given)
    elif config is not None:
        prepared = _created(config, overrides or [], out)
    else:
        raise ConfigError("name a config, such as configs/quickstart.yaml, or a run to --resume")
    if isinstance(prepared, SweepFolder):
        _watch_all(prepared)
    else:
        complete = prepared.is_done()
        _console.print(Markdown((prepared.path / "summary.md").read_text() if complete else _watch(prepared)))
        if complete:
            _console.print("the run was complete already: nothing is left to resume")
        _console.print(f"table, figures, weights: {prepared.path}", soft_wrap=True)


@cli.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(context: typer.Context, name: Annotated[str, typer.Argument(help="exchange or users.")]) -> None:
    """Run a benchmark of this checkout; --help after its name tells its options."""
    if name not in _BENCHMARKS:
        raise ConfigError(f"bench {name}: must be one of {', '.join(_BENCHMARKS)}")
    path = os.pathsep.join([str(app_folder()), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
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
    _console.print(f"report: {write_page(runs, out)}", soft_wrap=True)


def _created(config: Path, overrides: list[str], out: Path | None) -> RunFolder | SweepFolder:
    if not config.is_file() and (app_folder() / config).is_file():
        config = app_folder() / config
    sweep = is_sweep(config, overrides)
    cells = load_cells(config, overrides) if sweep else [Cell("", {}, load_experiment(config, overrides))]
    cells = [replace(cell, experiment=cell.experiment.resolved()) for cell in cells]
    for cell in cells:
        if cell.experiment.users.count == "auto":
            needed = "veilsim run sizes the federation itself; give a number"
            raise ConfigError(f"{config}: users.count: got 'auto': {needed}")
        with _console.status("preparing data"):
            check(cell.experiment, config)
    name = cells[0].experiment.name
    folder = (out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    return SweepFolder.create(folder, name, cells) if sweep else RunFolder.create(folder, cells[0].experiment)


def _resumed(path: Path, overrides: list[str]) -> RunFolder | SweepFolder:
    if other := next((given for given in overrides if given.partition("=")[0] != _CHANGEABLE), None):
        raise ConfigError(f"--resume goes on with a run as it was: it takes {_CHANGEABLE}=N alone, got {other!r}")
    prepared = SweepFolder(path) if SweepFolder.is_one(path) else RunFolder.open(path)
    if overrides:
        with claim(path, "launcher"):
            for run in prepared.runs() if isinstance(prepared, SweepFolder) else [prepared]:
                if not run.is_done():
                    run.keep_experiment(load_experiment(run.path / "config.yaml", overrides))
    if isinstance(prepared, RunFolder) and not prepared.is_done():
        check(prepared.experiment(), prepared.path / "config.yaml")
    return prepared


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
            _console.print(f"cell {number}/{len(runs)}: {run.path.name}")
            try:
                check(run.experiment(), run.path / "config.yaml")
                _watch(run)
            except ConfigError as error:
                failed += 1
                _complain(error)
    _console.print(Markdown(write_sweep_report(sweep)))
    _console.print(f"table, cells: {sweep.path}", soft_wrap=True)
    if failed:
        raise ConfigError(f"{failed} of {len(runs)} cells failed (resume with: veilsim run --resume {sweep.path})")


def _watch(run: RunFolder) -> str:
    """Run the simulation of a prepared folder, showing how far it is; return its summary.

    Raises:
        ConfigError: the run failed; the message says why.
    """
    _console.print(f"run folder: {run.path}", soft_wrap=True)
    began, log, ended = time.monotonic(), log_of(run.path), False
    # What an earlier attempt has logged is not about this one.
    seen = log.stat().st_size if log.is_file() else 0
    with (
        claim(run.path, "launcher"),
        simulation(run.path, run.experiment()) as superlink,
        Live(console=_console, refresh_per_second=4) as live,
    ):
        line = ProgressLine(run.path)
        while (status := Status.read(run.path)).phase not in ("complete", "failed"):
            # The ServerApp may have had its last word before the simulation ended.
            if ended:
                status = Status("failed", error=f"the simulation ended without a word; see {log}")
                break
            live.update(Text(line.of(status)))
            ended = superlink.poll() is not None or simulation_failed(run.path, seen)
            time.sleep(0 if ended else _POLL_S)
        live.update(Text(f"{status.phase} after {timedelta(seconds=round(time.monotonic() - began))}"))
    if status.phase == "failed":
        raise ConfigError(f"{status.error} (resume with: veilsim run --resume {run.path})")
    return (run.path / "summary.md").read_text()


def main() -> None:
    """Entry point of the ``veilsim`` command."""
    cli()


if __name__ == "__main__":
    main()
