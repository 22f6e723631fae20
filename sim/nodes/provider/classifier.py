"""psi on the provider's node: trained once, kept for all runs, and put into the run's folder."""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from roles.common.config.classifier import ClassifierConfig
from roles.common.files import read_json, write_atomically
from roles.common.hardware import available_cpus
from roles.common.labels import load_labels
from roles.common.weights import State, digest, load, load_into, save
from roles.provider.classifiers import Classifier
from roles.provider.training import predict, train_classifier
from sim.config.experiment import Experiment
from sim.config.places import cache_folder
from sim.exchange.job import Job
from sim.exchange.messages import METRICS
from sim.exchange.payloads import encode_curve
from sim.run.machine import compute_of, store_of
from sim.run.progress import report_step


@dataclass(frozen=True)
class ClassifierRecord:
    """What is known of a trained psi."""

    test_accuracy: float
    """On all plain test images."""
    plain_accuracy: float
    """On the plain test images that the experiment protects: what its protected accuracies compare with."""
    chance: float
    """Share of these that are of their most frequent class: what naming that one would get right."""
    selected_epoch: int
    digest: str
    curve: list[dict[str, float]]
    reused: bool
    """Whether it was found, in the run's folder or in the cache."""

    def encode(self) -> RecordDict:
        """Return it as the content of a reply to ``train.classifier``."""
        facts = MetricRecord(
            {
                "test-accuracy": self.test_accuracy,
                "plain-accuracy": self.plain_accuracy,
                "chance": self.chance,
                "selected-epoch": self.selected_epoch,
                "reused": int(self.reused),
            }
        )
        psi = ConfigRecord({"digest": self.digest})
        return RecordDict({METRICS: facts, "psi": psi, "curve": encode_curve(self.curve)})


def trained_classifier(job: Job) -> ClassifierRecord:
    """Train psi as the experiment says, or find the one trained earlier with the same recipe, data and precision.

    What an earlier attempt at the run has put into its folder is used before all others: users have trained against it.
    The provider's other classifiers are trained, or found, after it.

    Raises:
        ValueError: training diverged, or the kept weights are damaged.
    """
    record = _trained(job, job.experiment.classifier, "psi")
    for number, config in enumerate(job.experiment.other_classifier_configs()):
        _trained(job, config, f"other-{number}")
    return record


def kept_classifiers(job: Job) -> list[State]:
    """Return the weights of psi and of the provider's other classifiers, once they are trained.

    Raises:
        ValueError: psi has not been trained, or weights are damaged.
    """
    names = ["psi", *(f"other-{number}" for number in range(len(job.experiment.other_classifiers)))]
    return [load(_folder(job) / f"{name}.safetensors")[0] for name in names]


def _folder(job: Job) -> Path:
    """Return where a run keeps classifiers: only the provider and its replicas open a file in it."""
    return job.run / "provider"


def _trained(job: Job, config: ClassifierConfig, name: str) -> ClassifierRecord:
    """Train one classifier, or find it, and put it into the run's folder under ``name``."""
    own, cached = _folder(job) / name, _cached(config, job.experiment)
    found = _found(own) or _found(cached)
    state, known = found or _train(job, config, name)
    if found is None:
        _keep(cached, state, known)
    _keep(own, state, known)
    fields = {field: known[field] for field in ("test_accuracy", "selected_epoch", "digest", "curve")}
    accuracy, chance = _on_plain_images(job.experiment, config, state)
    return ClassifierRecord(**fields, plain_accuracy=accuracy, chance=chance, reused=found is not None)


def _cached(config: ClassifierConfig, experiment: Experiment) -> Path:
    recipe = {
        "classifier": config.model_dump(),
        "data": store_of(experiment).fingerprint,
        "precision": experiment.runtime.precision,
        "torch": torch.__version__.split("+")[0],
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "psi" / f"{config.name}-{key[:16]}" / "psi"


def _train(job: Job, config: ClassifierConfig, name: str) -> tuple[State, dict[str, Any]]:
    """Return a classifier's weights, and what is known of it."""
    compute = compute_of(job.experiment)
    if compute.device.type == "cpu":
        # Nobody else works while psi is trained. With a GPU the CPU has only augmentation to do: four runs of 16
        # threads each on 16 CPUs did three steps a second, their threads waiting for each other.
        torch.set_num_threads(available_cpus())
    report = partial(report_step, job.run, "classifier", name)
    trained = train_classifier(config, store_of(job.experiment), compute, report)
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
    (state, _), known = load(weights), read_json(facts)
    if digest(state) != known["digest"]:
        raise ValueError(f"{weights}: damaged (its digest is not the one noted when it was trained); delete it")
    return state, known


def _on_plain_images(experiment: Experiment, config: ClassifierConfig, state: State) -> tuple[float, float]:
    """Return a classifier's accuracy on the plain test images that are protected, and that of chance."""
    store, compute = store_of(experiment), compute_of(experiment)
    classifier = Classifier(config.name, len(store.classes), store.side)
    load_into(classifier, state, "psi")
    labels = load_labels(store.folder, "test")[: experiment.attack.test_images]
    logits = predict(compute.module(classifier), store.images("test")[: len(labels)], compute)
    return int((logits.argmax(1) == labels).sum()) / len(labels), int(labels.bincount().max()) / len(labels)
