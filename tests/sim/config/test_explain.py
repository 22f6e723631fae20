"""What a config can have wrong, and what is said of it."""

import re
from pathlib import Path

import pytest

from sim.config.files import load_experiment
from tests.sim.config.small import SMALL, refusal

BAD = {
    "user.alfa=1": "user.alfa: unknown key; did you mean 'alpha'?",
    "colour=1": "colour: unknown key; known keys here: attack, classifier, data, name, other_classifiers, provider",
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
    "attack.itns.1.name=class_mean": "attack: itns need names of their own, none of .*'class_mean', 'mean_image'",
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
    "classifier.name=resnet50": "classifier.name: got 'resnet50': must be 'resnet20', 'vgg16_bn' or 'vit'",
    "strategy.batch_norm=local": "strategy: batch_norm local needs a name that averages thetas, such as fedavg: got '",
    "strategy.batch_norm=own": "strategy.batch_norm: got 'own': must be 'shared' or 'local'",
    "strategy.name=fedprox": "strategy.name: got 'fedprox': must be 'independent' or 'fedavg'",
    "runtime.precision=fp64": "runtime.precision: got 'fp64': must be 'fp32' or 'bf16', or 'auto'",
    "runtime.workers=0": "runtime.workers: got 0: must be greater than or equal to 1, or 'auto'",
    "data.size=4": "data.size: got 4: must be greater than or equal to 8",
    "name=a/b": "name: got 'a/b': String should match pattern",
    "user.protection={kind: magic}": "user.protection.kind: got 'magic': must be one of network, adversarial, entropy,",
    "user.protection={kind: pixel, key: two}": "user.protection.key: got 'two': must be 'one' or 'per_image'",
    "user.protection={kind: tanaka, shuffle: true}": "user.protection.shuffle: unknown key; known keys here: kind",
    "users.settings=[{alpha: 0.1}, {alfa: 1}]": "users.settings.1.alfa: unknown key; did you mean 'alpha'?",
    "users.settings=[{alpha: -1}]": "users.settings.0.alpha: got -1: must be greater than or equal to 0",
    "users.settings=[{features: {layer: x}}]": "users.settings.0.features.layer: got 'x': must be 'relu1_2' or",
    "users.settings=[{protection: {kind: x}}]": "users.settings.0.protection.kind: got 'x': must be one of network,",
    "users.settings=[1]": "users.settings.0: got 1: must be a valid dictionary",
    "users.settings=[{}, {}, {}, {}, {}]": "users.settings has 5 entries and users.count is 4",
    "studies=[{kind: gossip}]": "studies.0.kind: got 'gossip': must be one of collusion, curious, extraction, ",
    "studies=[{kind: transfer, image: 3}]": "studies.0.image: unknown key; did you mean 'images'?",
    "studies=[{kind: transfer}, {kind: transfer}]": "studies asks for a kind twice: they are transfer, transfer",
    "studies=[{kind: collusion, coalitions: [2, 1]}]": "studies.0.coalitions: got [2, 1]: must be rising numbers",
    "studies=[{kind: pretrained, known_pairs: [9, 5]}]": "studies.0.known_pairs: got [9, 5]: must be rising numbers",
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


@pytest.mark.parametrize("kind", ["utility", "labels", "membership"])
def test_what_needs_labels_is_not_asked_of_evaluators_without(config: Path, kind: str) -> None:
    wanted = (f"studies=[{{kind: {kind}}}]", "other_classifiers=[{seed: 1}]")
    assert load_experiment(config, wanted).attack.labels
    reason = f"studies asks for {kind}, which needs labels, and attack.labels is false"
    assert refusal(config, *wanted, "attack.labels=false") == f"{config}: {reason}"


def test_the_same_goes_for_a_value_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(SMALL.replace("alpha: 0.1", "alpha: -0.1"))
    assert refusal(path) == f"{path}: user.alpha: got -0.1: must be greater than or equal to 0"


def test_several_mistakes_are_counted(config: Path) -> None:
    text = refusal(config, "user.alpha=-1", "user.width=0", "users.count=0")
    assert text == f"{config}: users.count: got 0: must be greater than or equal to 1, or 'auto' (and 2 more)"
