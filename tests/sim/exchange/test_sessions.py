"""Sessions that wait for answers, in this process or on disk."""

import json
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from flwr.app import RecordDict

from roles.common.exchange import ExchangeError
from roles.common.weights import load
from roles.provider.provider import Provider
from sim.client_app import SESSIONS
from sim.exchange.job import Job, job_content
from sim.exchange.messages import METRICS, MessageError, encode_refusal
from sim.exchange.payloads import decode_curve
from sim.exchange.sessions import SessionStore
from sim.exchange.suspension import REQUEST
from sim.nodes.provider.serving import answer_one
from sim.nodes.user.sessions import TrainSession, publication
from sim.nodes.user.state import new_training
from tests.sim.session import (
    EPOCHS,
    STEPS,
    direct,
    in_a_folder_of_its_own,
    question,
    relayed,
    resume,
    start,
    theta_of,
    waiting,
)
from tests.sim.thetas import assert_identical


@pytest.mark.parametrize("fresh", [False, True], ids=["the same process", "a fresh process for every message"])
def test_direct_and_relayed_training_give_the_same_theta_curve_and_traffic(
    job: Job, provider: Provider, store: SessionStore, fresh: bool
) -> None:
    here, there = in_a_folder_of_its_own(job, "direct"), in_a_folder_of_its_own(job, "relayed")
    first = direct(here, provider)
    between = store.forget if fresh else lambda: None
    second = relayed(store, there, provider, between)

    assert_identical(theta_of(first), theta_of(second))
    assert first.metric_records[METRICS] == second.metric_records[METRICS]
    assert first.metric_records[METRICS]["num-examples"] == 24
    published = [publication(place, 0) for place in (here, there)]
    assert published[0].metric_records[METRICS] == published[1].metric_records[METRICS]
    curves = [decode_curve(content.metric_records["curve"]) for content in published]
    assert curves[0] == curves[1]
    assert [row["step"] for row in curves[0]] == [2, 4]
    assert_identical(theta_of(published[0]), theta_of(published[1]))
    # The answers did train it: a session that nobody has answered would publish its initial weights.
    start = new_training(job, 0).theta()
    assert any(not torch.equal(start[name], value) for name, value in theta_of(first).items())
    # Nothing is left to be resumed.
    assert not waiting(there).exists()
    assert not store._waiting


def test_traffic_is_what_the_messages_hold(job: Job, provider: Provider) -> None:
    direct(job, provider)
    facts = publication(job, 0).metric_records[METRICS]
    image = 3 * 8 * 8 * 4
    assert facts["steps"] == STEPS
    assert facts["queries"] == STEPS + EPOCHS
    assert facts["queried-images"] == STEPS * 12 + EPOCHS * 20
    # x_hat and ids there, the gradient (of training batches alone) back.
    assert facts["sent-bytes"] == (STEPS * 12 + EPOCHS * 20) * (image + 8)
    assert facts["received-bytes"] == STEPS * 12 * image


def test_a_session_goes_on_with_what_this_process_still_has(job: Job, provider: Provider) -> None:
    made: list[TrainSession] = []

    class Counted(TrainSession):
        def __init__(self, job: Job, index: int) -> None:
            super().__init__(job, index)
            made.append(self)

    relayed(SessionStore({"train": Counted}, on_disk=True), job, provider)
    assert len(made) == 1
    assert made[0].checkpoint()[1]["training"]["step"] == STEPS


def test_a_session_that_went_on_in_another_process_is_not_kept(job: Job, provider: Provider) -> None:
    mine, others = SessionStore(SESSIONS, on_disk=True), SessionStore(SESSIONS, on_disk=True)
    first, second = in_a_folder_of_its_own(job, "first"), in_a_folder_of_its_own(job, "second")
    message_type, ticket, request = question(start(mine, first))
    resume(others, first, ticket, answer_one(provider, message_type, request))
    start(mine, second)
    assert set(mine._waiting) == {waiting(second)}
    assert set(others._waiting) == {waiting(first)}


def test_a_session_that_has_ended_in_another_process_is_not_taken_up_again(job: Job, provider: Provider) -> None:
    mine, others = SessionStore(SESSIONS, on_disk=True), SessionStore(SESSIONS, on_disk=True)
    message_type, ticket, request = question(start(mine, job))
    answer = answer_one(provider, message_type, request)
    with pytest.raises(MessageError, match=r"waits for answer 1, this is answer 2$"):
        resume(others, job, replace(ticket, number=2), answer)
    waiting(job).unlink()
    for store in (mine, others):
        with pytest.raises(MessageError, match=r"^session train waits for no answer, this is answer 1$"):
            resume(store, job, ticket, answer)


@pytest.mark.parametrize("in_a_new_process", [True, False])
def test_an_answer_that_comes_again_since_the_last_reply_was_lost_gets_that_reply_again(
    job: Job, provider: Provider, store: SessionStore, in_a_new_process: bool
) -> None:
    reply = start(store, job)
    while REQUEST in reply.config_records:
        message_type, ticket, request = question(reply)
        answer = answer_one(provider, message_type, request)
        reply = resume(store, job, ticket, answer)
    if in_a_new_process:
        store.forget()
    again = resume(store, job, ticket, answer)
    assert_identical(theta_of(again), theta_of(reply))
    assert again.metric_records[METRICS] == reply.metric_records[METRICS]
    start(store, job)  # other work: nobody asks for that reply any more
    assert not list(waiting(job).parent.glob("*.ended"))


