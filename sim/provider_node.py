"""The provider as a node: psi trained once and kept, requests answered one by one or merged."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from flwr.app import RecordDict
from torch import Tensor

from roles.common.data import ImageStore
from roles.common.labels import load_labels
from roles.common.seeds import generator
from roles.common.weights import State, digest, load, load_into, save
from roles.provider.classifiers import Adaptation, Classifier
from roles.provider.memory import Memory
from roles.provider.provider import Provider
from roles.provider.pupils import Pupils
from roles.provider.training import ClassifierConfig, predict, train_classifier
from roles.user.config import UserConfig
from roles.user.conventional import PixelConfig, TanakaConfig
from sim.config import Experiment, available_cpus, cache_folder
from sim.messages import Job, decode_request, encode_answer, encode_refusal
from sim.nodes import compute_of, state_folder, store_of
from sim.progress import Heart, write_atomically


@dataclass(frozen=True)
class ClassifierRecord:
    """What is known of a trained psi."""

    test_accuracy: float
    """On all plain test images."""
    plain_accuracy: float
    """On the plain test images that the experiment protects: what its protected accuracies compare with."""
    selected_epoch: int
    digest: str
    curve: list[dict[str, float]]
    reused: bool
    """Whether it was found, in the run's folder or in the cache."""


