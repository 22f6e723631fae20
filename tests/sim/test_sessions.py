import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict

import roles.user.training
import sim.sessions
from roles.common.exchange import ExchangeError
from roles.common.unet import UNet
from roles.common.weights import State, cpu_state, load
from roles.provider.provider import Provider
from sim.messages import ARRAYS, METRICS, REQUEST, Job, MessageError, decode_tensors, encode_refusal
from sim.progress import Heart
from sim.provider_node import answer_one, build_provider
from sim.result_messages import decode_curve
from sim.sessions import Session, resume_relayed, run_direct, start_relayed
from sim.user_node import TestSession as ClassifySession
from sim.user_node import TrainSession, ValidateSession, keep_training, new_training, publication, training_after

# User 0: 24 images in batches of 12, 2 epochs; 20 validation images.
STEPS, EPOCHS = 4, 2


@pytest.fixture
def provider(job: Job) -> Provider:
    return build_provider(job)


def train_session(job: Job) -> TrainSession:
    return TrainSession(job, 0, new_training(job, 0), Heart(), averaged=True)


def question(reply: RecordDict) -> tuple[str, int, RecordDict]:
    record = reply.config_records[REQUEST]
    ticket = record["ticket"]
    assert isinstance(ticket, int)
    return str(record["type"]), ticket, RecordDict({name: r for name, r in reply.items() if name != REQUEST})


def relayed(
    new_session: Callable[[], Session], path: Path, provider: Provider, between: Callable[[], None] = lambda: None
) -> RecordDict:
    reply = start_relayed(new_session(), path)
    while REQUEST in reply.config_records:
        message_type, ticket, request = question(reply)
        assert ticket < 20, "the session asks the same over and over"
        between()
        reply = resume_relayed(new_session, path, ticket, answer_one(provider, message_type, request))
    return reply


def direct(session: Session, provider: Provider) -> RecordDict:
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
    job: Job, provider: Provider, fresh: bool
) -> None:
    here, there = in_a_folder_of_its_own(job, "direct"), in_a_folder_of_its_own(job, "relayed")
    first = direct(train_session(here), provider)
    between = sim.sessions._here.clear if fresh else lambda: None
    path = there.run / "state" / "user-0000-train.safetensors"
    second = relayed(lambda: train_session(there), path, provider, between)

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
    assert not path.exists()
    assert not sim.sessions._here


def test_traffic_is_what_the_messages_hold(job: Job, provider: Provider) -> None:
    direct(train_session(job), provider)
    facts = publication(job, 0).metric_records[METRICS]
    image = 3 * 8 * 8 * 4
    assert facts["steps"] == STEPS
    assert facts["queries"] == STEPS + EPOCHS
    assert facts["queried-images"] == STEPS * 12 + EPOCHS * 20
    # Each array has a header of 128 bytes: x_hat and ids there, the gradient (of training batches alone) back.
    assert facts["sent-bytes"] == (STEPS * 12 + EPOCHS * 20) * (image + 8) + (STEPS + EPOCHS) * 2 * 128
    assert facts["received-bytes"] == STEPS * (12 * image + 128)


def test_a_session_goes_on_with_what_this_process_still_has(job: Job, provider: Provider) -> None:
    path = job.run / "state" / "session.safetensors"
    made: list[Session] = []

    def new_session() -> Session:
        made.append(train_session(job))
        return made[-1]

    relayed(new_session, path, provider)
    assert len(made) == 1
    assert made[0].checkpoint()[1]["training"]["step"] == STEPS


