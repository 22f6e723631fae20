"""The command line: ``veilsim run CONFIG [key=value ...]``."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.commands import Command, Commands, console
from sim.config.errors import ConfigError

_LOADING = "loading PyTorch"
"""What commands that need it do first, and others not at all: it takes seconds, and a shell completes them."""

cli = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)
_benchmarks = typer.Typer(cls=Commands, no_args_is_help=True)
cli.add_typer(_benchmarks, name="bench")


@cli.callback()
def _veilsim() -> None:
    """Many users, one provider, an evaluator: transformation-network training on Flower and Ray.

    Example: veilsim run configs/quickstart.yaml
    """


@cli.command(cls=Command)
def run(
    config: Annotated[Path | None, typer.Argument(help="Experiment to run, such as configs/quickstart.yaml.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to have otherwise than the config has it: any of its keys, such as user.alpha=0.01.",
            metavar="[KEY=VALUE]...",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder of a run that was interrupted: go on with it (and, if so, runtime.workers=N)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run (by default runs/NAME-DATE).")] = None,
) -> None:
    """Run an experiment, or all experiments of a sweep, and print what was found.

    Example: veilsim run configs/quickstart.yaml users.count=8

    Example: veilsim run --resume runs/quickstart-20260101-120000
    """
    with console.status(_LOADING):
        from sim.cli.experiments import created, finish, resumed
    if resume is not None:
        # The first override stands where a config would.
        given = [*([] if config is None else [str(config)]), *(overrides or []), *([] if out is None else ["--out"])]
        finish(resumed(resume.resolve(), given))
    elif config is not None:
        finish(created(config, overrides or [], out))
    else:
        raise ConfigError("name a config, such as configs/quickstart.yaml, or a run to --resume")


def _attack_kinds() -> list[str]:
    from sim.config.added import attack_kinds

    return attack_kinds()


@cli.command(cls=Command)
def attack(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or of a sweep: all of its cells.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(
            help="What the attack is like, as its section of a config: name=wide width=128 of an ITN, which has all "
            "else from the last one of the run; steps=1000 of an inversion.",
            metavar="[KEY=VALUE]...",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="itn, an inverse network, or a kind of study; without it, you are told all.",
            autocompletion=_attack_kinds,
        ),
    ] = None,
    user: Annotated[
        list[int] | None,
        typer.Option(
            help="Whom to attack, by number, once or several times; by default everybody.", show_default=False
        ),
    ] = None,
) -> None:
    """Attack what a finished run has published once more, and add what comes back to its results.

    Example: veilsim attack runs/quickstart-20260101-120000 --kind itn name=wide width=128 training.epochs=400

    Example: veilsim attack runs/quickstart-20260101-120000 --kind inversion --user 0 --user 2 steps=1000
    """
    with console.status(_LOADING):
        from sim.cli.attacks import attacked
        from sim.cli.experiments import finish
    finish(attacked(run.resolve(), kind, keys or [], user or []))


@_benchmarks.callback()
def _bench() -> None:
    """Run a benchmark of this checkout.

    Example: veilsim bench exchange --ways limit,direct,relay
    """


_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@_benchmarks.command(context_settings=_PASSED_ON)
def exchange(context: typer.Context) -> None:
    """What the exchange costs: the same users trained by veilsim, by Flower as it is first written, by plain PyTorch.

    Example: veilsim bench exchange --ways limit,direct,relay
    """
    _run_benchmark(context)


@_benchmarks.command(context_settings=_PASSED_ON)
def users(context: typer.Context) -> None:
    """What a user costs: the same work shared by 10, 100 or 1,000 users.

    Example: veilsim bench users --users 10,100
    """
    _run_benchmark(context)


@_benchmarks.command(context_settings=_PASSED_ON)
def deployment(context: typer.Context) -> None:
    """What a step costs in a deployment on this machine, beside a simulation.

    Example: veilsim bench deployment --steps 200
    """
    _run_benchmark(context)


def _run_benchmark(context: typer.Context) -> None:
    with console.status(_LOADING):
        from sim.run.launch import app_folder
    path = os.pathsep.join([str(app_folder()), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    command = [sys.executable, "-m", f"tests.bench.{context.info_name}", *context.args]
    raise typer.Exit(subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False).returncode)


@cli.command(cls=Command)
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs or sweeps; several are compared.", metavar="RUN...")
    ],
    out: Annotated[Path | None, typer.Option(help="The file (by default report.html in the first folder).")] = None,
) -> None:
    """Write what runs found as one HTML file that holds everything within itself.

    Example: veilsim report runs/quickstart-20260101-120000
    """
    with console.status(_LOADING):
        from sim.report.page.write import write_page
        from sim.run.watch import named
    with console.status("writing the page"):
        page = write_page(runs, out)
    console.print(f"report: {named(page)}", soft_wrap=True, markup=False)


def main() -> None:
    """Entry point of the ``veilsim`` command."""
    cli()
