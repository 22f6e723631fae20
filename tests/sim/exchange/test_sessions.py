import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import RecordDict

import roles.user.training
from roles.common.exchange import ExchangeError
from roles.common.unet import UNet
from roles.common.weights import State, cpu_state, load
from roles.provider.provider import Provider
from sim.client_app import SESSIONS
from sim.exchange.job import Job, job_content
from sim.exchange.messages import ARRAYS, METRICS, MessageError, decode_tensors, encode_refusal, encode_tensors
from sim.exchange.payloads import decode_curve
from sim.exchange.sessions import SessionStore, run_direct
from sim.exchange.suspension import REQUEST, Ticket
from sim.nodes.provider.serving import answer_one, build_provider
from sim.nodes.user.sessions import TrainSession, publication
from sim.nodes.user.state import UserState, new_training

# User 0: 24 images in batches of 12, 2 epochs; 20 validation images.
STEPS, EPOCHS = 4, 2


@pytest.fixture
def provider(job: Job) -> Provider:
    return build_provider(job)


@pytest.fixture
def store() -> SessionStore:
    return SessionStore(SESSIONS, on_disk=True)


def folder(job: Job) -> Path:
    return job.run / "state" / "user-0000"


def waiting(job: Job) -> Path:
    return folder(job) / "waiting" / "train.safetensors"


def theta_message(job: Job, theta: State | None = None) -> RecordDict:
    """Return a message that asks user 0 to go on from a theta, by default from its own initial one."""
    return job_content(job, **{ARRAYS: encode_tensors(theta or new_training(job, 0).theta())})


def start(store: SessionStore, job: Job, kind: str = "train", content: RecordDict | None = None) -> RecordDict:
    return store.start(kind, job, 0, folder(job), content or theta_message(job))


def resume(store: SessionStore, job: Job, ticket: Ticket, answer: RecordDict) -> RecordDict:
    return store.resume(ticket, job, 0, folder(job), answer)


def question(reply: RecordDict) -> tuple[str, Ticket, RecordDict]:
    record = reply.config_records[REQUEST]
    number = record["ticket"]
    assert isinstance(number, int)
    request = RecordDict({name: r for name, r in reply.items() if name != REQUEST})
    return str(record["type"]), Ticket(str(record["session"]), number), request


def relayed(
    store: SessionStore,
    job: Job,
    provider: Provider,
    between: Callable[[], None] = lambda: None,
    kind: str = "train",
    content: RecordDict | None = None,
) -> RecordDict:
    reply = start(store, job, kind, content)
    while REQUEST in reply.config_records:
        message_type, ticket, request = question(reply)
        assert ticket.number < 20, "the session asks the same over and over"
        between()
        reply = resume(store, job, ticket, answer_one(provider, message_type, request))
    return reply


def direct(job: Job, provider: Provider, kind: str = "train", content: RecordDict | None = None) -> RecordDict:
    session = SESSIONS[kind](job, 0)
    session.begin(content or theta_message(job))
    return run_direct(session, lambda message_type, content: answer_one(provider, message_type, content))


def in_a_folder_of_its_own(job: Job, name: str) -> Job:
    return replace(job, run=job.run.parent / name)


def theta_of(content: RecordDict) -> State:
    return decode_tensors(content.array_records[ARRAYS])


def assert_identical(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


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
    # Each array has a header of 128 bytes: x_hat and ids there, the gradient (of training batches alone) back.
    assert facts["sent-bytes"] == (STEPS * 12 + EPOCHS * 20) * (image + 8) + (STEPS + EPOCHS) * 2 * 128
    assert facts["received-bytes"] == STEPS * (12 * image + 128)


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
def test_a_refusal_by_the_provider_reaches_the_user_with_its_reason(job: Job, store: SessionStore, way: str) -> None:
    refusal = encode_refusal(ValueError("user 0 is unknown"))

    def go() -> None:
        if way == "direct":
            session = TrainSession(job, 0)
            session.begin(theta_message(job))
            run_direct(session, lambda message_type, content: refusal)
        else:
            resume(store, job, question(start(store, job))[1], refusal)

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
        assert {name.partition("/")[0] for name in tensors} <= {"theta", "best", "optimiser", "ids"}
        reply = resume(store, job, ticket, answer_one(provider, message_type, request))


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

        def call(message_type: str, content: RecordDict) -> RecordDict:
            nonlocal asked
            asked += 1
            if asked > limit:
                raise KilledError
            return answer_one(provider, message_type, content)

        session = TrainSession(split, 0)
        session.begin(job_content(split))
        return run_direct(session, call), asked

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


def test_the_state_of_the_last_two_rounds_is_kept(job: Job) -> None:
    state = UserState(job, 0)
    for number in (1, 2, 3):
        state.keep_round(number, new_training(job, 0))
    kept = sorted(path.name for path in folder(job).iterdir())
    assert kept == ["round-0002.safetensors", "round-0003.safetensors"]
    # A round that was done before a crash is done anew: what came after it is of another history.
    state.keep_round(2, new_training(job, 0))
    assert "round-0003.safetensors" not in {path.name for path in folder(job).iterdir()}


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
