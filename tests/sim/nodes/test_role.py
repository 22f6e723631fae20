from dataclasses import replace

import pytest
from flwr.app import Context, RecordDict

from sim.client_app import app
from sim.exchange.job import Job, encode_job
from sim.exchange.relay import Relay
from tests.sim.in_memory_grid import InMemoryGrid
from tests.sim.relaying import messages_to


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
