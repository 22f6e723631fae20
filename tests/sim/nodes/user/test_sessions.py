"""A user's rounds, validation and tests."""

from dataclasses import replace

import pytest
import torch
from flwr.app import RecordDict

import roles.user.training
from roles.common.exchange import Answer, Request
from roles.common.unet import UNet
from roles.common.weights import cpu_state
from roles.provider.provider import Provider
from sim.exchange.job import Job, job_content
from sim.exchange.messages import ARRAYS, METRICS
from sim.exchange.sessions import SessionStore, run_direct
from sim.nodes.user.sessions import TrainSession, publication
from sim.nodes.user.state import UserState, new_training
from tests.sim.session import EPOCHS, STEPS, direct, in_a_folder_of_its_own, relayed, theta_message, theta_of
from tests.sim.thetas import assert_identical


def test_training_in_rounds_is_training_in_one_go(job: Job, provider: Provider) -> None:
    whole, rounds = in_a_folder_of_its_own(job, "whole"), in_a_folder_of_its_own(job, "rounds")
    strategy = job.experiment.strategy.model_copy(update={"rounds": 3})
    split = replace(rounds, experiment=job.experiment.model_copy(update={"strategy": strategy}))
    direct(whole, provider)
    for number in (1, 2, 3):
        direct(replace(split, server_round=number), provider, content=job_content(split))
    assert_identical(theta_of(publication(whole, 0)), theta_of(publication(split, 0)))


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3, 7])
def test_a_user_on_its_own_goes_through_all_rounds_and_on_from_the_last_one_it_has_finished(
    job: Job, provider: Provider, killed_after: int
) -> None:
    whole, rounds = in_a_folder_of_its_own(job, "whole"), in_a_folder_of_its_own(job, "rounds")
    direct(whole, provider)
    strategy = job.experiment.strategy.model_copy(update={"rounds": 3})
    split = replace(rounds, experiment=job.experiment.model_copy(update={"strategy": strategy}), rounds=3)

    class KilledError(Exception):
        pass

    def attempt(limit: int) -> tuple[RecordDict, int]:
        asked = 0

        def answer(request: Request) -> Answer:
            nonlocal asked
            asked += 1
            if asked > limit:
                raise KilledError
            return provider.answer(request)

        session = TrainSession(split, 0)
        session.begin(job_content(split))
        return run_direct(session, answer), asked

    # Images, and two epochs of two steps and a validation each: 7 requests.
    if killed_after < 7:
        with pytest.raises(KilledError):
            attempt(killed_after)
    else:
        attempt(killed_after)
    reply, asked = attempt(100)
    # After the first request, the first step and the second are rounds that end; before an end all is done anew.
    assert asked == {0: 7, 1: 7, 2: 5, 3: 5, 7: 0}[killed_after]
    assert ARRAYS not in reply.array_records
    assert reply.metric_records[METRICS]["num-examples"] == 24
    assert_identical(theta_of(publication(whole, 0)), theta_of(publication(split, 0)))


@pytest.fixture
def validation_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles.user.training, "_VALIDATION_BATCH", 6)


@pytest.mark.usefixtures("validation_in_parts")
@pytest.mark.parametrize("fresh", [False, True], ids=["the same process", "a fresh process for every message"])
def test_an_epochs_validation_over_several_messages_loses_no_batch(
    job: Job, provider: Provider, store: SessionStore, fresh: bool
) -> None:
    between = store.forget if fresh else lambda: None
    here, there = in_a_folder_of_its_own(job, "direct"), in_a_folder_of_its_own(job, "relayed")
    direct(here, provider)
    relayed(store, there, provider, between)
    one, other = (publication(place, 0) for place in (here, there))
    assert one.metric_records == other.metric_records
    assert one.metric_records[METRICS]["queries"] == STEPS + EPOCHS * 4


@pytest.mark.usefixtures("validation_in_parts")
@pytest.mark.parametrize(
    "fresh",
    [
        pytest.param(False, id="the same process"),
        pytest.param(True, id="a fresh process for every message"),
    ],
)
def test_a_validation_over_several_messages_loses_no_batch(
    job: Job, provider: Provider, store: SessionStore, fresh: bool
) -> None:
    between = store.forget if fresh else lambda: None
    UserState(job, 0).keep_round(job.round, new_training(job, 0))
    first = direct(job, provider, "validate", job_content(job))
    second = relayed(store, job, provider, between, "validate", job_content(job))
    assert first.metric_records[METRICS] == second.metric_records[METRICS]
    assert first.metric_records[METRICS]["num-examples"] == 20


@pytest.mark.parametrize("fresh", [False, True], ids=["the same process", "a fresh process for every message"])
def test_test_images_are_classified_in_order_however_the_messages_travel(
    job: Job, provider: Provider, store: SessionStore, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.nodes.user.sessions._TEST_BATCH", 7)
    torch.manual_seed(0)
    content = theta_message(job, cpu_state(UNet(2, 2)))
    between = store.forget if fresh else lambda: None
    first = theta_of(direct(job, provider, "test", content))
    second = theta_of(relayed(store, job, provider, between, "test", content))
    assert_identical(first, second)
    assert first["labels"].shape == (30,)
    assert first["labels"].dtype == torch.int64
