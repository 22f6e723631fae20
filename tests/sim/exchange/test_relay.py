import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import Array, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from roles.common.exchange import drive
from roles.common.unet import UNet
from roles.common.weights import cpu_state, without_statistics
from roles.user.training import TransformerTraining
from sim.client_app import app
from sim.config.sections import StrategyConfig
from sim.exchange.client import WorkerDied, reason_of
from sim.exchange.job import Job, encode_job, job_content
from sim.exchange.messages import ARRAYS, JOB, METRICS, decode_tensors, encode_tensors, split
from sim.exchange.relay import Relay, RelayGrid
from sim.exchange.sessions import run_direct
from sim.exchange.suspension import REQUEST, Ticket, resume_content
from sim.nodes.provider.serving import answer_one, build_provider
from sim.nodes.user.sessions import TrainSession, publication
from sim.nodes.user.state import new_training
from strategies import Independent
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid


def relay_over(grid: InMemoryGrid, job: Job) -> RelayGrid:
    return RelayGrid(grid, Relay(grid, PROVIDER, encode_job(job)), USERS)


def messages_to(job: Job, message_type: str, nodes: Iterable[int] = USERS) -> list[Message]:
    return [Message(RecordDict({JOB: encode_job(job)}), node, message_type) for node in nodes]


