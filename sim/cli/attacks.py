"""What ``veilsim attack`` does: it adds an attack to the config of a finished run, which then goes on with it."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from sim.cli.commands import console
from sim.config.added import attack_kinds, with_attack
from sim.config.checks import check
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.run.environment import environment
from sim.run.folder import RunFolder
from sim.run.ownership import claim
from sim.run.progress import Status
from sim.run.sweep import SweepFolder

_PSI = ("digest", "reused", "seconds")
"""What a run that goes on has to know of its psi."""


def attacked(path: Path, kind: str | None, keys: Sequence[str], users: Sequence[int]) -> RunFolder | SweepFolder:
    """Add an attack to a finished run, or to all cells of a sweep: to none of them unless all can have it.

    Args:
        path: the folder.
        kind: see :func:`with_attack`, as of the others.

    Raises:
        ConfigError: there is no such run, it is not complete, another process works on it, or it cannot have this.
    """
    if kind is None:
        raise ConfigError(f"--kind: missing: must be one of {', '.join(attack_kinds())}")
    prepared = SweepFolder(path) if SweepFolder.is_one(path) else RunFolder.open(path)
    runs = prepared.runs() if isinstance(prepared, SweepFolder) else [prepared]
    with ExitStack() as claims:
        for folder in dict.fromkeys([path, *(run.path for run in runs)]):
            claims.enter_context(claim(folder, "launcher"))
        for run in runs:
            claims.enter_context(claim(run.path, "server"))
        added = [(run, _with_attack(run, kind, keys, users)) for run in runs]
        for run, experiment in added:
            with console.status("preparing data"):
                check(experiment, run.path / "config.yaml")
        for run, experiment in added:
            _add(run, experiment)
    return prepared


def _with_attack(run: RunFolder, kind: str, keys: Sequence[str], users: Sequence[int]) -> Experiment:
    phase = Status.read(run.path).phase
    if phase != "complete":
        go_on = f"go on with it first: veilsim run --resume {run.path}"
        raise ConfigError(f"{run.path}: not complete, so that there is not all to attack (phase {phase}); {go_on}")
    if lacking := [name for name in _PSI if name not in run.facts().get("psi", {})]:
        older = f"run.json does not tell psi's {', '.join(lacking)}, as an earlier version wrote it"
        raise ConfigError(f"{run.path}: cannot go on ({older}): veilsim run {run.path / 'config.yaml'} runs it anew")
    experiment = with_attack(run.experiment(), kind, keys, users).resolved()
    if missing := [user for user in users if user not in run.published()]:
        raise ConfigError(f"--user: got {missing[0]}: has not published in {run.path}: there is nothing to attack")
    return experiment


def _add(run: RunFolder, experiment: Experiment) -> None:
    # In this order: a run that is killed in between is resumed, and is not said to be complete while it lacks anything.
    Status("starting", "adding an attack").write(run.path)
    run.keep_experiment(experiment)
    facts = run.facts()
    now = environment() | {"seconds_before": facts.get("seconds", 0.0)}
    run.note({"added": [*facts.get("added", []), now]})
