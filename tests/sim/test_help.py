"""Every command says what it is for and shows how it is called."""

import click
import pytest
import typer
from typer.testing import CliRunner

from sim.cli import cli

_COMMAND = typer.main.get_command(cli)


def commands(command: click.Command, *path: str) -> list[tuple[str, ...]]:
    """Return the words by which a command and all below it are called."""
    below = command.commands.items() if isinstance(command, click.Group) else ()
    return [path, *(words for name, one in below for words in commands(one, *path, name))]


def help_of(path: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> str:
    """Return what ``--help`` prints, in this process or in a benchmark's own, as one line."""
    done = CliRunner().invoke(cli, [*path, "--help"], env={"COLUMNS": "200"}, prog_name="veilsim")
    assert done.exit_code == 0, done.output
    return " ".join((done.output + capfd.readouterr().out).split())


def test_the_commands_are_these() -> None:
    expected = {(), ("run",), ("attack",), ("report",), ("bench",)}
    expected |= {("bench", name) for name in ("exchange", "users", "deployment")}
    assert set(commands(_COMMAND)) == expected


@pytest.mark.parametrize("path", commands(_COMMAND), ids=lambda path: " ".join(path) or "veilsim")
def test_every_command_has_help_with_an_example_of_itself(
    path: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    text, name = help_of(path, capfd), " ".join(["veilsim", *path])
    assert f"Usage: {name} " in text
    assert f"Example: {name} " in text


def test_help_on_benchmarks_lists_them(capfd: pytest.CaptureFixture[str]) -> None:
    text = help_of(("bench",), capfd)
    assert "exchange What the exchange costs" in text
    assert "users What a user costs" in text
    assert "deployment What a step costs in a deployment" in text


def parameters(command: click.Command) -> list[click.Parameter]:
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return [*command.params, *(parameter for one in below for parameter in parameters(one))]


@pytest.mark.parametrize("parameter", parameters(_COMMAND), ids=lambda parameter: parameter.name)
def test_every_argument_and_option_says_what_it_is(parameter: click.Parameter) -> None:
    assert getattr(parameter, "help", None)


def test_the_help_of_a_run_says_what_config_and_overrides_are(capfd: pytest.CaptureFixture[str]) -> None:
    text = help_of(("run",), capfd)
    assert "Experiment to run, such as configs/quickstart.yaml." in text
    assert "any of its keys, such as user.alpha=0.01" in text


def test_shells_can_complete_commands(capfd: pytest.CaptureFixture[str]) -> None:
    assert "--install-completion" in help_of((), capfd)
    completing = {"_VEILSIM_COMPLETE": "complete_bash", "COMP_WORDS": "veilsim bench ", "COMP_CWORD": "2"}
    done = CliRunner().invoke(cli, [], env=completing, prog_name="veilsim")
    assert sorted(done.output.split()) == ["deployment", "exchange", "users"]


def test_shells_can_complete_the_kinds_of_attacks() -> None:
    completing = {"_VEILSIM_COMPLETE": "complete_bash", "COMP_WORDS": "veilsim attack RUN --kind i", "COMP_CWORD": "4"}
    done = CliRunner().invoke(cli, [], env=completing, prog_name="veilsim")
    assert {"itn", "inversion"} <= set(done.output.split())
    assert all(kind.startswith("i") for kind in done.output.split())
