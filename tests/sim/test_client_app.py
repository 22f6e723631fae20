import pytest
from flwr.app import Message, RecordDict

from sim.exchange.client import reason_of
from sim.exchange.job import Job, encode_job
from sim.exchange.suspension import Ticket, resume_content
from tests.sim.in_memory_grid import PROVIDER, InMemoryGrid
from tests.sim.relaying import relay_of


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
    reply = relay_of(grid, job).ask(Message(content, node, message_type))
    assert reason in reason_of(reply)
    assert "\n" not in reason_of(reply)


def test_a_message_without_a_job_is_an_error_reply(job: Job, grid: InMemoryGrid) -> None:
    reply = relay_of(grid, job).ask(Message(RecordDict(), 201, "train"))
    assert "the message carries no job" in reply.error.reason