def nodes_of(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


def theta_of(reply: Message) -> dict[str, Tensor]:
    return decode_tensors(reply.content.array_records[ARRAYS])


def assert_identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def with_rounds(job: Job, rounds: int, epochs: float = 2) -> Job:
    experiment = job.experiment
    training = experiment.user.training.model_copy(update={"epochs": epochs})
    update = {
        "strategy": experiment.strategy.model_copy(update={"rounds": rounds}),
        "user": experiment.user.model_copy(update={"training": training}),
    }
    return replace(job, experiment=experiment.model_copy(update=update), server_round=0)


@pytest.fixture
def grid() -> InMemoryGrid:
    return InMemoryGrid([PROVIDER, *USERS])


# ---- what a strategy sees ----------------------------------------------------------------------------------------


def test_a_strategy_sees_users_only_and_in_their_order(job: Job, grid: InMemoryGrid) -> None:
    relayed = RelayGrid(grid, Relay(grid, PROVIDER, encode_job(job)), [202, 201])
    assert list(relayed.get_node_ids()) == [202, 201]
    assert [node.node_id for node in relayed.get_nodes()] == [202, 201]
    assert relayed.run == "the run"
    message = relayed.create_message(RecordDict(), "train", 201, "3")
    metadata = message.metadata
    assert (metadata.dst_node_id, metadata.message_type, metadata.group_id) == (201, "train", "3")


def test_what_is_pushed_and_pulled_by_hand_passes_as_it_is(job: Job, grid: InMemoryGrid) -> None:
    relayed = relay_over(grid, job)
    identifiers = list(relayed.push_messages(messages_to(job, "train")))
    replies = list(relayed.pull_messages(identifiers))
    assert all(reply.content.config_records[REQUEST]["type"] == "query.images" for reply in replies)


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_replies_come_in_the_order_of_the_messages_whoever_was_first(job: Job, one_at_a_time: bool) -> None:
    grid = InMemoryGrid([PROVIDER, *USERS], one_at_a_time)
    relay = Relay(grid, PROVIDER, encode_job(job))
    for nodes in ([201, 202, PROVIDER], [PROVIDER, 202, 201]):
        replies = relay.exchange(messages_to(job, "query.role", nodes))
        assert nodes_of(replies) == nodes
    assert nodes_of(grid.replies[:3]) == [PROVIDER, 202, 201]


def test_a_strategy_gets_its_replies_in_the_order_of_the_users_however_it_drew_them(
    job: Job, grid: InMemoryGrid
) -> None:
    replies = relay_over(grid, job).send_and_receive(messages_to(job, "query.role", [202, 201]))
    assert nodes_of(replies) == [201, 202]


def test_several_messages_to_one_node_go_one_after_the_other(job: Job, grid: InMemoryGrid) -> None:
    relay = Relay(grid, PROVIDER, encode_job(job))
    replies = relay.exchange(messages_to(job, "query.role", [201, 202, 201, 201]))
    assert nodes_of(replies) == [201, 202, 201, 201]
    assert grid.most_in_flight == {201: 1, 202: 1}


def test_a_message_may_take_weeks(job: Job, grid: InMemoryGrid) -> None:
    list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    to_users = [message for message in grid.sent if message.metadata.dst_node_id != PROVIDER]
    assert {message.metadata.message_type for message in to_users} == {"train", "train.resume"}
    assert all(message.metadata.ttl == 30 * 24 * 3600 for message in to_users)


def test_no_messages_have_no_replies(job: Job, grid: InMemoryGrid) -> None:
    assert list(relay_over(grid, job).send_and_receive([])) == []


def test_one_message_is_asked_and_answered(job: Job, grid: InMemoryGrid) -> None:
    reply = Relay(grid, PROVIDER, encode_job(job)).ask(messages_to(job, "query.psi", [PROVIDER])[0])
    assert reply.content.config_records["psi"]["digest"] == build_provider(job).digest()


# ---- questions to the provider -----------------------------------------------------------------------------------


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_users_train_to_the_end_with_one_message_in_flight_at_each_node(job: Job, one_at_a_time: bool) -> None:
    grid = InMemoryGrid([PROVIDER, *USERS], one_at_a_time)
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert nodes_of(replies) == [201, 202]
    assert [reply.content.metric_records[METRICS]["num-examples"] for reply in replies] == [24, 36]
    assert grid.most_in_flight == {PROVIDER: 1, 201: 1, 202: 1}
    # The same as if the provider had been a call away.
    provider = build_provider(job)
    for user, reply in enumerate(replies):
        alone = replace(job, run=job.run.parent / "direct")
        session = TrainSession(alone, user)
        session.begin(job_content(alone))
        content = run_direct(session, lambda kind, content: answer_one(provider, kind, content))
        assert reply.content.metric_records == content.metric_records
        one, other = publication(job, user), publication(alone, user)
        assert_identical(decode_tensors(one.array_records[ARRAYS]), decode_tensors(other.array_records[ARRAYS]))
        assert one.metric_records == other.metric_records


def test_questions_that_come_in_together_travel_to_the_provider_as_one_message(job: Job, grid: InMemoryGrid) -> None:
    list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    sizes = {
        kind: [
            len(split(RecordDict({name: r for name, r in message.content.items() if name != JOB})))
            for message in grid.of_type(f"query.{kind}")
        ]
        for kind in ("images", "loss_gradient", "loss")
    }
    # User 0 has 2 epochs of 2 steps, user 1 of 3: while one validates, the other asks for gradients.
    assert sizes["images"] == [2]
    assert sizes["loss_gradient"][:2] == [2, 2]
    assert {kind: sum(parts) for kind, parts in sizes.items()} == {"images": 2, "loss_gradient": 10, "loss": 4}
    assert all(message.metadata.dst_node_id == PROVIDER for message in grid.of_type("query.loss_gradient"))


def test_waiting_is_told_to_whoever_shows_progress(job: Job, grid: InMemoryGrid) -> None:
    told: list[None] = []
    relay = Relay(grid, PROVIDER, encode_job(job), idle=lambda: told.append(None))
    relay.exchange(messages_to(job, "query.role"))
    assert told


def test_work_for_any_of_several_nodes_goes_to_whichever_is_free(job: Job, grid: InMemoryGrid) -> None:
    relay, finished = Relay(grid, PROVIDER, encode_job(job)), []

    def submit(number: int) -> None:
        relay.submit(
            USERS,
            lambda node: Message(RecordDict({JOB: encode_job(job)}), node, "query.role"),
            lambda reply: finished.append(number),
        )

    for number in range(5):
        submit(number)
    relay.run()
    assert sorted(finished) == list(range(5))
    assert grid.most_in_flight == {201: 1, 202: 1}


def test_a_node_that_may_have_more_in_flight_gets_more(job: Job, grid: InMemoryGrid) -> None:
    relay = Relay(grid, PROVIDER, encode_job(job), per_node=lambda node: 3 if node == 201 else 1)
    relay.exchange(messages_to(job, "query.role", [201] * 5 + [202] * 5))
    assert grid.most_in_flight == {201: 3, 202: 1}


def test_a_simulation_is_sent_little_more_than_its_workers_can_take(job: Job) -> None:
    users = range(300, 400)
    grid = InMemoryGrid([PROVIDER, *users], one_at_a_time=True)
    relay = Relay(grid, PROVIDER, encode_job(job), under_way=3)
    under_way, most = set(), 0

    def message_to(node: int) -> Message:
        nonlocal most
        under_way.add(node)
        most = max(most, len(under_way))
        return messages_to(job, "query.role", [node])[0]

    for user in users:
        relay.submit([user], message_to, lambda reply: under_way.remove(reply.metadata.src_node_id))
    relay.run(lambda: len(grid.replies) == 1)
    assert most == 4
    relay.run()
    assert len(grid.replies) == 100
    assert not under_way


def test_what_a_reply_leads_to_is_done_as_well_while_others_still_work(job: Job, grid: InMemoryGrid) -> None:
    relay, order = Relay(grid, PROVIDER, encode_job(job)), []

    def role_of_other(reply: Message) -> None:
        order.append("role of 201")
        relay.submit(
            [202], lambda node: messages_to(job, "query.role", [node])[0], lambda r: order.append("role of 202")
        )

    relay.submit([201], lambda node: messages_to(job, "query.role", [node])[0], role_of_other)
    relay.exchange(messages_to(job, "train", [201]), finished=lambda reply: order.append("trained"))
    assert order == ["role of 201", "role of 202", "trained"]


def test_what_goes_first_is_sent_before_all_that_waits_and_in_its_own_order(job: Job) -> None:
    users = range(300, 304)
    grid = InMemoryGrid(users)
    relay, order = Relay(grid, PROVIDER, encode_job(job)), []

    def submit(name: str, node: int, first: bool = False, then: Callable[[], None] = lambda: None) -> None:
        def finished(reply: Message) -> None:
            order.append(name)
            then()

        relay.submit([node], lambda node: messages_to(job, "query.role", [node])[0], finished, first)

    def two_more() -> None:
        for name in ("first", "second"):
            submit(name, 301, first=True)

    submit("began", 301, then=two_more)
    for name in ("third", "fourth"):
        submit(name, 301)
    submit("elsewhere", 302)
    relay.run()
    assert [name for name in order if name != "elsewhere"] == ["began", "first", "second", "third", "fourth"]
    # What goes first holds up nobody while it waits for its own node.
    assert order.index("elsewhere") <= 1


# ---- what can go wrong -------------------------------------------------------------------------------------------


def test_a_user_whose_request_is_refused_fails_alone(job: Job) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        if reply.metadata.src_node_id == 201 and not reply.has_error() and ARRAYS in reply.content.array_records:
            arrays = reply.content.array_records[ARRAYS]
            if "protected" in arrays:
                arrays["protected"] = Array(arrays["protected"].numpy() + 5)
        return reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    failed, trained = relay_over(grid, job).send_and_receive(messages_to(job, "train"))
    assert "the provider refused: protected images must hold finite values in [0, 1]" in failed.error.reason
    assert "\n" not in failed.error.reason
    assert trained.content.metric_records[METRICS]["num-examples"] == 36


def test_a_user_that_asks_for_what_the_provider_does_not_answer_fails_alone(job: Job) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        if reply.metadata.src_node_id == 201 and REQUEST in reply.content.config_records:
            reply.content.config_records[REQUEST]["type"] = "train.classifier"
        return reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    failed, trained = relay_over(grid, job).send_and_receive(messages_to(job, "train"))
    assert failed.error.reason.startswith("the node asks for 'train.classifier' with ticket 1: must be one of")
    assert failed.metadata.src_node_id == 201
    assert not trained.has_error()
    assert not grid.of_type("train.classifier")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (RecordDict({"0/answer": ConfigRecord({"kind": "loss"})}), "field 'loss' is missing"),
        (RecordDict(), "the provider left this request unanswered"),
        (RecordDict({"answer": ConfigRecord({"kind": "loss"})}), "record 'answer' has no number"),
    ],
)
def test_a_provider_that_answers_with_nonsense_costs_the_round_and_not_the_run(
    job: Job, content: RecordDict, reason: str
) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        return Message(content, reply_to=message) if message.metadata.dst_node_id == PROVIDER else reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert nodes_of(replies) == [201, 202]
    assert all(reply.has_error() for reply in replies)
    assert any(reason in reply.error.reason for reply in replies)


