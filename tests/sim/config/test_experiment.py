"""An experiment: its paths, its users who may differ, and its federation."""

from pathlib import Path

import pytest

from roles.common.seeds import derived_seed
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.config.files import load_experiment


def test_a_resolved_experiment_has_absolute_paths_and_a_precision(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    overrides = ["data.name=photos", "user.features.weights=./phi.safetensors", "runtime.precision=auto"]
    resolved = load_experiment(config, overrides).resolved()
    assert resolved.data.name == str(tmp_path / "photos")
    assert resolved.user.features.weights == str(tmp_path / "phi.safetensors")
    assert resolved.runtime.precision in ("fp32", "bf16")
    assert resolved.resolved() == resolved


def test_an_mlflow_folder_becomes_absolute_and_a_uri_stays_one(config: Path) -> None:
    folder = load_experiment(config, ["tracking.mlflow=./tracked"]).resolved()
    assert folder.tracking.mlflow == str(Path("tracked").resolve())
    server = load_experiment(config, ["tracking.mlflow=http://localhost:5000"]).resolved()
    assert server.tracking.mlflow == "http://localhost:5000"
    for name in ("runs.db", f"{Path.cwd()}/runs.db"):
        database = load_experiment(config, [f"tracking.mlflow=sqlite:///{name}"]).resolved()
        assert database.tracking.mlflow == f"sqlite:///{Path('runs.db').resolve()}"
        assert database.resolved() == database
    assert load_experiment(config, ["tracking.mlflow=true"]).resolved().tracking.mlflow is True


def test_names_that_are_no_paths_stay_names_even_beside_a_file_of_that_name(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "random", "imagenet"):
        (tmp_path / name).mkdir()
    assert load_experiment(config).resolved().data.name == "digits"
    assert load_experiment(config).resolved().user.features.weights == "random"
    imagenet = load_experiment(config, ["user.features.weights=imagenet", "data.name=uoft-cs/cifar10"]).resolved()
    assert (imagenet.user.features.weights, imagenet.data.name) == ("imagenet", "uoft-cs/cifar10")


def test_all_attacks_draw_from_one_seed_that_is_not_the_runs(config: Path) -> None:
    seeds = [load_experiment(config, [f"seed={seed}"]).attack_seed for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert seeds[0] == derived_seed(0, "attack")


SETTINGS = "users.settings=[{alpha: 0.3}, {features: {layer: relu2_2}, width: 5}, {protection: {kind: tanaka}}]"


def test_users_take_the_settings_in_turn_and_keep_what_they_do_not_change(config: Path) -> None:
    experiment = load_experiment(config, [SETTINGS])
    users = [experiment.user_config(user) for user in range(4)]
    assert [user.alpha for user in users] == [0.3, 0.1, 0.1, 0.3]
    assert [user.features.layer for user in users] == ["relu1_2", "relu2_2", "relu1_2", "relu1_2"]
    assert {user.features.weights for user in users} == {"random"}
    assert [user.protection.kind for user in users] == ["network", "network", "tanaka", "network"]
    assert [user.width for user in users] == [experiment.user.width, 5, *[experiment.user.width] * 2]
    assert [experiment.setting_name(user) for user in range(3)] == ["alpha 0.3", "layer relu2_2, width 5", "tanaka"]
    assert experiment.user_configs() == users[:3]


def test_without_settings_all_users_are_alike(config: Path) -> None:
    experiment = load_experiment(config)
    assert experiment.user_configs() == [experiment.user]
    assert experiment.user_config(3) == experiment.user
    assert experiment.setting_name(3) == ""


def test_a_setting_of_another_kind_leaves_nothing_of_the_kind_before(config: Path) -> None:
    overrides = ["user.protection={kind: pixel, shuffle: true}", "users.settings=[{protection: {kind: tanaka}}, {}]"]
    experiment = load_experiment(config, overrides)
    assert [user.protection.kind for user in experiment.user_configs()] == ["tanaka", "pixel"]


def test_another_classifier_is_the_first_but_for_what_it_changes(config: Path) -> None:
    changes = "other_classifiers=[{seed: 1}, {name: vgg16_bn, training: {epochs: 2}}]"
    experiment = load_experiment(config, ["classifier.training={epochs: 3, lr: 0.3}", changes])
    seeded, deeper = (experiment.other_classifier(number) for number in range(2))
    assert seeded == experiment.classifier.model_copy(update={"seed": 1})
    assert (deeper.name, deeper.training.epochs, deeper.training.lr, deeper.seed) == ("vgg16_bn", 2, 0.3, 0)


def test_paths_in_settings_become_absolute_as_well(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    resolved = load_experiment(config, ["users.settings=[{features: {weights: ./phi.safetensors}}, {}]"]).resolved()
    assert resolved.user_config(0).features.weights == str(tmp_path / "phi.safetensors")
    assert resolved.user_config(1).features.weights == "random"
    assert resolved.resolved() == resolved


def test_paths_of_what_an_inverse_network_compares_by_become_absolute_as_well(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = "training: {epochs: 1}"
    perceptual = f"{{name: a, loss: perceptual, features: {{weights: ./phi.safetensors}}, {recipe}}}"
    resolved = load_experiment(config, [f"attack.itns=[{perceptual}, {{name: b, {recipe}}}]"]).resolved()
    features = [itn.features for itn in resolved.attack.itns]
    assert features[0] is not None
    assert features[0].weights == str(tmp_path / "phi.safetensors")
    assert features[1] is None
    assert resolved.resolved() == resolved


def test_users_are_all_nodes_that_are_neither_provider_nor_evaluator(config: Path) -> None:
    experiment = load_experiment(config, ["users.count=auto", "runtime.evaluators=2"])
    assert experiment.with_users(10).user_count == 7
    assert experiment.with_users(4).user_count == 1
    with pytest.raises(ConfigError, match="the federation's size is not known yet"):
        _ = experiment.user_count


def test_a_federation_smaller_than_the_users_who_differ_has_the_first_of_them(config: Path) -> None:
    overrides = ["users.count=auto", "runtime.evaluators=0", "users.settings=[{alpha: 0.03}, {noise: 0.5}]"]
    experiment = load_experiment(config, overrides)
    one, three = experiment.with_users(2), experiment.with_users(4)
    assert one.user_config(0).alpha == three.user_config(2).alpha == 0.03
    assert three.user_config(1).noise == 0.5
    for sized in (one, three):
        assert Experiment.model_validate(sized.model_dump()) == sized


def test_a_federation_of_the_right_size_is_taken(config: Path) -> None:
    experiment = load_experiment(config, ["runtime.evaluators=2"])
    assert experiment.with_users(7) == experiment


@pytest.mark.parametrize(
    ("count", "nodes", "needed", "supernodes"),
    [
        ("4", 6, "needs 7", 7),
        ("4", 8, "needs 7", 7),
        ("auto", 3, "needs at least 4", 4),
        ("auto", 1, "needs at least 4", 4),
    ],
)
def test_a_federation_of_another_size_is_refused_with_the_option_that_would_be_right(
    config: Path, count: str, nodes: int, needed: str, supernodes: int
) -> None:
    experiment = load_experiment(config, [f"users.count={count}", "runtime.evaluators=2"])
    with pytest.raises(ConfigError) as caught:
        experiment.with_users(nodes)
    text = str(caught.value)
    assert "\n" not in text
    assert f"the federation has {nodes} nodes and this experiment {needed}" in text
    assert f"num-supernodes={supernodes} " in text
    assert f"users.count {count}" in text
