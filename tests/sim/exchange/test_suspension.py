"""Replies that ask, and the messages that go on from them."""

from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from roles.common.exchange import LossValues, TrainingImages
from sim.config.experiment import Experiment
from sim.exchange.job import Job, decode_job, encode_job
from sim.exchange.messages import ANSWER, ARRAYS, METRICS, decode_answer, decode_request, encode_answer, encode_request
from sim.exchange.suspension import REQUEST, Suspension, Ticket, decode_resume, resume_content, suspension_of
from tests.sim.exchange.wire import assert_same, one_line


def reply_with(content: RecordDict) -> Message:
    return Message(content, reply_to=Message(RecordDict(), 7, "train"))


def test_a_reply_that_asks_holds_the_request_and_the_ticket_to_go_on_with() -> None:
    message_type, content = encode_request(TrainingImages(4))
    ticket = Ticket("train", 9)
    suspension = suspension_of(reply_with(Suspension(message_type, ticket, content).encode()))
    assert suspension is not None
    assert (suspension.message_type, suspension.ticket) == ("query.images", ticket)
    assert_same(TrainingImages(4), decode_request(suspension.message_type, suspension.request))


def test_a_reply_that_asks_nothing_is_final() -> None:
    assert suspension_of(reply_with(RecordDict({METRICS: MetricRecord({"loss": 1.0})}))) is None


def test_an_answer_goes_back_with_job_and_ticket(experiment: Experiment) -> None:
    job = Job(experiment, Path("/runs/one"), server_round=1)
    ticket = Ticket("attack-user-0001", 9)
    content = resume_content(encode_job(job), ticket, encode_answer(LossValues(0.5, 3)))
    assert decode_job(content) == job
    found, answer = decode_resume(content)
    assert found == ticket
    assert list(answer) == [ANSWER, ARRAYS] or list(answer) == [ARRAYS, ANSWER]
    assert_same(LossValues(0.5, 3), decode_answer(answer))


@pytest.mark.parametrize(
    "record", [{}, {"session": "train", "ticket": "1"}, {"ticket": 1}, {"session": "../../psi", "ticket": 1}]
)
def test_a_resume_message_without_a_sessions_name_and_ticket_is_refused(record: dict[str, str | int]) -> None:
    content = RecordDict({REQUEST: ConfigRecord(record)}) if record else RecordDict()
    assert "must be a session's name and a number" in one_line(lambda: decode_resume(content))


@pytest.mark.parametrize("message_type", ["train.classifier", "query.psi"])
def test_a_node_can_ask_for_nothing_but_what_the_provider_answers(message_type: str) -> None:
    reply = reply_with(RecordDict({REQUEST: ConfigRecord({"type": message_type, "session": "train", "ticket": 1})}))
    assert f"asks for {message_type!r}" in one_line(lambda: suspension_of(reply))


def test_a_node_that_asks_without_a_ticket_is_refused() -> None:
    record = ConfigRecord({"type": "query.loss", "session": "train", "ticket": "1"})
    assert "session 'train' and ticket '1'" in one_line(
        lambda: suspension_of(reply_with(RecordDict({REQUEST: record})))
    )
