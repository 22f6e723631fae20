"""Session actors in this process: what a simulation's Ray actors hold. That they are reached, relayed runs show."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import pytest
from flwr.app import RecordDict

from roles.common.exchange import ExchangeError
from roles.common.naming import user_name
from roles.common.weights import State
from roles.provider.provider import Provider
from sim.client_app import SESSIONS
from sim.exchange.job import Job, job_content
from sim.exchange.messages import METRICS, decode_tensors, encode_refusal
from sim.exchange.session_actors import SessionActor
from sim.exchange.sessions import run_direct
from sim.exchange.suspension import REQUEST, Ticket
from sim.nodes.provider.serving import answer_one
from sim.nodes.user.sessions import TrainSession, publication
from sim.run.machine import node_folder
from tests.sim.thetas import assert_identical


@pytest.fixture
def actor() -> SessionActor:
    return SessionActor(SESSIONS, threads=1)


def start(actor: SessionActor, job: Job, user: int) -> RecordDict:
    return actor.start("train", job, user, node_folder(job.run, user_name(user)), job_content(job))


def resume(actor: SessionActor, job: Job, user: int, ticket: Ticket, answer: RecordDict) -> RecordDict:
    return actor.resume(ticket, job, user, node_folder(job.run, user_name(user)), answer)


def ask(reply: RecordDict, provider: Provider) -> tuple[Ticket, RecordDict]:
    """Return the ticket of what a reply asks for, and the provider's answer."""
    record = reply.config_records[REQUEST]
    request = RecordDict({name: value for name, value in reply.items() if name != REQUEST})
    ticket = Ticket(str(record["session"]), cast(int, record["ticket"]))
    return ticket, answer_one(provider, str(record["type"]), request)


def train_in(actor: SessionActor, job: Job, user: int, provider: Provider) -> RecordDict:
    reply = start(actor, job, user)
    while REQUEST in reply.config_records:
        reply = resume(actor, job, user, *ask(reply, provider))
    return reply


def published(job: Job, user: int) -> State:
    return decode_tensors(publication(job, user).array_records["arrays"])


def test_users_whose_sessions_wait_in_one_actor_and_train_at_once_end_as_each_would_alone(
    job: Job, provider: Provider, actor: SessionActor
) -> None:
    alone, together = (replace(job, run=job.run.parent / name) for name in ("alone", "together"))
    for user in (0, 1):
        session = TrainSession(alone, user)
        session.begin(job_content(alone))
        run_direct(session, provider.answer)
    with ThreadPoolExecutor() as pool:
        replies = list(pool.map(lambda user: train_in(actor, together, user, provider), (0, 1)))
    assert [reply.metric_records[METRICS]["num-examples"] for reply in replies] == [24, 36]
    for user in (0, 1):
        assert_identical(published(alone, user), published(together, user))
        costs = [publication(place, user).metric_records[METRICS] for place in (alone, together)]
        assert costs[0] == costs[1]


def test_an_actor_writes_nothing_between_the_ends_of_rounds(job: Job, provider: Provider, actor: SessionActor) -> None:
    before = set((job.run / "state").rglob("*"))
    reply = start(actor, job, 0)
    for _ in range(3):
        reply = resume(actor, job, 0, *ask(reply, provider))
    assert set((job.run / "state").rglob("*")) == before
    assert not node_folder(job.run, user_name(0)).exists()


def test_a_refusal_by_the_provider_reaches_the_user_with_its_reason(
    job: Job, provider: Provider, actor: SessionActor
) -> None:
    ticket, _ = ask(start(actor, job, 0), provider)
    with pytest.raises(ExchangeError, match=r"^the provider refused: psi is on holiday$"):
        resume(actor, job, 0, ticket, encode_refusal(ValueError("psi is on holiday")))