def test_a_provider_that_fails_is_quoted_to_every_user_that_waits(job: Job) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        is_provider = message.metadata.dst_node_id == PROVIDER
        return Message(Error(0, "psi is\nlost"), reply_to=message) if is_provider else reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert nodes_of(replies) == [201, 202]
    assert all("the provider refused: psi is lost" in reply.error.reason for reply in replies)


@pytest.mark.parametrize("node", [PROVIDER, 201])
def test_a_worker_that_died_is_an_error_of_its_own(job: Job, node: int) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        reason = "<class 'ray.exceptions.ActorDiedError'>:<'The actor died unexpectedly before finishing this task.'>"
        return Message(Error(0, reason), reply_to=message) if message.metadata.dst_node_id == node else reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    with pytest.raises(WorkerDied, match=r"want of memory \(lower runtime\.workers\); nothing") as caught:
        list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert "\n" not in str(caught.value)


def test_an_error_without_a_reason_is_a_reply_like_any_other(job: Job) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        return Message(Error(0), reply_to=message)

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert nodes_of(replies) == [201, 202]
    assert {reason_of(reply) for reply in replies} == {"no reason given"}


def test_a_message_that_flower_does_not_take_is_an_error_of_its_node_alone(job: Job) -> None:
    grid = InMemoryGrid([PROVIDER, *USERS], unreachable=[201])
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    reasons = {reply.metadata.src_node_id: reply.error.reason if reply.has_error() else "" for reply in replies}
    assert reasons == {201: "Flower did not take the message: the node is gone, or the message too large", 202: ""}


