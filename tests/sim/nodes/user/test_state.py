"""What a user keeps between rounds."""

import json

import pytest

from roles.common.naming import user_name
from roles.common.weights import save
from sim.exchange.job import Job
from sim.nodes.user.state import UserState, new_training
from sim.run.machine import node_folder
from tests.sim.session import folder


def test_the_state_of_the_last_two_rounds_is_kept(job: Job) -> None:
    state = UserState(job, 0)
    for number in (1, 2, 3):
        state.keep_round(number, new_training(job, 0))
    kept = sorted(path.name for path in folder(job).iterdir())
    assert kept == ["round-0002.safetensors", "round-0003.safetensors"]
    # A round that was done before a crash is done anew: what came after it is of another history.
    state.keep_round(2, new_training(job, 0))
    assert "round-0003.safetensors" not in {path.name for path in folder(job).iterdir()}


def test_a_state_of_another_version_is_named_in_one_line(job: Job) -> None:
    path = node_folder(job.run, user_name(0)) / "round-0001.safetensors"
    tensors, numbers = new_training(job, 0).checkpoint()
    save(path, tensors, {"numbers": json.dumps({name: numbers[name] for name in numbers if name != "curve"})})
    with pytest.raises(ValueError, match=r"round-0001.safetensors: written by another version of veilsim .* start a n"):
        UserState(job, 0).training_after(1)
