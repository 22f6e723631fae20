"""Config files and the overrides of what they hold."""

from pathlib import Path

import pytest

from sim.config.files import load_experiment
from sim.config.sections import DirichletPartition
from tests.sim.config.small import refusal


def test_an_override_reaches_into_sections_and_lists(config: Path) -> None:
    overrides = ["user.training.lr=0.5", "attack.itns.1.width=8", "runtime.exchange=relay", "user.alpha=1e-3"]
    experiment = load_experiment(config, overrides)
    assert experiment.user.training.lr == 0.5
    assert experiment.user.training.epochs == 10
    assert [itn.width for itn in experiment.attack.itns] == [64, 8]
    assert experiment.runtime.exchange == "relay"  # a section that the file does not have
    assert experiment.user.alpha == 0.001


def test_an_override_may_be_a_section_a_list_item_or_nothing(config: Path) -> None:
    overrides = [
        "users.partition={kind: dirichlet, alpha: 0.3}",
        "attack.itns.0={name: other, training: {epochs: 2}}",
        "users.images=",
    ]
    experiment = load_experiment(config, overrides)
    assert experiment.users.partition == DirichletPartition(kind="dirichlet", alpha=0.3)
    assert experiment.attack.itns[0].name == "other"
    assert experiment.users.images is None


@pytest.mark.parametrize("name", ["/data/${HOME}/$x", "${", "${oc.env:HOME}", "???", "a.b=c", "~/x y"])
def test_special_characters_of_a_value_are_taken_as_they_are(config: Path, name: str) -> None:
    settings = f"users.settings=[{{features: {{weights: '{name}'}}}}]"
    experiment = load_experiment(config, [f"data.name='{name}'", settings])
    assert experiment.data.name == name
    assert experiment.user_config(0).features.weights == name


def test_the_last_of_two_overrides_holds(config: Path) -> None:
    assert load_experiment(config, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("nonsense", "must be key=value, such as user.alpha=0.01"),
        ("=3", "must be key=value"),
        ("user.alpha=[", "the value is not valid YAML"),
        ("user.alpha.x=3", "'alpha' holds a value, not a section"),
        ("attack.itns.2.width=3", "'2' must be a position from 0 to 1"),
        ("attack.itns.2=3", "'2' must be a position from 0 to 1"),
        ("attack.itns.-1.width=3", "'-1' must be a position from 0 to 1"),
        ("attack.itns.strong.width=3", "'strong' must be a position from 0 to 1"),
        ("attack.itns.².width=3", "'²' must be a position from 0 to 1"),
    ],
)
def test_an_override_that_cannot_be_applied_is_quoted(config: Path, override: str, expected: str) -> None:
    text = refusal(config, override)
    assert text.startswith(f"override {override!r}: {expected}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"- name: small\n", "must hold a mapping of keys to values, found list"),
        (b"", "must hold a mapping of keys to values, found NoneType"),
        (b"user: {alpha: 1\n", "not valid YAML ("),
        (b"name: a\n\tseed: 1\n", "not valid YAML ("),
        (b"\x89PNG\r\n\x1a\n\x00\x00\xff", "not valid YAML ("),
        (b"user: {alpha: 1}\n", "name: missing"),
        (b"name: small\n3: 4\n", "3"),
    ],
)
def test_a_file_that_holds_no_experiment_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: {expected}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        assert refusal(path) == f"{path}: no such config file"
