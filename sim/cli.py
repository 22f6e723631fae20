"""The command line: ``veilsim run CONFIG [key=value ...]``."""

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from sim.config import ConfigError, check, load_experiment
from sim.launch import app_folder, log_of, simulation, simulation_failed
from sim.ownership import claim
from sim.progress import ProgressLine, Status
from sim.runs import RunFolder

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
_console = Console()
_errors = Console(stderr=True, soft_wrap=True, highlight=False)
_POLL_S = 0.5


@cli.callback()
def _veilsim() -> None:
    """Many users, one provider, an evaluator: transformation-network training on Flower and Ray."""


@cli.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="Experiment to run, such as configs/quickstart.yaml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value on top of it.", metavar="[KEY=VALUE]...")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a run that was interrupted: go on with it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run (by default runs/NAME-DATE).")] = None,
) -> None:
    """Run an experiment and print what it found."""
    try:
        folder = _prepare(config, overrides or [], resume, out)
        _watch(folder)
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


def _prepare(config: Path | None, overrides: list[str], resume: Path | None, out: Path | None) -> RunFolder:
    if resume is not None:
        if config is not None or overrides or out is not None:
            raise ConfigError("--resume goes on with a run as it was: it takes no config, no overrides and no --out")
        folder = RunFolder.open(resume.resolve())
        check(folder.experiment(), folder.path / "config.yaml")
        return folder
    if config is None:
        raise ConfigError("name a config, such as configs/quickstart.yaml, or a run to --resume")
    if not config.is_file() and (app_folder() / config).is_file():
        config = app_folder() / config
    experiment = load_experiment(config, overrides).resolved()
    if experiment.users.count == "auto":
        raise ConfigError(f"{config}: users.count: got 'auto': veilsim run sizes the federation itself; give a number")
    with _console.status("preparing data"):
        check(experiment, config)
    path = out or Path("runs") / f"{experiment.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return RunFolder.create(path.resolve(), experiment)


def _watch(run: RunFolder) -> None:
    """Run the simulation of a prepared folder, showing how far it is; print its summary.

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
    _console.print(Markdown((run.path / "summary.md").read_text()))
    _console.print(f"table, figures, weights: {run.path}", soft_wrap=True, highlight=False)


def main() -> None:
    """Entry point of the ``veilsim`` command."""
    cli()


if __name__ == "__main__":
    main()
