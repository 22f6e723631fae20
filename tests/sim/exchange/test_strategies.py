"""Strategies over the relay."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import Error, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from roles.common.exchange import drive
from roles.common.unet import UNet
from roles.common.weights import cpu_state, without_statistics
from roles.user.training import TransformerTraining
from sim.config.sections import StrategyConfig
from sim.exchange.job import Job, encode_job, job_content
from sim.exchange.messages import ARRAYS, JOB, METRICS, decode_tensors, encode_tensors
from sim.exchange.sessions import run_direct
from sim.nodes.provider.serving import build_provider
from sim.nodes.user.sessions import TrainSession, publication
from sim.nodes.user.state import new_training
from strategies import Independent
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid
from tests.sim.relaying import relay_over
from tests.sim.thetas import assert_identical


def theta_of(reply: Message) -> dict[str, Tensor]:
    return decode_tensors(reply.content.array_records[ARRAYS])


def with_rounds(job: Job, rounds: int, epochs: float = 2) -> Job:
    experiment = job.experiment
    training = experiment.user.training.model_copy(update={"epochs": epochs})
    update = {
        "strategy": experiment.strategy.model_copy(update={"rounds": rounds}),
        "user": experiment.user.model_copy(update={"training": training}),
    }
    return replace(job, experiment=experiment.model_copy(update=update), server_round=0)


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
        run_direct(session, provider.answer)
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
