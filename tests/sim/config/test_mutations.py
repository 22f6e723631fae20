"""Configs with mistakes in them: each is said in one line that names the file, and most a key; none is a traceback."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roles.common import data
from sim.config.checks import check
from sim.config.errors import ConfigError, in_our_words
from sim.config.files import load_experiment
from sim.run.launch import app_folder
from sim.run.sweep import is_sweep, load_cells

CONTENTS = [yaml.safe_load(path.read_text()) for path in sorted((app_folder() / "configs").rglob("*.yaml"))]
ODD: list[Any] = [
    *(
        None,
        True,
        "",
        " ",
        "x" * 300,
        "~nosuchuser/x",
        "/",
        "..",
        "\0",
        "1e400",
        "é",
        [],
        {},
        [[]],
        [None],
        {"kind": 1},
    ),
    *(0, 1, -1, 2, 0.5, -0.5, 10**6, 10**12, 10**30, -(10**30), 1e-300, math.inf, math.nan, "auto", "relu1_2"),
    *({"kind": "fsha"}, {"kind": "nothing"}, {"": 1}, {"x": {"y": {}}}, [1, 2, 3], ["a"], "2026-01-01", "0x10"),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all that a config holds."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, held in inside for deeper in places(held, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    content = copy.deepcopy(draw(st.sampled_from(CONTENTS)))
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from([path for path in places(content) if path]))
        holder = content
        for part in where[:-1]:
            holder = holder[part]
        match draw(st.sampled_from(["replace", "drop", "add", "rename"])):
            case "replace":
                holder[where[-1]] = copy.deepcopy(draw(st.sampled_from(ODD)))
            case "drop":
                del holder[where[-1]]
            case "add" if isinstance(holder, dict):
                holder[draw(st.sampled_from(["alpha", "kind", "seed", "", "none", 3]))] = copy.deepcopy(
                    draw(st.sampled_from(ODD))
                )
            case "rename" if isinstance(holder, dict):
                holder[f"{where[-1]}x"] = holder.pop(where[-1])
    return content


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_a_config_is_loaded_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_text(yaml.safe_dump(content))
    said = ""
    try:
        if is_sweep(path, []):
            load_cells(path, [])
        else:
            with in_our_words(path):
                load_experiment(path).resolved()
    except ConfigError as error:
        said = str(error)
    assert "\n" not in said and len(said) < 1000
    assert not said or said.startswith(str(path)) or said.startswith("override")


WRONG = {
    "a key twice": ("seed: 1\nname: x\nseed: 2\n", "line 3: key 'seed' is there already, in line 1"),
    "a key twice, deeper": ("name: x\nuser:\n  alpha: 1\n  alpha: 2\n", "line 4: key 'alpha' is there already"),
    "a bracket that stays open": ("name: [x\n", "line 2, column 1: expected ',' or ']'"),
    "a tab": ("name: x\nuser:\n\talpha: 1\n", "line 3, column 1"),
    "a tag of Python's": ("name: !!python/object:os.system {}\n", "could not determine a constructor"),
    "a list in place of a mapping": ("- name\n", "must hold a mapping of keys to values, found list"),
    "a name that is long": (f"name: {'x' * 300}\n", "name: got"),
    "a seed below 0": ("name: x\nseed: -1\n", "seed: got -1: must be greater than or equal to 0"),
    "a seed of the split below 0": ("name: x\ndata: {split_seed: -1}\n", "data.split_seed: got -1"),
    "huge images": ("name: x\ndata: {size: 1000000}\n", "data.size: got 1000000: must be less than or equal to 512"),
    "no data": ("name: x\ndata: {name: ''}\n", "data.name: got ''"),
    "a huge network": ("name: x\nuser: {width: 100000}\n", "user.width: got 100000"),
    "endless epochs": ("name: x\nuser: {training: {epochs: 1.0e+9}}\n", "user.training.epochs: got 1000000000"),
    "endless rounds": ("name: x\nstrategy: {rounds: 1000000000}\n", "strategy.rounds: got"),
    "more workers than a cluster": ("name: x\nruntime: {workers: 1000000}\n", "runtime.workers: got 1000000"),
    "more threads than a machine": ("name: x\nruntime: {threads: 1000000}\n", "runtime.threads: got 1000000"),
    "nobody's home": ("name: x\ndata: {name: ~nosuchuser/x}\n", "no such folder"),
    "a place that MLflow has not": ("name: x\ntracking: {mlflow: 'ftp://x'}\n", "tracking.mlflow: got 'ftp://x'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_mistake_is_named_with_its_place(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, said = WRONG[kind]
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    monkeypatch.setattr(data, "prepare", lambda *arguments: None)
    with pytest.raises(ConfigError) as caught, in_our_words(path):
        check(load_experiment(path).resolved(), path)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