def test_a_provider_that_flower_does_not_reach_is_an_error_of_every_user_that_asks(job: Job) -> None:
    grid = InMemoryGrid([PROVIDER, *USERS], unreachable=[PROVIDER])
    replies = list(relay_over(grid, job).send_and_receive(messages_to(job, "train")))
    assert nodes_of(replies) == [201, 202]
    assert all("did not take" in reply.error.reason for reply in replies)


def test_a_timeout_returns_what_has_come(job: Job) -> None:
    grid = InMemoryGrid([PROVIDER, *USERS], silent=[201])
    began = time.monotonic()
    relayed = relay_over(grid, job)
    replies = list(relayed.send_and_receive(messages_to(job, "query.role"), timeout=0.2))
    assert 0.2 <= time.monotonic() - began < 5
    assert nodes_of(replies) == [202]
    # Nobody waits for the silent node in the next exchange.
    assert nodes_of(relayed.send_and_receive(messages_to(job, "query.role", [202]))) == [202]


@pytest.mark.parametrize(
    ("message_type", "node", "reason"),
    [
        ("train", PROVIDER, "message 'train' is for user, not for provider"),
        ("train.resume", PROVIDER, "message 'train.resume' is for user, not for provider"),
        ("query.publish", PROVIDER, "message 'query.publish' is for user, not for provider"),
        ("train.classifier", 201, "message 'train.classifier' is for provider, not for user"),
        ("query.loss_gradient", 201, "message 'query.loss_gradient' is for provider, not for user"),
        ("query.psi", 202, "message 'query.psi' is for provider, not for user"),
        # Without evaluator nodes, as here, the provider's evaluates, and no other.
        ("evaluate.itn", 201, "message 'evaluate.itn' is for evaluator, not for user"),
        ("evaluate.study", 202, "message 'evaluate.study' is for evaluator, not for user"),
        ("evaluate.test", PROVIDER, "message 'evaluate.test' is for user, not for provider"),
        ("query.labels", PROVIDER, "No query function registered with name 'labels'"),
    ],
)
def test_a_message_for_another_role_is_an_error_reply_of_one_line(
    job: Job, grid: InMemoryGrid, message_type: str, node: int, reason: str
) -> None:
    content = resume_content(encode_job(job), Ticket("train", 1), RecordDict())
    reply = Relay(grid, PROVIDER, encode_job(job)).ask(Message(content, node, message_type))
    assert reason in reply.error.reason
    assert "\n" not in reply.error.reason


