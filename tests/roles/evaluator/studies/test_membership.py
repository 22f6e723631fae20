from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roles.common.data import ImageStore
from roles.common.exchange import Answer, Classify, Predictions, Request, TrainingImages, drive
from roles.common.labels import load_labels
from roles.evaluator.studies import Membership
from roles.evaluator.studies.membership import auc, found_at
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import USERS, Provider, distinct, without_labels

STUDY = Membership(kind="membership", images=40)
scores = st.lists(st.integers(0, 5), min_size=1, max_size=20).map(lambda values: torch.tensor(values).double())


@given(scores, scores)
def test_auc_is_the_share_of_pairs_in_which_the_member_has_more(members: torch.Tensor, others: torch.Tensor) -> None:
    pairs = members.unsqueeze(1) - others
    assert auc(members, others) == pytest.approx(float(((pairs > 0) + 0.5 * (pairs == 0)).double().mean()))


@given(scores, scores, st.floats(0, 1))
def test_as_many_are_found_among_members_as_among_others_if_both_have_the_same_scores(
    members: torch.Tensor, others: torch.Tensor, share: float
) -> None:
    assert found_at(members, members, share) == pytest.approx(share)
    assert 0 <= found_at(members, others, share) <= 1


def test_scores_without_ties_are_found_from_the_highest_other_on() -> None:
    assert found_at(torch.arange(100.0) + 0.5, torch.arange(100.0), 0.01) == 0.02
    assert found_at(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0]), 0.01) == 1


class Memorising(Provider):
    """A psi that knows the label of the first 50 train images, moved or not, and takes all others for a nought."""

    def __init__(self, store: ImageStore) -> None:
        super().__init__(store, [0.5, 0.5, 0.5])
        images = store.images("train")[:50]
        labels = load_labels(store.folder, "train")[:50]
        self._known = {image.sum().item(): int(label) for image, label in zip(images, labels, strict=True)}

    def __call__(self, request: Request) -> Answer:
        if isinstance(request, Classify):
            return Predictions(torch.tensor([self._known.get(image.sum().item(), 0) for image in request.images]))
        return super().__call__(request)


def test_what_psi_remembers_of_plain_images_is_the_control_and_h_theta_adds_nothing(
    short: StudyContext, store: ImageStore
) -> None:
    rows = drive(STUDY.work("0", USERS, short), Memorising(store))
    found = {(row["others"], row["score"]): row for row in rows}
    assert set(found) == {(o, s) for o in ("test", "train") for s in ("plain", "protected", "change", "inverse")}
    for others in ("test", "train"):
        assert float(found[others, "plain"]["auc"]) > 0.8
        # Darkened images are none that it remembers.
        assert abs(float(found[others, "protected"]["auc"]) - 0.5) < 0.15
        assert abs(float(found[others, "change"]["auc"]) - 0.5) < 0.2


def test_where_all_training_images_are_a_users_it_is_told_from_test_images_alone(
    short: StudyContext, store: ImageStore
) -> None:
    provider = Provider(store, [0.5] * 3)

    def answer(request: Request) -> Answer:
        found = provider(request)
        if isinstance(request, TrainingImages):
            return replace(found, train=torch.arange(store.counts["train"]))  # type: ignore[type-var]
        return found

    rows = drive(STUDY.work("0", USERS, short), answer)
    assert {row["others"] for row in rows} == {"test"}


def test_the_inverse_network_has_seen_neither_members_nor_those_they_are_told_from(
    short: StudyContext, store: ImageStore, trainings: list
) -> None:
    drive(STUDY.work("0", USERS, short), Provider(store, [0.5] * 3))
    (training,) = trainings
    seen = distinct(training.plain) | distinct(training.validation)
    assert seen == distinct(store.images("validation"))
    assert not distinct(training.plain) & distinct(training.validation)


def test_the_study_of_membership_needs_labels(context: StudyContext, store: ImageStore) -> None:
    with pytest.raises(ValueError, match=r"^the study of membership needs labels: set attack.labels$"):
        drive(STUDY.work("0", USERS, without_labels(context)), Provider(store, [0.5] * 3))