def test_a_session_that_went_on_in_another_process_is_not_kept(
    job: Job, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, others = dict[Path, object](), dict[Path, object]()
    monkeypatch.setattr(sim.sessions, "_here", mine)
    first, second = job.run / "state" / "first.safetensors", job.run / "state" / "second.safetensors"
    message_type, ticket, request = question(start_relayed(train_session(job), first))
    monkeypatch.setattr(sim.sessions, "_here", others)
    resume_relayed(lambda: train_session(job), first, ticket, answer_one(provider, message_type, request))
    monkeypatch.setattr(sim.sessions, "_here", mine)
    start_relayed(train_session(job), second)
    assert set(mine) == {second}
    assert set(others) == {first}


def test_the_answer_to_another_question_is_refused_and_the_right_one_still_taken(job: Job, provider: Provider) -> None:
    path = job.run / "state" / "session.safetensors"
    message_type, ticket, request = question(start_relayed(train_session(job), path))
    answer = answer_one(provider, message_type, request)
    with pytest.raises(
        MessageError, match=r"^the session at session.safetensors waits for answer 1, this is answer 2$"
    ):
        resume_relayed(lambda: train_session(job), path, ticket + 1, answer)
    assert question(resume_relayed(lambda: train_session(job), path, ticket, answer))[1] == 2


def test_an_answer_that_nobody_waits_for_is_refused(job: Job, provider: Provider) -> None:
    path = job.run / "state" / "session.safetensors"
    message_type, ticket, request = question(start_relayed(train_session(job), path))
    answer = answer_one(provider, message_type, request)
    sim.sessions._here.clear()
    path.unlink()
    with pytest.raises(MessageError, match=r"^no session waits at session.safetensors$"):
        resume_relayed(lambda: train_session(job), path, ticket, answer)


def test_a_session_file_that_is_damaged_is_named(job: Job, provider: Provider) -> None:
    path = job.run / "state" / "session.safetensors"
    message_type, ticket, request = question(start_relayed(train_session(job), path))
    sim.sessions._here.clear()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"session.safetensors: not a readable safetensors file") as caught:
        resume_relayed(lambda: train_session(job), path, ticket, answer_one(provider, message_type, request))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", ["direct", "relayed"])
def test_a_refusal_by_the_provider_reaches_the_user_with_its_reason(job: Job, way: str) -> None:
    refusal = encode_refusal(ValueError("user 0 is unknown"))
    path = job.run / "state" / "session.safetensors"

    def go() -> None:
        if way == "direct":
            run_direct(train_session(job), lambda message_type, content: refusal)
        else:
            start_relayed(train_session(job), path)
            resume_relayed(lambda: train_session(job), path, 1, refusal)

    with pytest.raises(ExchangeError, match=r"^the provider refused: user 0 is unknown$"):
        go()


def test_a_request_of_nonsense_is_refused_and_leaves_the_provider_serving(job: Job, provider: Provider) -> None:
    message_type, _, request = question(start_relayed(train_session(job), job.run / "state" / "s.safetensors"))
    before = provider.digest()
    for bad_type, content in (("query.labels", request), (message_type, RecordDict())):
        answer = answer_one(provider, bad_type, content)
        assert answer.config_records["answer"]["kind"] == "refusal"
        assert "\n" not in str(answer.config_records["answer"]["reason"])
    assert answer_one(provider, message_type, request).config_records["answer"]["kind"] == "images"
    assert provider.digest() == before


def test_the_state_on_disk_holds_the_ticket_it_waits_for_and_no_label(job: Job, provider: Provider) -> None:
    path = job.run / "state" / "session.safetensors"
    reply = start_relayed(train_session(job), path)
    for expected in (1, 2, 3):
        message_type, ticket, request = question(reply)
        tensors, metadata = load(path)
        assert json.loads(metadata["numbers"])["ticket"] == ticket == expected
        assert {name.partition("/")[0] for name in tensors} <= {"theta", "best", "optimiser", "ids"}
        reply = resume_relayed(lambda: train_session(job), path, ticket, answer_one(provider, message_type, request))


def test_training_in_rounds_is_training_in_one_go(job: Job, provider: Provider) -> None:
    whole, rounds = in_a_folder_of_its_own(job, "whole"), in_a_folder_of_its_own(job, "rounds")
    strategy = job.experiment.strategy.model_copy(update={"rounds": 3})
    split = replace(rounds, experiment=job.experiment.model_copy(update={"strategy": strategy}))
    direct(train_session(whole), provider)
    for number in (1, 2, 3):
        now = replace(split, server_round=number)
        direct(TrainSession(now, 0, training_after(now, 0, number - 1), Heart(), averaged=True), provider)
    assert_identical(theta_of(publication(whole, 0)), theta_of(publication(split, 0)))


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3, 7])
def test_a_user_on_its_own_goes_through_all_rounds_and_on_from_the_last_one_it_has_finished(
    job: Job, provider: Provider, killed_after: int
) -> None:
    whole, rounds = in_a_folder_of_its_own(job, "whole"), in_a_folder_of_its_own(job, "rounds")
    direct(train_session(whole), provider)
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

        session = TrainSession(split, 0, training_after(split, 0, 3), Heart())
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