def test_a_message_without_a_job_is_an_error_reply(job: Job, grid: InMemoryGrid) -> None:
    reply = Relay(grid, PROVIDER, encode_job(job)).ask(Message(RecordDict(), 201, "train"))
    assert "the message carries no job" in reply.error.reason


def test_roles_follow_from_partitions_and_a_partition_too_many_has_none(job: Job) -> None:
    runtime = job.experiment.runtime.model_copy(update={"evaluators": 1})
    job = replace(job, experiment=job.experiment.model_copy(update={"runtime": runtime}))
    grid = InMemoryGrid(range(5))
    replies = Relay(grid, 0, encode_job(job)).exchange(messages_to(job, "query.role", range(5)))
    roles = [reply.content.config_records["role"] for reply in replies[:4]]
    assert [(role["name"], role["index"]) for role in roles] == [
        ("provider", 0),
        ("user", 0),
        ("user", 1),
        ("evaluator", 0),
    ]
    assert "partition-id 4 has no role: 0 is the provider, and there are 2 users and 1 evaluators" in (
        replies[4].error.reason
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"role": "user", "partition-id": 1}, ("user", 1)),
        ({"role": "provider"}, ("provider", 0)),
        ({"role": "spy"}, "node_config role 'spy': must be provider, user or evaluator"),
        ({}, "the node has no role: set node_config role"),
    ],
)
def test_a_deployed_node_has_the_role_that_its_config_names(
    job: Job, config: dict[str, str | int], expected: tuple[str, int] | str
) -> None:
    (message,) = messages_to(job, "query.role", [201])
    context = Context(1, 201, config, RecordDict(), {})
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=f"^{expected}"):
            app(message, context)
    else:
        role = app(message, context).content.config_records["role"]
        assert (role["name"], role["index"]) == expected


# ---- strategies --------------------------------------------------------------------------------------------------


