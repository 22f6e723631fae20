"""What a hostile provider reconstructs, measured."""

from dataclasses import replace

import pytest
import torch

from roles.common.data import ImageStore
from roles.common.exchange import Answer, ExchangeError, Reconstruct, Reconstructions, Request, drive
from roles.common.weights import State
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import STUDIES, USERS, Provider

STUDY = STUDIES["hijack"]


def test_a_user_is_measured_by_what_the_provider_answers_and_has_pictures(
    context: StudyContext, store: ImageStore
) -> None:
    rows = drive(STUDY.work("0", USERS, context), Provider(store, [0.5, 0.5, -1.0]))
    assert rows[0]["ssim"] > 0.99  # it doubles what the user has halved
    assert rows[0]["ssim"] > rows[0]["protected_ssim"]
    assert list(context.pictures) == ["plain", "protected", "estimates"]
    assert all(images.shape == (2, 3, 16, 16) and images.dtype == torch.uint8 for images in context.pictures.values())
    assert torch.equal(context.pictures["plain"], store.images("test")[:2])


def test_an_honestly_treated_user_has_a_row_without_measures_and_the_provider_is_not_asked(
    context: StudyContext, store: ImageStore
) -> None:
    provider, honest = Provider(store, [0.5, 0.5, -1.0]), replace(context, hijacked=lambda user: "honest")
    assert drive(STUDY.work("1", USERS, honest), provider) == [{"user": 1, "hijacked": "honest"}]
    assert provider.requests == []
    assert STUDY.conclusion([{"user": 1, "hijacked": "honest"}]) == "No user was hijacked."


def test_reconstructions_of_another_shape_are_refused(context: StudyContext, store: ImageStore) -> None:
    provider = Provider(store, [0.5, 0.5, -1.0])

    def careless(request: Request) -> Answer:
        answer = provider(request)
        return Reconstructions(answer.images[:-1]) if isinstance(answer, Reconstructions) else answer

    with pytest.raises(ExchangeError, match=r"\(19, 3, 16, 16\), expected torch.uint8 \(20, 3, 16, 16\)"):
        drive(STUDY.work("0", USERS, replace(context, state=State())), careless)


def test_what_was_reconstructed_before_an_interruption_is_not_asked_for_again(
    context: StudyContext, store: ImageStore
) -> None:
    provider = Provider(store, [0.5, 0.5, -1.0])
    first = drive(STUDY.work("0", USERS, context), provider)
    assert drive(STUDY.work("0", USERS, context), provider) == first
    assert sum(isinstance(request, Reconstruct) for request in provider.requests) == 1
