"""Homes in this process: what a simulation's Ray actors hold. That they are reached, whole relayed runs show."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import pytest
import torch
from flwr.app import RecordDict

from roles.common.exchange import ExchangeError
from roles.common.weights import State
from roles.provider.provider import Provider
from sim.homes import Home
from sim.messages import METRICS, REQUEST, Job, MessageError, decode_tensors, encode_refusal, job_content
from sim.progress import Heart
from sim.provider_node import answer_one, build_provider
from sim.sessions import run_direct
from sim.user_node import publication, train_session


@pytest.fixture
def provider(job: Job) -> Provider:
    return build_provider(job)


def ask(reply: RecordDict, provider: Provider) -> tuple[int, RecordDict]:
    """Return the ticket of what a reply asks for, and the provider's answer."""
    record = reply.config_records[REQUEST]
    request = RecordDict({name: value for name, value in reply.items() if name != REQUEST})
    return cast(int, record["ticket"]), answer_one(provider, str(record["type"]), request)


def train_in(home: Home, job: Job, user: int, provider: Provider) -> RecordDict:
    reply = home.start(user, "train", job_content(job))
    while REQUEST in reply.config_records:
        reply = home.resume(user, "train", *ask(reply, provider))
    return reply


def published(job: Job, user: int) -> State:
    return decode_tensors(publication(job, user).array_records["arrays"])


def assert_identical(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_users_who_live_together_and_train_at_once_end_as_each_would_alone(job: Job, provider: Provider) -> None:
    alone, together = (replace(job, run=job.run.parent / name) for name in ("alone", "together"))
    for user in (0, 1):
        session = train_session(alone, user, job_content(alone), Heart())
        run_direct(session, lambda message_type, content: answer_one(provider, message_type, content))
    home = Home(threads=1)
    with ThreadPoolExecutor() as pool:
        replies = list(pool.map(lambda user: train_in(home, together, user, provider), (0, 1)))
    assert [reply.metric_records[METRICS]["num-examples"] for reply in replies] == [24, 36]
    for user in (0, 1):
        assert_identical(published(alone, user), published(together, user))
        costs = [publication(place, user).metric_records[METRICS] for place in (alone, together)]
        assert costs[0] == costs[1]


def test_a_home_writes_nothing_between_the_ends_of_rounds(job: Job, provider: Provider) -> None:
    home = Home(threads=1)
    reply = home.start(0, "train", job_content(job))
    for _ in range(3):
        reply = home.resume(0, "train", *ask(reply, provider))
    assert not list((job.run / "state").rglob("*"))


def test_the_answer_to_another_question_is_refused_and_the_right_one_still_taken(job: Job, provider: Provider) -> None:
    home = Home(threads=1)
    ticket, answer = ask(home.start(0, "train", job_content(job)), provider)
    with pytest.raises(MessageError, match=r"^the train session of user 0 waits for answer 1, this is answer 2$"):
        home.resume(0, "train", ticket + 1, answer)
    with pytest.raises(MessageError, match=r"^the validate session of user 0 waits for nothing, this is answer 1$"):
        home.resume(0, "validate", ticket, answer)
    assert ask(home.resume(0, "train", ticket, answer), provider)[0] == 2


def test_a_refusal_by_the_provider_reaches_the_user_with_its_reason(job: Job, provider: Provider) -> None:
    home = Home(threads=1)
    ticket, _ = ask(home.start(0, "train", job_content(job)), provider)
    with pytest.raises(ExchangeError, match=r"^the provider refused: psi is on holiday$"):
        home.resume(0, "train", ticket, encode_refusal(ValueError("psi is on holiday")))
