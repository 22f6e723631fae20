"""What ``veilsim attack`` makes of its arguments, before anything is started."""

from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

import sim.cli.experiments
from sim.cli import cli
from sim.config.added import attack_kinds, with_attack
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.run.folder import Publication, RunFolder
from sim.run.ownership import claim
from sim.run.progress import Status
from sim.run.sweep import SweepFolder, load_cells

NEEDED = {"itn": ["name=wide"]}
"""By kind: the keys that have no value unless they are given."""


@pytest.fixture
def experiment(experiment: Experiment) -> Experiment:
    """Two inverse networks and a study."""
    recipe = {"epochs": 3, "optimiser": "adam", "lr": 0.01}
    itns = [{"name": "paper", "depth": 2, "training": {"epochs": 1}}]
    itns += [{"name": "strong", "depth": 3, "width": 8, "mirrors": "image", "training": recipe}]
    more = {"attack": {"test_images": 30, "blur_sigma": 0.5, "itns": itns}, "studies": [{"kind": "transfer"}]}
    return Experiment.model_validate(experiment.model_dump() | more)


def complete(run: RunFolder) -> RunFolder:
    """Make it a run in which the second user has failed."""
    run.keep_user(0, {}, Publication({}, []))
    run.note({"psi": {"digest": "0" * 64, "reused": False, "seconds": 1.0}, "seconds": 60.0})
    Status("complete").write(run.path)
    return run