def test_flowers_own_fedavg_averages_the_users_by_their_images(job: Job, grid: InMemoryGrid) -> None:
    job = with_rounds(job, 2)
    torch.manual_seed(0)
    initial = encode_tensors(cpu_state(UNet(2, 2)))
    result = FedAvg().start(
        relay_over(grid, job), initial, num_rounds=2, train_config=encode_job(job), evaluate_config=encode_job(job)
    )

    def average(replies: list[Message]) -> dict[str, Tensor]:
        # 24 and 36 images: weights 0.4 and 0.6
        of = {reply.metadata.src_node_id: theta_of(reply) for reply in replies}
        return {name: 0.4 * of[201][name].double() + 0.6 * of[202][name].double() for name in of[201]}

    # The last message of a round is the one whose reply is theta.
    rounds = [reply for reply in grid.final_replies("train.resume") if not reply.has_error()]
    assert len(rounds) == 4
    first, second = average(rounds[:2]), average(rounds[2:])
    sent = [decode_tensors(message.content.array_records[ARRAYS]) for message in grid.of_type("train")]
    assert len(sent) == 4
    for theta in sent[:2]:
        assert_identical(theta, decode_tensors(initial))
    for theta in sent[2:]:
        assert all(torch.allclose(theta[name].double(), first[name], atol=1e-6) for name in first)
    final = decode_tensors(result.arrays)
    assert all(torch.allclose(final[name].double(), second[name], atol=1e-6) for name in second)
    assert any(not torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    # Metrics are averaged in the same way.
    losses = {r.metadata.src_node_id: r.content.metric_records[METRICS]["loss"] for r in rounds[2:]}
    assert result.train_metrics_clientapp[2]["loss"] == pytest.approx(0.4 * losses[201] + 0.6 * losses[202])
    assert set(result.evaluate_metrics_clientapp) == {1, 2}
    evaluated = [reply.content.metric_records[METRICS] for reply in grid.final_replies("evaluate.resume")]
    assert [metrics["num-examples"] for metrics in evaluated] == [20] * 4
    mean = (evaluated[2]["loss"] + evaluated[3]["loss"]) / 2
    assert result.evaluate_metrics_clientapp[2]["loss"] == pytest.approx(mean)


@pytest.mark.parametrize("sat_out", [None, 2], ids=["all take part", "user 0 sits out round 2"])
def test_with_local_batch_norm_fedavg_averages_weights_and_every_user_goes_on_with_its_own_statistics(
    job: Job, sat_out: int | None
) -> None:
    job = with_rounds(job, 3)
    strategy = StrategyConfig(name="fedavg", batch_norm="local", rounds=3)
    job = replace(job, experiment=job.experiment.model_copy(update={"strategy": strategy}))

    def tamper(message: Message, reply: Message) -> Message:
        told = message.metadata.message_type == "train" and message.metadata.dst_node_id == 201
        lost = told and message.content.config_records[JOB]["server-round"] == sat_out
        return Message(Error(0, "no more disk"), reply_to=message) if lost else reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    torch.manual_seed(0)
    initial = without_statistics(cpu_state(UNet(2, 2)))
    result = FedAvg().start(
        relay_over(grid, job),
        encode_tensors(initial),
        num_rounds=3,
        train_config=encode_job(job),
        evaluate_config=encode_job(job),
    )
    assert len(grid.of_type("evaluate")) == 6
    assert not any(reply.has_error() for reply in grid.final_replies("evaluate.resume"))
    for message in grid.of_type("train") + grid.of_type("evaluate"):
        assert theta_of(message).keys() == initial.keys()

    # A user that never forgets anything, given the same averages, sends the same weights back.
    provider, final = build_provider(job), decode_tensors(result.arrays)
    for user, node in enumerate(USERS):
        training = new_training(job, user)
        assert isinstance(training, TransformerTraining)
        told = [message for message in grid.of_type("train") if message.metadata.dst_node_id == node]
        replies = [r for r in grid.final_replies("train.resume") if r.metadata.src_node_id == node]
        rounds = [number for number in (1, 2, 3) if (node, number) != (201, sat_out)]
        for number, reply in zip(rounds, replies, strict=True):
            training.adopt(theta_of(told[number - 1]), own_statistics=True)
            drive(training.run(number, 3), provider.answer)
            assert_identical(theta_of(reply), without_statistics(training.theta()))
        published = decode_tensors(publication(job, user, final).array_records[ARRAYS])
        assert_identical(published, training.theta() | final)


def test_independent_leaves_every_user_with_a_theta_of_its_own(job: Job, grid: InMemoryGrid, tmp_path: Path) -> None:
    job = with_rounds(job, 2)
    result = Independent().start(relay_over(grid, job), encode_tensors({}), num_rounds=2, train_config=encode_job(job))
    assert len(result.arrays) == 0
    assert all(ARRAYS not in message.content.array_records for message in grid.of_type("train"))
    assert not grid.of_type("evaluate")
    thetas = [decode_tensors(publication(job, user).array_records[ARRAYS]) for user in (0, 1)]
    assert any(not torch.equal(thetas[0][name], thetas[1][name]) for name in thetas[0])
    # Each is what the user gets that trains alone, in one go.
    provider = build_provider(job)
    for user, theta in enumerate(thetas):
        alone = replace(with_rounds(job, 1), run=tmp_path / "alone", server_round=1)
        session = TrainSession(alone, user)
        session.begin(job_content(alone))
        run_direct(session, lambda kind, content: answer_one(provider, kind, content))
        assert_identical(theta, decode_tensors(publication(alone, user).array_records[ARRAYS]))


def test_a_user_that_fails_leaves_the_others_average(job: Job) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        failed = message.metadata.dst_node_id == 201 and message.metadata.message_type == "train"
        return Message(Error(0, "no more disk"), reply_to=message) if failed else reply

    grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    result = Independent().start(
        relay_over(grid, job), encode_tensors({}), num_rounds=1, train_config=encode_job(replace(job, server_round=0))
    )
    (survivor,) = grid.final_replies("train.resume")
    assert isinstance(metrics := survivor.content.metric_records[METRICS], MetricRecord)
    assert result.train_metrics_clientapp[1]["loss"] == pytest.approx(metrics["loss"])
