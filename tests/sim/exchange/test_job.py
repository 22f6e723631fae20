from pathlib import Path

import pytest
from flwr.app import ConfigRecord, RecordDict

from sim.config.experiment import Experiment
from sim.exchange.job import Job, decode_job, encode_job
from sim.exchange.messages import JOB
from tests.sim.exchange.wire import one_line


def test_a_job_arrives_as_it_was_sent(experiment: Experiment) -> None:
    job = Job(experiment, Path("/runs/one two"), first_round=2, server_round=3, rounds=4)
    assert decode_job(RecordDict({JOB: encode_job(job)})) == job
    assert job.round == 5


def test_a_job_of_which_a_strategy_knows_nothing_begins_at_round_zero(experiment: Experiment) -> None:
    record = encode_job(Job(experiment, Path("/runs/one")))
    for key in ("first-round", "server-round", "rounds"):
        del record[key]
    assert decode_job(RecordDict({JOB: record})) == Job(experiment, Path("/runs/one"))


def test_a_message_without_a_job_is_refused() -> None:
    for content in (RecordDict(), RecordDict({JOB: ConfigRecord({"run": "/runs/one"})})):
        assert "carries no job" in one_line(lambda content=content: decode_job(content))


@pytest.mark.parametrize(
    "change",
    [
        {"experiment": "{"},
        {"experiment": '{"name": "a/b"}'},
        {"first-round": "one"},
        {"server-round": [1]},
    ],
)
def test_a_job_that_cannot_be_read_is_refused(experiment: Experiment, change: dict[str, str | list[int]]) -> None:
    record = encode_job(Job(experiment, Path("/runs/one")))
    for key, value in change.items():
        record[key] = value
    assert "the job of the message cannot be read" in one_line(lambda: decode_job(RecordDict({JOB: record})))
