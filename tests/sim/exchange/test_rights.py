"""Who may ask what of the provider."""

import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from roles.common.config.provider import LimitsConfig
from roles.common.exchange import PSI, guest, other_classifier
from sim.exchange.messages import ANSWER, REQUEST_TYPES, MessageError
from sim.exchange.rights import Gate, objection

OWN = ("query.images", "query.loss_gradient", "query.loss", "query.fit", "query.validate", "query.classify")


@pytest.mark.parametrize("kind", OWN)
def test_a_user_asks_for_itself(kind: str) -> None:
    assert objection("user", 3, kind, 3) is None


@given(st.sampled_from(REQUEST_TYPES), st.integers(-5, 20))
def test_a_user_asks_in_nobody_elses_name_but_psis_service(kind: str, named: int) -> None:
    allowed = kind in OWN and (named == 3 or (kind == "query.classify" and named == PSI))
    assert (objection("user", 3, kind, named) is None) == allowed


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("query.images", 0),
        ("query.classify", PSI),
        ("query.classify", other_classifier(0)),
        ("query.classify", 2),
        ("query.recall", 1),
        ("query.reconstruct", 1),
        ("query.loss_gradient", guest(1)),
    ],
)
def test_an_evaluator_asks_what_attacks_need(kind: str, named: int) -> None:
    assert objection("evaluator", 0, kind, named) is None


@pytest.mark.parametrize(
    ("kind", "named"), [("query.loss_gradient", 0), ("query.loss", 0), ("query.fit", 0), ("query.validate", 0)]
)
def test_an_evaluator_trains_for_no_user(kind: str, named: int) -> None:
    assert "evaluator 0" in str(objection("evaluator", 0, kind, named))


def request(user: object = 0) -> RecordDict:
    return RecordDict({ANSWER: ConfigRecord({"user": user} if user is not None else {})})  # type: ignore[dict-item]


@pytest.mark.parametrize("user", [None, "0", 0.0, [0]])
def test_a_request_in_no_users_name_is_refused(user: object) -> None:
    with pytest.raises(MessageError, match="names user"):
        Gate({7: ("user", 0)}, LimitsConfig()).admit(7, "query.images", request(user))


def test_whoever_is_not_known_asks_nothing() -> None:
    with pytest.raises(MessageError, match="neither user nor evaluator of this run"):
        Gate({7: ("user", 0)}, LimitsConfig()).admit(8, "query.images", request())


def test_who_has_asked_too_often_is_told_and_others_go_on() -> None:
    gate = Gate({7: ("user", 0), 8: ("user", 1)}, LimitsConfig(requests=2))
    for _ in range(2):
        gate.admit(7, "query.images", request())
    with pytest.raises(MessageError, match=r"user 0 has asked 2 times \(provider.limits.requests\)"):
        gate.admit(7, "query.images", request())
    gate.admit(8, "query.images", request(1))
