"""The provider at the service of others: built once in a process, and asked as a replica, or by encoded requests."""

import torch
from flwr.app import RecordDict
from torch import Tensor

from roles.common.config.provider import DefenceConfig
from roles.common.config.user import has_key
from roles.common.data import ImageStore
from roles.common.labels import load_labels
from roles.common.seeds import generator
from roles.common.weights import load, save
from roles.provider.defence import Defence
from roles.provider.hijack import Hijacker
from roles.provider.memory import Memory
from roles.provider.provider import Provider
from roles.provider.user_classifiers import UserClassifiers
from sim.config.experiment import Experiment
from sim.exchange.job import Job
from sim.exchange.messages import decode_request, encode_answer, encode_refusal
from sim.nodes.provider.classifier import kept_classifiers
from sim.nodes.provider.replica import Replica
from sim.run.machine import compute_of, node_folder, store_of


def assign_images(job: Job) -> list[Tensor]:
    """Return each user's X', as positions in the train set, int64; the first to ask decides for the whole run.

    Raises:
        ConfigError: the partition cannot be made.
    """
    experiment, path = job.experiment, node_folder(job.run, "provider") / "assignment.safetensors"
    if not path.is_file():
        # Imported here: flwr-datasets takes seconds, which a worker that finds the file is spared.
        from sim.nodes.provider.partition import partition_images

        labels = load_labels(store_of(experiment).folder, "train")
        parts = partition_images(labels, experiment.users, experiment.user_count, experiment.seed)
        # Where all users have all images, these are kept once.
        distinct = parts[:1] if all(part is parts[0] for part in parts) else parts
        save(path, {"ids": torch.cat(distinct), "sizes": torch.tensor([len(part) for part in distinct])})
    kept = load(path)[0]
    parts = list(torch.split(kept["ids"], kept["sizes"].tolist()))
    return parts * experiment.user_count if len(parts) == 1 else parts


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
    experiment, store, folder = job.experiment, store_of(job.experiment), node_folder(job.run, "provider")
    compute, assignment = compute_of(experiment), assign_images(job)
    psi, *others = kept_classifiers(job)
    protections = [experiment.user_config(user).protection for user in range(len(assignment))]
    classifiers = UserClassifiers(
        folder,
        experiment.classifier,
        len(store.classes),
        store.side,
        [one.kind if has_key(one) else None for one in protections],
        [len(images) for images in assignment],
        compute,
    )
    remembered, terms, hostile = experiment.remembered, experiment.provider.defence, experiment.provider
    return Provider(
        experiment.classifier.name,
        psi,
        store,
        compute,
        assignment,
        validation_ids(experiment, store),
        classifiers,
        Memory(folder / "memory", remembered, store.side) if remembered else None,
        [(config.name, state) for config, state in zip(experiment.other_classifier_configs(), others, strict=True)],
        None if terms == DefenceConfig() else Defence(terms, experiment.seed, folder / "asked"),
        Hijacker(folder / "hijack", hostile.hijack_of, experiment.seed, store, compute) if hostile.hijack else None,
    )


_replicas: dict[str, Replica] = {}


def replica_of(job: Job) -> Replica:
    """Return this process's provider for the run of ``job``; psi is frozen, so one is as good as another."""
    key = f"{job.run}|{job.experiment.model_dump_json()}"
    if key not in _replicas:
        _replicas.clear()
        _replicas[key] = Replica(build_provider(job), job.run)
    return _replicas[key]


def answer_one(provider: Provider, message_type: str, content: RecordDict) -> RecordDict:
    """Answer one encoded request, or say in one line why not; the provider goes on serving either way."""
    try:
        return encode_answer(provider.answer(decode_request(message_type, content)))
    except Exception as error:  # want of memory, say: whoever asked for too much is told, and nobody else suffers
        return encode_refusal(error)
