import io
import re
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from flwr.cli.build import build_fab_from_disk

from roles.common.hardware import available_cpus
from roles.common.seeds import derived_seed
from sim.config.checks import check
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.config.files import load_experiment, read_config
from sim.config.places import cache_folder
from sim.config.sections import DirichletPartition, RuntimeConfig
from sim.run.launch import app_folder
from sim.run.sweep import Cell, is_sweep, load_cells

CONFIGS = sorted((Path(__file__).parents[3] / "configs").rglob("*.yaml"))
EXPERIMENTS = {
    f"{path.stem} {cell.name}": cell.experiment
    for path in CONFIGS
    for cell in (load_cells(path) if is_sweep(path, []) else [Cell("", {}, load_experiment(path))])
}
SMALL = """
name: small
users: {count: 4}
user:
  alpha: 0.1
  features: {layer: relu1_2, weights: random}
  training: {epochs: 10}
attack:
  itns:
    - {name: paper, training: {epochs: 6}}
    - {name: strong, training: {epochs: 6}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what is right -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_is_shipped_loads_and_is_named_after_its_file(path: Path) -> None:
    assert read_config(path)["name"] == path.stem


def test_every_config_that_is_shipped_travels_with_the_flower_app() -> None:
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app_folder()))) as bundle:
        assert {str(path.relative_to(app_folder())) for path in CONFIGS} <= set(bundle.namelist())


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


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_the_dump_of_a_resolved_experiment_is_that_experiment(experiment: Experiment, tmp_path: Path) -> None:
    resolved = experiment.resolved()
    dumped = tmp_path / "config.yaml"
    dumped.write_text(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False))
    assert load_experiment(dumped) == resolved
    assert load_experiment(dumped).resolved() == resolved
    assert Experiment.model_validate_json(resolved.model_dump_json()) == resolved


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEILSIM_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("VEILSIM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "veilsim"


def test_workers_are_one_for_every_threads_cpus_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.config.sections.available_cpus", lambda: 7)
    assert RuntimeConfig(threads=2).worker_count == 3
    assert RuntimeConfig(threads=8).worker_count == 1
    assert RuntimeConfig(threads=2, workers=5).worker_count == 5


def test_there_is_at_least_one_cpu() -> None:
    assert available_cpus() >= 1


def test_all_attacks_draw_from_one_seed_that_is_not_the_runs(config: Path) -> None:
    seeds = [load_experiment(config, [f"seed={seed}"]).attack_seed for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert seeds[0] == derived_seed(0, "attack")


# ---- users who differ --------------------------------------------------------------------------------------------

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


# ---- what a config file can have wrong ---------------------------------------------------------------------------

BAD = {
    "user.alfa=1": "user.alfa: unknown key; did you mean 'alpha'?",
    "colour=1": "colour: unknown key; known keys here: attack, classifier, data, name, other_classifiers, runtime, ",
    "attack.itns.0.widht=3": "attack.itns.0.widht: unknown key; did you mean 'width'?",
    "users.partition={kind: dirichlet, alfa: 1}": "users.partition.alfa: unknown key; did you mean 'alpha'?",
    "user.alpha=much": "user.alpha: got 'much': must be a valid number",
    "user.alpha=-1": "user.alpha: got -1: must be greater than or equal to 0",
    "user.alpha=.nan": "user.alpha: got nan: must be a finite number",
    "user.width=0": "user.width: got 0: must be greater than or equal to 1",
    "user.width=2.5": "user.width: got 2.5: must be a valid integer",
    "user.depth=7": "user.depth: got 7: must be less than or equal to 6",
    "user=3": "user: got 3: must be a section of keys and values",
    "users.count=true": "users.count: got True: must not be true or false",
    "users.partition={kind: dirichlet, alpha: true}": "users.partition.alpha: got True: must not be true or false",
    "user.alpha=false": "user.alpha: got False: must not be true or false",
    "user.flip=maybe": "user.flip: got 'maybe': must be a valid boolean",
    "user.features.layer=relu9": "user.features.layer: got 'relu9': must be 'relu1_2' or 'relu2_2'",
    "user.training.milestones=[0.6, 0.3]": "user.training: milestones must be rising fractions of the training",
    "user.training.milestones=[0.6, 2]": "user.training: milestones must be rising fractions of the training",
    "user.training={epochs: 1, optimiser: adam, nesterov: true}": "user.training: nesterov needs optimiser sgd",
    "user.training.epochs=": "user.training.epochs: got None: must be a valid number",
    "attack.itns.0.training={}": "attack.itns.0.training.epochs: missing",
    "attack.itns.1.name=paper": "attack: itns need names of their own, .* they are ['paper', 'paper']",
    "attack.itns.1.name=key_attack": "attack: itns need names of their own, none of 'fr_attack', 'key_attack'",
    "attack.itns.0.name=a/b": "attack.itns.0.name: got 'a/b': String should match pattern",
    "users.count=0": "users.count: got 0: must be greater than or equal to 1, or 'auto'",
    "users.count=many": "users.count: got 'many': must be a valid integer, unable to parse .*, or 'auto'",
    "users.images=1": "users.images: got 1: must be greater than or equal to 2",
    "users.partition=iid": "users.partition: got 'iid': must be a section of keys and values",
    "users.partition.kind=blocks": "users.partition.kind: got 'blocks': must be one of iid, dirichlet, shards, sizes",
    "users.partition={alpha: 1}": "users.partition.kind: got None: must be one of iid, dirichlet, shards, sizes",
    "users.partition={kind: dirichlet}": "users.partition.alpha: missing",
    "users.partition={kind: dirichlet, alpha: 0}": "users.partition.alpha: got 0: must be greater than 0",
    "users.partition={kind: dirichlet, alpha: .inf}": "users.partition.alpha: got inf: must be a finite number",
    "users.partition={kind: shards, per_user: 0}": "users.partition.per_user: got 0: must be greater than",
    "users.partition={kind: sizes, sizes: [9, 9]}": "users.partition.sizes names 2 users and users.count is 4",
    "users.partition={kind: sizes, sizes: [9, 9, 1, 9]}": "users.partition.sizes.2: got 1: must be greater",
    "users.partition={kind: sizes, sizes: []}": "users.partition.sizes: got []: ",
    "classifier.name=resnet50": "classifier.name: got 'resnet50': must be 'resnet20' or 'vgg16_bn'",
    "strategy.batch_norm=local": "strategy: batch_norm local needs a name that averages thetas, such as fedavg: got '",
    "strategy.batch_norm=own": "strategy.batch_norm: got 'own': must be 'shared' or 'local'",
    "strategy.name=fedprox": "strategy.name: got 'fedprox': must be 'independent' or 'fedavg'",
    "runtime.precision=fp64": "runtime.precision: got 'fp64': must be 'fp32' or 'bf16', or 'auto'",
    "runtime.workers=0": "runtime.workers: got 0: must be greater than or equal to 1, or 'auto'",
    "data.size=4": "data.size: got 4: must be greater than or equal to 8",
    "name=a/b": "name: got 'a/b': String should match pattern",
    "user.protection={kind: magic}": "user.protection.kind: got 'magic': must be one of network, plain, tanaka",
    "user.protection={kind: pixel, key: two}": "user.protection.key: got 'two': must be 'one' or 'per_image'",
    "user.protection={kind: tanaka, shuffle: true}": "user.protection.shuffle: unknown key; known keys here: kind",
    "users.settings=[{alpha: 0.1}, {alfa: 1}]": "users.settings.1.alfa: unknown key; did you mean 'alpha'?",
    "users.settings=[{alpha: -1}]": "users.settings.0.alpha: got -1: must be greater than or equal to 0",
    "users.settings=[{features: {layer: x}}]": "users.settings.0.features.layer: got 'x': must be 'relu1_2' or",
    "users.settings=[{protection: {kind: x}}]": "users.settings.0.protection.kind: got 'x': must be one of network,",
    "users.settings=[1]": "users.settings.0: got 1: must be a valid dictionary",
    "users.settings=[{}, {}, {}, {}, {}]": "users.settings has 5 entries and users.count is 4",
    "studies=[{kind: gossip}]": "studies.0.kind: got 'gossip': must be one of collusion, curious, inversion, retrieval",
    "studies=[{kind: transfer, image: 3}]": "studies.0.image: unknown key; did you mean 'images'?",
    "studies=[{kind: transfer}, {kind: transfer}]": "studies asks for a kind twice: they are transfer, transfer",
    "studies=[{kind: collusion, coalitions: [2, 1]}]": "studies.0.coalitions: got [2, 1]: must be rising numbers",
    "studies=[{kind: utility}]": "studies asks for utility, and other_classifiers names none: add one",
    "other_classifiers=[{}, {seeds: 1}]": "other_classifiers.1.seeds: unknown key; did you mean 'seed'?",
    "studies=[transfer]": "studies.0: got 'transfer': must be a section of keys and values",
    "user.seed=-1": "user.seed: got -1: must be greater than or equal to 0",
    "seed=-1": "seed: got -1: must be greater than or equal to 0",
    "tracking.mlflow=''": "tracking.mlflow: got '': must be a valid boolean",
    "tracking.wandb=true": "tracking.wandb: unknown key; known keys here: mlflow, tensorboard",
}


@pytest.mark.parametrize(("override", "expected"), BAD.items(), ids=BAD.keys())
def test_a_bad_value_gives_one_line_with_file_key_value_and_what_would_be_right(
    config: Path, override: str, expected: str
) -> None:
    text = refusal(config, override)
    assert re.match(re.escape(f"{config}: {expected}").replace(r"\.\*", ".*"), text), text
    assert not re.search("constrained|function-|literal\\[|tagged-union|Input tag", text)


def test_utility_is_not_asked_of_evaluators_without_labels(config: Path) -> None:
    wanted = ("studies=[{kind: utility}]", "other_classifiers=[{seed: 1}]")
    assert load_experiment(config, wanted).attack.labels
    reason = "studies asks for utility, which needs labels, and attack.labels is false"
    assert refusal(config, *wanted, "attack.labels=false") == f"{config}: {reason}"


def test_the_same_goes_for_a_value_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(SMALL.replace("alpha: 0.1", "alpha: -0.1"))
    assert refusal(path) == f"{path}: user.alpha: got -0.1: must be greater than or equal to 0"


def test_several_mistakes_are_counted(config: Path) -> None:
    text = refusal(config, "user.alpha=-1", "user.width=0", "users.count=0")
    assert text == f"{config}: users.count: got 0: must be greater than or equal to 1, or 'auto' (and 2 more)"


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


# ---- what only the data and this machine can tell ----------------------------------------------------------------


def objection(config: Path, *overrides: str) -> str:
    experiment = load_experiment(config, overrides)
    with pytest.raises(ConfigError) as caught:
        check(experiment, config)
    file, _, what = str(caught.value).partition(": ")
    assert file == str(config)
    assert "\n" not in what
    return what


def test_an_experiment_that_can_be_run_gives_its_data(config: Path) -> None:
    overrides = ["users.count=646", "users.validation_images=144", "attack.pairs=1293", "attack.test_images=360"]
    assert check(load_experiment(config, overrides), config).counts == {"train": 1293, "validation": 144, "test": 360}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("users.count=647", "users.count: got 647: 1293 training images are at most 646 users"),
        (
            "users={count: 2, partition: {kind: sizes, sizes: [1000, 294]}}",
            "users.partition.sizes: got 1294 images in all: there are 1293 training images",
        ),
        (
            "users={count: 700, partition: {kind: sample, images: 1294}}",
            "users.partition.images: got 1294: there are 1293 training images",
        ),
        ("users.validation_images=145", "users.validation_images: got 145: there are 144 validation images"),
        ("attack.pairs=1294", "attack.pairs: got 1294: there are 1293 training images"),
        ("attack.test_images=361", "attack.test_images: got 361: there are 360 test images"),
        ("data.name=/nowhere/photos", "data.name '/nowhere/photos': no such folder"),
        ("user.features.weights=/nowhere/phi.safetensors", "/nowhere/phi.safetensors: no such weights file"),
    ],
)
def test_what_the_data_do_not_allow_is_refused_before_anything_starts(
    config: Path, override: str, expected: str
) -> None:
    assert objection(config, override) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["user.depth=5"], "user.depth: got 5: images of 24 pixels need a side divisible by 2**(depth - 1) = 16; set "),
        (["user.depth=3"], "attack.itns.0.depth: got 5: too deep for images of 24 pixels"),
        (
            ["user.depth=3", "attack.itns.0.depth=3", "attack.itns.1.depth=3", "classifier.name=vgg16_bn"],
            "classifier.name: got 'vgg16_bn': it needs images of 32 pixels, these have 24",
        ),
    ],
)
def test_networks_too_deep_for_the_images_are_refused(config: Path, overrides: list[str], expected: str) -> None:
    assert objection(config, "data.size=24", *overrides).startswith(expected)


@pytest.mark.parametrize("package", ["tensorboard", "mlflow"])
def test_a_tracker_that_is_not_installed_is_refused_with_the_extra_that_brings_it(
    config: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    expected = f'tracking.{package}: got True: the package is not installed; pip install "veilsim[{package}]"'
    assert objection(config, f"tracking.{package}=true") == expected
    assert check(load_experiment(config, [f"tracking.{package}=false"]), config)


def test_a_folder_of_a_trackers_name_is_not_the_tracker(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorboard", raising=False)
    (tmp_path / "tensorboard" / "user-0000").mkdir(parents=True)
    assert "tracking.tensorboard: got True: the package is not installed" in objection(
        config, "tracking.tensorboard=true"
    )


def test_weights_of_phi_that_are_none_are_named(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "phi.safetensors"
    override = f"user.features.weights={path}"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00nonsense")
    assert f"{path}: not a readable safetensors file" in objection(config, override)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    assert f"{str(path)!r}: not weights of this network" in objection(config, override)


# ---- the federation ----------------------------------------------------------------------------------------------


def test_users_are_all_nodes_that_are_neither_provider_nor_evaluator(config: Path) -> None:
    experiment = load_experiment(config, ["users.count=auto", "runtime.evaluators=2"])
    assert experiment.with_users(10).user_count == 7
    assert experiment.with_users(4).user_count == 1
    with pytest.raises(ConfigError, match="the federation's size is not known yet"):
        _ = experiment.user_count


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