@pytest.fixture
def run(experiment: Experiment, tmp_path: Path) -> RunFolder:
    return complete(RunFolder.create(tmp_path / "run", experiment))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that a simulation would be started for."""
    started: list[str] = []

    def watch(run: RunFolder, console: Console) -> str:
        started.append(run.path.name)
        return ""

    monkeypatch.setattr(sim.cli.experiments, "watch", watch)
    monkeypatch.setattr(sim.cli.experiments, "write_sweep_report", lambda sweep: "")
    return started


def attack(run: RunFolder | SweepFolder, *arguments: str) -> None:
    done = CliRunner().invoke(cli, ["attack", str(run.path), *arguments])
    assert done.exit_code == 0, done.output


def error_of(run: RunFolder | SweepFolder, *arguments: str) -> str:
    done = CliRunner().invoke(cli, ["attack", str(run.path), *arguments])
    assert done.exit_code == 1
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr.strip().removeprefix("veilsim: ")


def test_an_inverse_network_has_all_that_is_not_said_from_the_last_one_of_the_run(
    run: RunFolder, experiment: Experiment, watched: list[str]
) -> None:
    attack(run, "--kind", "itn", "name=wide", "width=4", "training.epochs=9", "--user", "0")
    paper, wide, strong = run.experiment().attack.itns
    before = strong.model_dump()
    changed = {"name": "wide", "width": 4, "training": before["training"] | {"epochs": 9.0}, "users": (0,)}
    assert wide.model_dump() == before | changed
    # The last one stays the last: it is the network that studies train.
    assert (paper, strong) == experiment.attack.itns
    assert watched == ["run"]
    attack_again = ("--kind", "itn", "name=narrow", "width=2")
    Status("complete").write(run.path)
    attack(run, *attack_again)
    assert [itn.name for itn in run.experiment().attack.itns] == ["paper", "wide", "narrow", "strong"]
    assert run.experiment().attack.itns[2].users is None
    assert len(run.facts()["added"]) == 2


def test_every_kind_of_study_that_needs_nothing_of_training_can_be_added(run: RunFolder, watched: list[str]) -> None:
    bare = run.experiment().model_dump() | {"studies": [], "other_classifiers": [{"seed": 1}]}
    for kind in attack_kinds():
        added = with_attack(Experiment.model_validate(bare), kind, NEEDED.get(kind, []), [])
        kinds = [study.kind for study in added.studies]
        assert (len(added.attack.itns), kinds) == ((3, []) if kind == "itn" else (2, [kind]))
    attack(run, "--kind", "inversion", "steps=7", "--user", "0")
    transfer, inversion = run.experiment().studies
    assert (transfer.kind, inversion.kind) == ("transfer", "inversion")
    assert inversion.model_dump()["steps"] == 7
    assert inversion.users == (0,)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], f"--kind: missing: must be one of {', '.join(attack_kinds())}"),
        (["--kind", "magic"], f"--kind: got 'magic': must be one of {', '.join(attack_kinds())}"),
        (["--kind", "curious"], "--kind: got 'curious': what it is about is noted while users train: a new run can"),
        (["--kind", "transfer"], "--kind: got 'transfer': the run has this study, and each kind once at most"),
        (["--kind", "itn"], "--kind itn: name: missing: it needs one of its own, none of 'paper', 'strong'"),
        (["--kind", "itn", "name=paper"], "--kind itn: name: got 'paper': it needs one of its own"),
        (["--kind", "itn", "name=plain"], "attack: itns need names of their own, none of 'plain', 'protected'"),
        (["--kind", "itn", "name=fr_attack"], "itns need names of their own, none of 'fr_attack', 'key_attack'"),
        (["--kind", "itn", "name=a", "widht=3"], "--kind itn: widht: unknown key; did you mean 'width'?"),
        (["--kind", "itn", "name=a", "width=0"], "--kind itn: width: got 0: must be greater than or equal to 1"),
        (["--kind", "itn", "name=a", "training.epochs=x"], "--kind itn: training.epochs: got 'x'"),
        (["--kind", "itn", "name=a", "width"], "override 'width': must be key=value"),
        (["--kind", "itn", "name=a", "depth=5"], "depth: got 5: too deep for images of 8 pixels"),
        (["--kind", "inversion", "step=3"], "--kind inversion: step: unknown key; did you mean 'steps'?"),
        (["--kind", "utility"], "studies asks for utility, and other_classifiers names none"),
        (["--kind", "itn", "name=a", "--user", "2"], "--user: got 2: users are 0 to 1"),
        (["--kind", "itn", "name=a", "--user", "-1"], "--user: got -1: users are 0 to 1"),
        (["--kind", "itn", "name=a", "users=[5]"], "users: got 5: users are 0 to 1"),
        (["--kind", "itn", "name=a", "--user", "1"], "--user: got 1: has not published in"),
    ],
)
def test_what_cannot_be_added_is_one_line_and_changes_nothing(
    run: RunFolder, watched: list[str], arguments: list[str], expected: str
) -> None:
    before = (run.path / "config.yaml").read_bytes()
    assert expected in error_of(run, *arguments)
    assert (run.path / "config.yaml").read_bytes() == before
    assert Status.read(run.path).phase == "complete"
    assert not watched


def test_where_all_publish_one_network_no_user_is_attacked_alone(experiment: Experiment, tmp_path: Path) -> None:
    shared = Experiment.model_validate(experiment.model_dump() | {"strategy": {"name": "fedavg"}})
    run = complete(RunFolder.create(tmp_path / "shared", shared))
    assert "all users have published one network: leave it out" in error_of(
        run, "--kind", "itn", "name=a", "--user", "0"
    )


@pytest.mark.parametrize("phase", ["users", "failed", "starting"])
def test_a_run_that_is_not_complete_is_to_be_gone_on_with_first(run: RunFolder, phase: str) -> None:
    Status(phase).write(run.path)
    error = error_of(run, "--kind", "itn", "name=a")
    assert f"not complete, so that there is not all to attack (phase {phase})" in error
    assert f"go on with it first: veilsim run --resume {run.path}" in error


@pytest.mark.parametrize("part", ["launcher", "server"])
def test_a_run_that_another_process_works_on_is_left_alone(run: RunFolder, part: str) -> None:
    with claim(run.path, part):
        assert "another process is working on this run" in error_of(run, "--kind", "itn", "name=a")


def test_a_run_of_an_earlier_version_goes_on_or_says_in_a_line_why_it_cannot(
    run: RunFolder, watched: list[str]
) -> None:
    content = yaml.safe_load((run.path / "config.yaml").read_text())
    del content["studies"], content["attack"]["itns"][1]["users"], content["attack"]["labels"]
    (run.path / "config.yaml").write_text(yaml.safe_dump(content))
    run.note({"sealed": False})
    attack(run, "--kind", "itn", "name=a")
    assert watched == ["run"]
    Status("complete").write(run.path)
    run.note({"psi": {"digest": "0" * 64}})
    assert "run.json does not tell psi's reused, seconds, as an earlier version wrote it" in error_of(
        run, "--kind", "itn", "name=b"
    )


def stopped(run: RunFolder, console: Console) -> str:
    raise KeyboardInterrupt


def test_an_attack_that_is_stopped_is_left_to_be_resumed(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.cli.experiments, "watch", stopped)
    monkeypatch.chdir(run.path.parent)
    done = CliRunner().invoke(cli, ["attack", "run", "--kind", "itn", "name=a"])
    assert (done.exit_code, done.stderr) == (130, "veilsim: stopped; go on with: veilsim run --resume run\n")
    assert not run.is_done()
    assert [itn.name for itn in run.experiment().attack.itns] == ["paper", "a", "strong"]


def test_a_sweep_is_attacked_in_all_of_its_cells_or_in_none(
    experiment: Experiment, tmp_path: Path, watched: list[str]
) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(experiment.model_dump(mode="json") | {"sweep": {"seed": [0, 1]}}))
    sweep = SweepFolder.create(tmp_path / "sweep", "small", load_cells(path))
    first, second = sweep.runs()
    complete(first)
    assert f"{second.path}: not complete" in error_of(sweep, "--kind", "itn", "name=a")
    assert len(first.experiment().attack.itns) == 2
    complete(second)
    attack(sweep, "--kind", "itn", "name=a")
    assert watched == ["seed=0", "seed=1"]
    assert all(len(run.experiment().attack.itns) == 3 for run in (first, second))


@pytest.mark.parametrize("kind", ["itn", "inversion"])
def test_an_attack_of_nobody_is_no_attack(experiment: Experiment, kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--kind {kind}: users: got \[\]"):
        with_attack(experiment, kind, ["users=[]", *(["name=a"] if kind == "itn" else [])], [])
