"""Nodes that ask by the relay what they may not: they are refused, and nobody else's training is another for it."""

import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from flwr.app import Array, Message, RecordDict

from sim.exchange.client import reason_of
from sim.exchange.job import Job
from sim.exchange.messages import ANSWER, ARRAYS, decode_tensors
from sim.exchange.suspension import REQUEST
from sim.nodes.user.sessions import publication
from tests.sim.in_memory_grid import PROVIDER, USERS, InMemoryGrid
from tests.sim.relaying import messages_to, relay_over
from tests.sim.thetas import assert_identical

ATTACKER, OTHER = USERS


def another_users_name(asked: RecordDict) -> None:
    asked.config_records[ANSWER]["user"] = 1


def another_users_images(asked: RecordDict) -> None:
    if "ids" in asked.array_records.get(ARRAYS, {}):
        ids = asked.array_records[ARRAYS]["ids"].numpy()
        asked.array_records[ARRAYS]["ids"] = Array((ids + 1) % 1293)


def what_the_provider_remembers(asked: RecordDict) -> None:
    asked.config_records[REQUEST]["type"] = "query.recall"


def a_training_of_its_own(asked: RecordDict) -> None:
    asked.config_records[REQUEST]["type"] = "query.fit"


def nothing_that_there_is(asked: RecordDict) -> None:
    asked.config_records[REQUEST]["type"] = "query.everything"


def endless_images(asked: RecordDict) -> None:
    if "protected" in asked.array_records.get(ARRAYS, {}):
        images = torch.zeros(30_000, 3, 2, 2)
        asked.array_records[ARRAYS]["protected"] = Array(images.numpy())


ASKED: dict[str, tuple[Callable[[RecordDict], None], str]] = {
    "in another's name": (another_users_name, "user 0 asks query.images as user 1"),
    "about another's images": (another_users_images, "is not of user 0's X'"),
    "what the provider remembers": (what_the_provider_remembers, "query.recall is not for users"),
    "for a training of its own": (a_training_of_its_own, "query.fit"),
    "for nothing that there is": (nothing_that_there_is, "must be one of"),
    "with endless images": (endless_images, "30000 images in one request: at most 20000"),
}


@pytest.mark.parametrize("kind", ASKED)
def test_who_asks_what_it_may_not_is_refused_and_the_other_users_theta_is_the_same(kind: str, job: Job) -> None:
    change, said = ASKED[kind]

    def tamper(message: Message, reply: Message) -> Message:
        hostile = message.metadata.dst_node_id == ATTACKER and not reply.has_error()
        if hostile and REQUEST in reply.content.config_records:
            change(reply.content)
        return reply

    beside, alone = (_copy(job, name) for name in ("beside", "alone"))
    hostile_grid = InMemoryGrid([PROVIDER, *USERS], tamper=tamper)
    refused, good = relay_over(hostile_grid, beside).send_and_receive(messages_to(beside, "train"))
    assert said in reason_of(refused) and "\n" not in reason_of(refused)
    assert not good.has_error() and good.metadata.src_node_id == OTHER
    list(relay_over(InMemoryGrid([PROVIDER, *USERS]), alone).send_and_receive(messages_to(alone, "train", [OTHER])))
    one, other = (publication(which, 1) for which in (beside, alone))
    assert_identical(decode_tensors(one.array_records[ARRAYS]), decode_tensors(other.array_records[ARRAYS]))


def _copy(job: Job, name: str) -> Job:
    """A run of its own, with the same psi."""
    run = job.run.parent / name
    shutil.copytree(job.run / "provider", run / "provider")
    return replace(job, run=run)
