"""What all commands of the command line have in common."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args, get_type_hints

import click
import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo

from roles.common.files import UnreadableFile
from sim.config.errors import ConfigError, of_system
from sim.run.signals import handling

console = Console(highlight=False)
_errors = Console(stderr=True, soft_wrap=True, highlight=False)


class Stopped(Exception):
    """A run was stopped that can be resumed; the message says how, ``code`` is what to exit with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Terminated(KeyboardInterrupt):
    """This process was told to end (SIGTERM), as clusters do when a job's time is up."""


def code_of(stop: KeyboardInterrupt) -> int:
    """Return what a process that was stopped exits with."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def complain(error: Exception | str) -> None:
    """Say what is wrong, in a line."""
    _errors.print(f"veilsim: {error}", markup=False)


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Say in one line what goes wrong, and end with exit code 1; 130 or 143 where it was stopped."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.ClickException as error:
        complain(error.format_message())
        raise typer.Exit(1) from None
    except (ConfigError, UnreadableFile) as error:
        complain(error)
        raise typer.Exit(1) from None
    except OSError as error:  # such as a full disk, or a folder that cannot be written to
        complain(of_system(error))
        raise typer.Exit(1) from None
    except Stopped as stopped:
        complain(stopped)
        raise typer.Exit(stopped.code) from None
    except KeyboardInterrupt as stop:
        complain("stopped")
        raise typer.Exit(code_of(stop)) from None


class Commands(TyperGroup):
    """Commands of which what goes wrong is one line."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """See :class:`click.Command`."""
        with _in_one_line():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """See :class:`click.Group`."""
        # SIGTERM ends it as Ctrl-C does: what was started is ended, and what can be said is said.
        with _in_one_line(), handling({signal.SIGTERM: _terminate}):
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See :class:`click.Group`."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            asked = args[0] if ctx.parent is None else f"{ctx.info_name} {args[0]}"
            raise ConfigError(f"{asked}: must be one of {', '.join(self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


class Command(TyperCommand):
    """A command whose arguments say what they are: click from 8.5 on takes from typer before 0.21 what it is told."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        hints = get_type_hints(self.callback, include_extras=True)
        for parameter in self.params:
            if isinstance(parameter, click.Argument):
                (told,) = (extra for extra in get_args(hints[parameter.name]) if isinstance(extra, ArgumentInfo))
                parameter.help = told.help
