from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roles.common.data import ImageStore
from roles.common.exchange import drive
from roles.evaluator.nearest import hits
from roles.evaluator.results import Findings
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import STUDIES, USERS, Provider


def test_retrieval_finds_every_plain_image_and_every_protected_one_by_the_public_network(
    found: Callable[[str], Findings],
) -> None:
    at_1 = {(row["user"], row["by"]): row["at_1"] for row in found("retrieval")}
    assert all(at_1[user, "plain image"] == 1.0 for user in USERS)
    assert all(at_1[user, "h_theta of candidates"] == 1.0 for user in USERS)
    # The nearest candidate of a negative is no better than chance would have it, but for an inverse network.
    assert float(at_1[2, "protected image"]) < 0.5
    assert float(at_1[2, "ITN estimate"]) > float(at_1[2, "protected image"])


def test_candidates_cannot_be_put_through_a_protection_that_has_a_key(context: StudyContext, store: ImageStore) -> None:
    keyed, provider = replace(context, keyed=lambda user: True), Provider(store, [0.5, 0.5, -1.0])
    rows = drive(STUDIES["retrieval"].work("0", USERS, keyed), provider)
    assert [row["by"] for row in rows] == ["plain image", "protected image", "ITN estimate"]
    assert drive(STUDIES["utility"].work("0", USERS, keyed), provider) == []


@given(st.integers(1, 30), st.integers(1, 5))
def test_retrieval_by_a_constant_is_a_guess(count: int, k: int) -> None:
    found = hits(torch.zeros(count, count), torch.eye(count, dtype=torch.bool), k)
    assert found == pytest.approx(min(1.0, k / count))


def test_retrieval_counts_any_copy_of_an_image_as_right() -> None:
    distances = torch.tensor([[0.0, 0.0, 1.0]])
    assert hits(distances, torch.tensor([[True, True, False]]), 1) == 1.0
    assert hits(distances, torch.tensor([[True, False, False]]), 1) == 0.5