def test_a_process_left_with_a_session_of_an_earlier_round_goes_on_from_the_disk(
    job: Job, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tickets count from 1 in every round. Process A is left with ticket 2 of round 1; its next message for this user
    # is the answer to ticket 2 of round 2.
    processes: dict[str, dict[Path, object]] = {"A": {}, "B": {}}
    plan = iter("AABBB" + "BBAB")

    def next_process() -> None:
        monkeypatch.setattr(sim.sessions, "_here", processes[next(plan)])

    strategy = job.experiment.strategy.model_copy(update={"rounds": 2})
    job = replace(job, experiment=job.experiment.model_copy(update={"strategy": strategy}))
    here, there = in_a_folder_of_its_own(job, "direct"), in_a_folder_of_its_own(job, "relayed")

    def round_of(place: Job, number: int) -> TrainSession:
        now = replace(place, server_round=number)
        return TrainSession(now, 0, training_after(now, 0, number - 1), Heart(), averaged=True)

    for number in (1, 2):
        direct(round_of(here, number), provider)
        next_process()
        path = there.run / "state" / "session.safetensors"
        relayed(lambda number=number: round_of(there, number), path, provider, next_process)
    assert list(plan) == []
    one, other = (publication(place, 0) for place in (here, there))
    assert_identical(theta_of(one), theta_of(other))
    assert one.metric_records == other.metric_records


def test_the_state_of_the_last_two_rounds_is_kept(job: Job) -> None:
    for number in (1, 2, 3):
        keep_training(job, 0, number, new_training(job, 0))
    kept = sorted(path.name for path in (job.run / "state" / "user-0000").iterdir())
    assert kept == ["round-0002.safetensors", "round-0003.safetensors"]
    # A round that was done before a crash is done anew: what came after it is of another history.
    keep_training(job, 0, 2, new_training(job, 0))
    assert "round-0003.safetensors" not in {path.name for path in (job.run / "state" / "user-0000").iterdir()}


@pytest.fixture
def validation_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles.user.training, "_VALIDATION_BATCH", 6)


@pytest.mark.usefixtures("validation_in_parts")
@pytest.mark.parametrize("fresh", [False, True], ids=["the same process", "a fresh process for every message"])
def test_an_epochs_validation_over_several_messages_loses_no_batch(job: Job, provider: Provider, fresh: bool) -> None:
    between = sim.sessions._here.clear if fresh else lambda: None
    here, there = in_a_folder_of_its_own(job, "direct"), in_a_folder_of_its_own(job, "relayed")
    direct(train_session(here), provider)
    relayed(lambda: train_session(there), there.run / "state" / "train.safetensors", provider, between)
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
def test_a_validation_over_several_messages_loses_no_batch(job: Job, provider: Provider, fresh: bool) -> None:
    between = sim.sessions._here.clear if fresh else lambda: None
    keep_training(job, 0, job.round, new_training(job, 0))
    first = direct(ValidateSession(job, 0, None), provider)
    path = job.run / "state" / "validate.safetensors"
    second = relayed(lambda: ValidateSession(job, 0, None), path, provider, between)
    assert first.metric_records[METRICS] == second.metric_records[METRICS]
    assert first.metric_records[METRICS]["num-examples"] == 20


@pytest.mark.parametrize("fresh", [False, True], ids=["the same process", "a fresh process for every message"])
def test_test_images_are_classified_in_order_however_the_messages_travel(
    job: Job, provider: Provider, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.user_node._TEST_BATCH", 7)
    torch.manual_seed(0)
    theta = cpu_state(UNet(2, 2))
    between = sim.sessions._here.clear if fresh else lambda: None
    thetas = iter([theta])  # a session that is resumed gets its theta from the state on disk
    first = theta_of(direct(ClassifySession(job, 0, theta), provider))
    path = job.run / "state" / "test.safetensors"
    second = theta_of(relayed(lambda: ClassifySession(job, 0, next(thetas, {})), path, provider, between))
    assert_identical(first, second)
    assert first["labels"].shape == (30,)
    assert first["labels"].dtype == torch.int64
