"""The provider as a node: where its classifiers come from. What it answers, the tests of the relay show."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from roles.common.weights import State, cpu_state, digest, load, save
from roles.provider.classifiers import Classifier
from sim.config.experiment import Experiment
from sim.config.places import cache_folder
from sim.exchange.job import Job
from sim.nodes.provider.classifier import trained_classifier


@pytest.fixture
def job(experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A run that trains two classifiers of a few steps, with a cache of its own."""
    monkeypatch.setenv("VEILSIM_CACHE", str(tmp_path / "cache"))
    classifier = {"crop_padding": 0, "training": {"epochs": 0.2, "lr": 0.01}}
    changed = {"classifier": classifier, "other_classifiers": [{"seed": 1}]}
    return Job(Experiment.model_validate(experiment.model_dump() | changed), tmp_path / "run")


def weights_of(job: Job) -> dict[str, State]:
    return {path.stem: load(path)[0] for path in (job.run / "provider").glob("*.safetensors")}


def put_another_into_the_cache() -> None:
    """As a machine would have it where the same recipe has given other weights."""
    for number, facts in enumerate((cache_folder() / "psi").glob("*/psi.json")):
        torch.manual_seed(number)
        state = cpu_state(Classifier("resnet20", 10))
        save(facts.with_suffix(".safetensors"), state)
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"digest": digest(state)}))


def test_a_run_keeps_its_classifiers_whatever_the_cache_gives_a_later_attempt(job: Job) -> None:
    first, before = trained_classifier(job), weights_of(job)
    assert not first.reused
    put_another_into_the_cache()
    again, after = trained_classifier(job), weights_of(job)
    assert again.digest == first.digest and again.reused
    assert again.curve == first.curve
    assert before.keys() == after.keys() == {"psi", "other-0"}
    assert all(digest(after[name]) == digest(before[name]) for name in before)
    # A new run takes what the cache has now.
    new = trained_classifier(replace(job, run=job.run.parent / "new"))
    assert new.reused and new.digest != first.digest


def test_a_damaged_classifier_is_named_and_had_again_from_the_cache_once_it_is_deleted(job: Job) -> None:
    first, path = trained_classifier(job), job.run / "provider" / "psi.safetensors"
    save(path, {name: value + 1 for name, value in load(path)[0].items()})
    with pytest.raises(
        ValueError, match=r"psi\.safetensors: damaged \(its digest is not the one noted when it was tra"
    ):
        trained_classifier(job)
    path.unlink()
    assert trained_classifier(job).digest == first.digest