@pytest.mark.parametrize("on_disk", [True, False])
def test_the_answer_to_another_question_is_refused_and_the_right_one_still_taken(
    job: Job, provider: Provider, on_disk: bool
) -> None:
    store = SessionStore(SESSIONS, on_disk)
    message_type, ticket, request = question(start(store, job))
    answer = answer_one(provider, message_type, request)
    with pytest.raises(MessageError, match=r"^session train waits for answer 1, this is answer 2$"):
        resume(store, job, replace(ticket, number=2), answer)
    with pytest.raises(MessageError, match=r"^session validate waits for no answer, this is answer 1$"):
        resume(store, job, replace(ticket, session="validate"), answer)
    assert question(resume(store, job, ticket, answer))[1].number == 2


def test_an_answer_that_nobody_waits_for_is_refused(job: Job, provider: Provider, store: SessionStore) -> None:
    message_type, ticket, request = question(start(store, job))
    answer = answer_one(provider, message_type, request)
    store.forget()
    waiting(job).unlink()
    with pytest.raises(MessageError, match=r"^session train waits for no answer, this is answer 1$"):
        resume(store, job, ticket, answer)


def test_a_session_file_that_is_damaged_is_named(job: Job, provider: Provider, store: SessionStore) -> None:
    message_type, ticket, request = question(start(store, job))
    store.forget()
    waiting(job).write_bytes(waiting(job).read_bytes()[:100])
    with pytest.raises(ValueError, match=r"train.safetensors: not a readable safetensors file") as caught:
        resume(store, job, ticket, answer_one(provider, message_type, request))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", ["direct", "relayed"])
def test_a_refusal_by_the_provider_reaches_the_user_with_its_reason(
    job: Job, provider: Provider, store: SessionStore, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = ValueError("user 0 is unknown")
    monkeypatch.setattr(provider, "answer", Mock(side_effect=reason))

    def go() -> None:
        if way == "direct":
            direct(job, provider)
        else:
            resume(store, job, question(start(store, job))[1], encode_refusal(reason))

    with pytest.raises(ExchangeError, match=r"^the provider refused: user 0 is unknown$"):
        go()


def test_a_request_of_nonsense_is_refused_and_leaves_the_provider_serving(
    job: Job, provider: Provider, store: SessionStore
) -> None:
    message_type, _, request = question(start(store, job))
    before = provider.digest()
    for bad_type, content in (("query.labels", request), (message_type, RecordDict())):
        answer = answer_one(provider, bad_type, content)
        assert answer.config_records["answer"]["kind"] == "refusal"
        assert "\n" not in str(answer.config_records["answer"]["reason"])
    assert answer_one(provider, message_type, request).config_records["answer"]["kind"] == "images"
    assert provider.digest() == before


def test_the_state_on_disk_holds_the_ticket_it_waits_for_and_no_label(
    job: Job, provider: Provider, store: SessionStore
) -> None:
    reply = start(store, job)
    for expected in (1, 2, 3):
        message_type, ticket, request = question(reply)
        tensors, metadata = load(waiting(job))
        assert json.loads(metadata["numbers"])["ticket"] == ticket.number == expected
        assert {name.partition("/")[0] for name in tensors} <= {"theta", "best", "optimiser", "ids", "noise"}
        reply = resume(store, job, ticket, answer_one(provider, message_type, request))


def test_a_process_left_with_a_session_of_an_earlier_round_goes_on_from_the_disk(job: Job, provider: Provider) -> None:
    # Tickets count from 1 in every round. Process A is left with ticket 2 of round 1; its next message for this user
    # is the answer to ticket 2 of round 2.
    processes = {name: SessionStore(SESSIONS, on_disk=True) for name in "AB"}
    plan = iter("AABBB" + "BBAB")

    class Processes(SessionStore):
        """Each message is for the next process of the plan."""

        def __init__(self) -> None:
            pass

        def start(self, *arguments: Any) -> RecordDict:
            return processes[next(plan)].start(*arguments)

        def resume(self, *arguments: Any) -> RecordDict:
            return processes[next(plan)].resume(*arguments)

    strategy = job.experiment.strategy.model_copy(update={"rounds": 2})
    job = replace(job, experiment=job.experiment.model_copy(update={"strategy": strategy}))
    here, there = in_a_folder_of_its_own(job, "direct"), in_a_folder_of_its_own(job, "relayed")
    for number in (1, 2):
        direct(replace(here, server_round=number), provider, content=job_content(here))
        relayed(Processes(), replace(there, server_round=number), provider, content=job_content(there))
    assert list(plan) == []
    one, other = (publication(place, 0) for place in (here, there))
    assert_identical(theta_of(one), theta_of(other))
    assert one.metric_records == other.metric_records