def _folder_of(config: ClassifierConfig, experiment: Experiment) -> Path:
    recipe = {
        "classifier": config.model_dump(),
        "data": store_of(experiment).fingerprint,
        "precision": experiment.runtime.precision,
        "torch": torch.__version__.split("+")[0],
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "psi" / f"{config.name}-{key[:16]}"


def trained_classifier(job: Job, heart: Heart) -> ClassifierRecord:
    """Train psi as the experiment says, or find the one trained earlier with the same recipe, data and precision.

    What an earlier attempt at the run has put into its folder is used before all others: users have trained against it.
    The provider's other classifiers are trained, or found, after it.

    Raises:
        ValueError: training diverged, or the kept weights are damaged.
    """
    record = _trained(job, job.experiment.classifier, "psi", heart)
    for number, config in enumerate(job.experiment.other_classifier_configs()):
        _trained(job, config, _other_name(number), heart)
    return record


def _other_name(number: int) -> str:
    return f"other-{number}"


def _trained(job: Job, config: ClassifierConfig, name: str, heart: Heart) -> ClassifierRecord:
    """Train one classifier, or find it, and put it into the run's folder under ``name``."""
    experiment = job.experiment
    own, cached = job.run / "provider" / name, _folder_of(config, experiment) / "psi"
    found = _found(own) or _found(cached)
    state, known = found or _train(job, config, name, heart)
    if found is None:
        _keep(cached, state, known)
    _keep(own, state, known)
    fields = {name: known[name] for name in ("test_accuracy", "selected_epoch", "digest", "curve")}
    plain_accuracy = _plain_accuracy(experiment, config, state)
    return ClassifierRecord(**fields, plain_accuracy=plain_accuracy, reused=found is not None)


def _train(job: Job, config: ClassifierConfig, name: str, heart: Heart) -> tuple[State, dict[str, Any]]:
    """Return a classifier's weights, and what is known of it."""
    compute = compute_of(job.experiment)
    if compute.device.type == "cpu":
        # Nobody else works while psi is trained. With a GPU the CPU has only augmentation to do: four runs of 16
        # threads each on 16 CPUs did three steps a second, their threads waiting for each other.
        torch.set_num_threads(available_cpus())
    trained = train_classifier(
        config,
        store_of(job.experiment),
        compute,
        lambda step, total, loss: heart.beat(job.run, "classifier", name, step, total, loss),
    )
    return trained.state, {
        "classifier": config.model_dump(),
        "test_accuracy": trained.test_accuracy,
        "selected_epoch": trained.selected_epoch,
        "digest": digest(trained.state),
        "curve": trained.curve,
    }


def _keep(path: Path, state: State, known: dict[str, Any]) -> None:
    """Write a classifier's weights, and what is known of it, to ``path`` with two suffixes."""
    save(path.with_suffix(".safetensors"), state)
    write_atomically(path.with_suffix(".json"), json.dumps(known, indent=1))


def _found(path: Path) -> tuple[State, dict[str, Any]] | None:
    """Return what :func:`_keep` has written, or None if it has not.

    Raises:
        ValueError: the weights are damaged.
    """
    weights, facts = path.with_suffix(".safetensors"), path.with_suffix(".json")
    if not (weights.is_file() and facts.is_file()):
        return None
    (state, _), known = load(weights), json.loads(facts.read_text())
    if digest(state) != known["digest"]:
        raise ValueError(f"{weights}: damaged (its digest is not the one noted when it was trained); delete it")
    return state, known


def _plain_accuracy(experiment: Experiment, config: ClassifierConfig, state: State) -> float:
    store, compute = store_of(experiment), compute_of(experiment)
    classifier = Classifier(config.name, len(store.classes))
    load_into(classifier, state, "psi")
    labels = load_labels(store.folder, "test")[: experiment.attack.test_images]
    logits = predict(compute.module(classifier), store.images("test")[: len(labels)], compute)
    return int((logits.argmax(1) == labels).sum()) / len(labels)


def assign_images(job: Job) -> list[Tensor]:
    """Return each user's X', as positions in the train set.

    Raises:
        ConfigError: the partition cannot be made.
    """
    # Imported here: flwr-datasets takes seconds, and only the provider's process needs it.
    from sim.partition import partition_images

    experiment = job.experiment
    labels = load_labels(store_of(experiment).folder, "train")
    return partition_images(labels, experiment.users, experiment.user_count, experiment.seed)


def validation_ids(experiment: Experiment, store: ImageStore) -> Tensor:
    """Return the validation images by which users select their epoch, as sorted positions, int64."""
    count = store.counts["validation"]
    chosen = torch.randperm(count, generator=generator(experiment.seed, "validation"))
    return chosen[: experiment.users.validation_images or count].sort().values


def build_provider(job: Job) -> Provider:
    """Return the provider of a run whose psi has been trained.

    Raises:
        ValueError: psi has not been trained, or its weights are damaged.
    """
    experiment, store = job.experiment, store_of(job.experiment)
    compute = compute_of(experiment)
    assignment, validation = assign_images(job), validation_ids(experiment, store)
    state, _ = load(job.run / "provider" / "psi.safetensors")
    others = [
        (config.name, load(job.run / "provider" / f"{_other_name(number)}.safetensors")[0])
        for number, config in enumerate(experiment.other_classifier_configs())
    ]
    pupils = Pupils(
        state_folder(job) / "provider",
        experiment.classifier,
        len(store.classes),
        [_adaptation(experiment.user_config(user)) for user in range(len(assignment))],
        [len(images) for images in assignment],
        compute,
    )
    remembered = experiment.remembered
    memory = Memory(state_folder(job) / "provider" / "memory", remembered, store.side) if remembered else None
    return Provider(experiment.classifier.name, state, store, compute, assignment, validation, pupils, memory, others)


def _adaptation(user: UserConfig) -> Adaptation | None:
    match user.protection:
        case TanakaConfig():
            return "tanaka"
        case PixelConfig():
            return "pixel"
        case _:
            return None


_providers: dict[str, Provider] = {}


def provider_of(job: Job) -> Provider:
    """Return this process's provider for the run of ``job``; psi is frozen, so one is as good as another."""
    key = f"{job.run}|{job.experiment.model_dump_json()}"
    if key not in _providers:
        _providers.clear()
        _providers[key] = build_provider(job)
    return _providers[key]


def answer_one(provider: Provider, message_type: str, content: RecordDict) -> RecordDict:
    """Answer one encoded request, or say in one line why not; the provider goes on serving either way."""
    try:
        return encode_answer(provider.answer(decode_request(message_type, content)))
    except ValueError as error:
        return encode_refusal(error)


def facts_of(record: ClassifierRecord) -> dict[str, Any]:
    """Return what a reply says of psi, beside its curve."""
    return {
        "test-accuracy": record.test_accuracy,
        "plain-accuracy": record.plain_accuracy,
        "selected-epoch": record.selected_epoch,
        "reused": int(record.reused),
    }
