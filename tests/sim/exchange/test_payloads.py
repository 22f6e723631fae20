"""Curves and the results of attacks."""

import math

import pytest
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.evaluator.results import AttackResult, Measured, Seen
from sim.exchange.messages import ARRAYS, METRICS
from sim.exchange.payloads import (
    decode_attack,
    decode_curve,
    decode_subject,
    encode_attack,
    encode_curve,
    encode_subject,
)
from tests.sim.exchange.wire import FINITE, assert_same, one_line

ROWS = st.lists(st.dictionaries(st.sampled_from(["epoch", "loss", "accuracy"]), FINITE), max_size=4)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_a_curve_arrives_as_it_was_sent_whatever_its_rows_lack(rows: list[dict[str, float]]) -> None:
    complete = [{"step": float(number), **row} for number, row in enumerate(rows)]
    assert decode_curve(encode_curve(complete)) == complete


def test_a_value_that_is_not_a_number_is_left_out_of_its_row_and_of_no_other() -> None:
    rows = [{"epoch": 1.0, "loss": math.nan}, {"epoch": 2.0, "loss": 0.5}, {"loss": math.nan}]
    assert decode_curve(encode_curve(rows)) == [{"epoch": 1.0}, {"epoch": 2.0, "loss": 0.5}, {}]


def test_an_empty_curve_is_an_empty_curve() -> None:
    assert decode_curve(encode_curve([])) == []


def result() -> AttackResult:
    def measured(value: float, lpips: bool, accuracy: float | None) -> Measured:
        each = torch.full((3,), value), torch.full((3,), -value), torch.ones(3) if lpips else None
        return Measured(*each, accuracy, accuracy and accuracy / 2, value / 8)

    return AttackResult(
        protected=measured(1, lpips=True, accuracy=0.25),
        seen=Seen(torch.rand(3), torch.rand(3), 1, -2),
        estimates={"paper": measured(2, lpips=False, accuracy=0.0), "strong": measured(3, lpips=True, accuracy=1.0)},
        baselines={"mean_image": measured(4, lpips=False, accuracy=None)},
        curves={"paper": [{"epoch": 1.0, "train_loss": 0.5}], "strong": []},
        pictures={name: torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2) for name in ("plain", "protected")},
    )


def test_the_result_of_an_attack_arrives_as_it_was_sent() -> None:
    sent = result()
    got = decode_attack(encode_attack(sent))
    for mine, theirs in (
        (sent.protected, got.protected),
        *((sent.estimates[name], got.estimates[name]) for name in ("paper", "strong")),
        (sent.baselines["mean_image"], got.baselines["mean_image"]),
    ):
        assert_same(mine, theirs)
    assert got.seen is not None and sent.seen is not None
    assert torch.equal(got.seen.ssim, sent.seen.ssim) and torch.equal(got.seen.shown, sent.seen.shown)
    assert (got.seen.down, got.seen.right) == (1, -2)
    assert list(got.estimates) == ["paper", "strong"]
    assert list(got.baselines) == ["mean_image"]
    assert got.curves == sent.curves
    assert torch.equal(got.pictures["plain"], sent.pictures["plain"])


def test_the_result_of_an_attack_of_an_earlier_version_has_no_share_that_was_not_measured() -> None:
    content = encode_attack(result())
    numbers = content.metric_records[METRICS]
    for name in [name for name in numbers if name.endswith(("/recognised", "/retrieved"))]:
        del numbers[name]
    got = decode_attack(content)
    for measured in (got.protected, *got.estimates.values(), *got.baselines.values()):
        assert measured.recognised is None and measured.retrieved is None
    assert got.estimates["strong"].accuracy == 1.0


def test_a_curve_with_ragged_columns_is_refused() -> None:
    for record in (MetricRecord({"a": [1.0, 2.0], "b": [1.0]}), MetricRecord({"a": [1.0], "b": 1.0})):
        assert "lists of one length: a, b" in one_line(lambda record=record: decode_curve(record))


@pytest.mark.parametrize("name", ["protected/psnr", "itn/paper/ssim"])
def test_a_reply_of_an_evaluator_that_lacks_a_measure_is_refused(name: str) -> None:
    content = encode_attack(result())
    del content.array_records[ARRAYS][name]
    assert one_line(lambda: decode_attack(content)) == f"the evaluator's reply lacks {name}"


def test_a_reply_without_measures_is_refused() -> None:
    assert one_line(lambda: decode_attack(RecordDict())) == "the evaluator's reply carries no measures"


@pytest.mark.parametrize("known", [[], ["paper", "fr_attack"]])
def test_an_evaluator_is_told_whom_to_attack_and_which_attacks_are_known(known: list[str]) -> None:
    assert decode_subject(RecordDict({"subject": encode_subject("user-0003", known)})) == ("user-0003", known)


@pytest.mark.parametrize("record", [{}, {"name": 3}, {"name": "user-0003", "known": "paper"}])
def test_an_evaluator_that_is_not_told_says_so(record: dict[str, str | int]) -> None:
    text = one_line(lambda: decode_subject(RecordDict({"subject": ConfigRecord(record)})))
    assert text == "an attack needs to be told its subject, and which attacks on it are known"
