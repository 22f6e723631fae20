"""What a hostile user gets of psi and of labels, at a provider whose psi is known, on whatever terms."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from roles.common.augment import crop
from roles.common.config.provider import DefenceConfig
from roles.common.data import ImageStore
from roles.common.exchange import Answer, Classify, Gradient, LossGradient, Predictions, Request, drive
from roles.common.images import to_unit
from roles.common.labels import load_labels
from roles.evaluator.hostile import HostileUser
from roles.evaluator.results import Findings
from roles.evaluator.studies import Extraction, LabelInference
from roles.evaluator.studies.labels import renamed
from roles.evaluator.study import Study, StudyContext
from roles.provider.defence import Defence
from tests.roles.evaluator.studies.known_users import USERS, Provider, gradient_of, without_labels


class Service(Provider):
    """A provider that does classify, and keeps to its terms."""

    def __init__(self, store: ImageStore, folder: Path, terms: DefenceConfig) -> None:
        super().__init__(store, [0.5, 0.5, 0.5])
        self._defence = Defence(terms, 0, folder)

    def __call__(self, request: Request) -> Answer:
        if isinstance(request, Classify):
            return Predictions(self.psi(to_unit(request.images)).argmax(1))
        if not isinstance(request, LossGradient):
            return super().__call__(request)
        self.requests.append(request)
        self._defence.admit(request)
        labels = load_labels(self._store.folder, "train")
        answer = gradient_of(self.psi, request, labels, self._defence.config.label_smoothing)
        told = len(request.ids) if self._defence.config.withhold_losses else answer.correct
        return Gradient(self._defence.applied(answer.gradient, request), answer.loss, told)


@pytest.fixture
def rows_of(context: StudyContext, store: ImageStore, tmp_path: Path) -> Any:
    """Return a function of a study and the provider's terms to the rows of the study's first part."""

    def found(study: Study, **terms: Any) -> Findings:
        config = DefenceConfig(**terms)
        service = Service(store, tmp_path, config)
        return drive(study.work("0", USERS, replace(context, state={}, terms=config)), service)

    return found


def of(rows: Findings, **which: Any) -> Findings:
    return [row for row in rows if all(row[key] == value for key, value in which.items())]


LABELS = LabelInference(kind="labels", images=50, batches=(1, 16))


def test_every_label_is_told_by_one_image_under_all_ids_in_batches_of_any_size(rows_of: Any) -> None:
    rows = of(rows_of(LABELS), method="probe")
    assert [row["batch"] for row in rows] == [1, 16]
    assert all(row["accuracy"] == row["named"] == 1 for row in rows)
    assert all(row["service"] < 1 for row in rows)


def test_an_honest_users_answers_tell_more_labels_than_the_service_does(rows_of: Any) -> None:
    for row in of(rows_of(LABELS), method="passive"):
        assert row["service"] < row["named"] == row["accuracy"] == 1


@pytest.mark.parametrize(
    "terms",
    [{"clip": 0.01, "noise": 1.0}, {"sign": True}, {"keep": 0.05}, {"label_smoothing": 0.3}, {"least_batch": 20}],
    ids=str,
)
def test_gradients_that_are_clipped_noisy_coarse_or_of_smoothed_labels_tell_labels_all_the_same(
    rows_of: Any, terms: dict[str, float]
) -> None:
    assert all(row["named"] > 0.9 for row in of(rows_of(LABELS, **terms), method="probe"))


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([0, 0, 1, 1, 2, 2], [2, 2, 0, 0, 1, 1], [2, 2, 0, 0, 1, 1]),
        ([0, 0, 0, 1, 1, 2, 2], [5, 5, 3, 0, 0, 3, 3], [5, 5, 5, 0, 0, 3, 3]),
        ([0, 0, 0, 1, 1], [7, 7, 8, 7, 7], [8, 8, 8, 7, 7]),  # though most of the first are called 7 as well
    ],
)
def test_clusters_get_names_of_their_own_that_suit_most_of_all_images(
    labels: list[int], names: list[int], expected: list[int]
) -> None:
    assert renamed(torch.tensor(labels), torch.tensor(names)).tolist() == expected


def test_noise_that_drowns_gradients_leaves_what_the_service_tells(rows_of: Any) -> None:
    rows = rows_of(LABELS, clip=1e-4, noise=100.0, withhold_losses=True)
    assert all(row["named"] < 0.5 for row in of(rows, method="probe"))
    assert all(row["named"] <= row["service"] for row in of(rows, method="passive"))


def test_beyond_a_budget_labels_are_what_the_service_says_and_nobody_is_refused(rows_of: Any) -> None:
    rows = rows_of(LABELS, most_images=20)
    assert [row["asked"] for row in rows] == [20, 20, 20, 20]
    assert all(row["service"] <= row["named"] <= 1 for row in rows)
    assert all(
        row["asked"] == 0 and row["named"] == row["service"] for row in rows_of(LABELS, least_batch=51, most_images=50)
    )


def test_the_study_of_labels_needs_labels(context: StudyContext, store: ImageStore) -> None:
    with pytest.raises(ValueError, match=r"^the study of labels needs them to compare with: set attack.labels$"):
        drive(LABELS.work("0", USERS, without_labels(context)), Provider(store, [0.5] * 3))


@pytest.mark.parametrize(
    ("terms", "batch", "affordable"),
    [
        ({}, 4, 10),
        ({"most_images": 7}, 1, 7),
        ({"most_images": 7}, 4, 7),
        ({"most_images": 10, "least_batch": 4}, 1, 8),
        ({"most_images": 12, "least_batch": 4}, 1, 10),
        ({"most_images": 3, "least_batch": 4}, 1, 0),
    ],
)
def test_a_hostile_user_asks_about_as_many_images_as_a_provider_lets_it(
    context: StudyContext, store: ImageStore, tmp_path: Path, terms: dict[str, int], batch: int, affordable: int
) -> None:
    config = DefenceConfig(**terms)
    thief = HostileUser(replace(context, terms=config), "thief")
    assert thief.affordable(10, batch) == affordable
    images, ids = store.images("train")[:affordable], torch.arange(affordable)
    if affordable:
        gradients, correct = drive(thief.gradients("own", images, ids, batch), Service(store, tmp_path, config))
        assert (len(gradients), len(correct)) == (affordable, affordable)


def test_gradients_are_of_each_images_own_loss_whatever_the_request(
    context: StudyContext, store: ImageStore, tmp_path: Path
) -> None:
    images, ids = store.images("train")[:10], torch.arange(10)
    found = []
    for batch, least in ((1, 1), (4, 4), (10, 1)):
        config = DefenceConfig(least_batch=least)
        thief = HostileUser(replace(context, state={}, terms=config), "thief")
        found.append(drive(thief.gradients("own", images, ids, batch), Service(store, tmp_path, config))[0])
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert torch.allclose(found[0], found[2], atol=1e-5)


EXTRACTION = Extraction(kind="extraction", queries=(10, 40, 900), width=8, steps=1, batch_size=4, images=50)


def test_a_budget_ends_what_gradients_can_be_had_and_not_the_service(rows_of: Any) -> None:
    rows = rows_of(EXTRACTION, most_images=30)
    assert [row["queries"] for row in of(rows, channel="service")] == [10, 40, 900]
    assert [row["queries"] for row in of(rows, channel="gradients")] == [10, 30]
    none = rows_of(EXTRACTION, most_images=30, least_batch=60)
    assert {row["channel"] for row in none} == {"service"}


def test_queries_are_each_image_once_and_then_the_same_moved_under_their_ids(
    context: StudyContext, store: ImageStore, tmp_path: Path
) -> None:
    service = Service(store, tmp_path, DefenceConfig())
    drive(EXTRACTION.model_copy(update={"queries": (120,)}).work("0", USERS, context), service)
    asked = [request for request in service.requests if isinstance(request, LossGradient)]
    sent, ids = (torch.cat([getattr(request, of) for request in asked]) for of in ("protected", "ids"))
    plain = to_unit(store.images("train"))[ids]
    # As Provider has it, 50 images are a user's X'.
    assert sorted(ids[:50].tolist()) == list(range(50))
    assert torch.equal(ids[50:], torch.cat([ids[:50], ids[:20]]))
    assert torch.equal(sent[:50], plain[:50])
    # By an eighth of 16 pixels at most: one of 25 moves.
    moves = [torch.tensor([[down], [right]]).expand(2, 70) for down, right in product(range(5), repeat=2)]
    fits = torch.stack([(crop(plain[50:], 2, move) == sent[50:]).all(dim=(1, 2, 3)) for move in moves])
    assert fits.any(0).all()
    assert len(fits.nonzero()[:, 0].unique()) > 15


def test_each_answer_is_an_entry_of_its_own_and_asked_for_once(
    context: StudyContext, store: ImageStore, tmp_path: Path
) -> None:
    service, thief = Service(store, tmp_path, DefenceConfig()), HostileUser(context, "thief")
    images, ids = store.images("train")[:10], torch.arange(10)
    gradients, correct = drive(thief.gradients("own", images, ids, 4), service)
    kept = [len(context.state[f"thief/own/gradients/{done}"]) for done in (0, 4, 8)]
    assert kept == [4, 4, 2]
    del context.state["thief/own/gradients/8"]
    again = drive(thief.gradients("own", images, ids, 4), service)
    assert torch.equal(again[0], gradients) and torch.equal(again[1], correct)
    assert [len(request.ids) for request in service.requests if isinstance(request, LossGradient)] == [4, 4, 2, 2]


def test_without_labels_a_student_has_an_agreement_and_no_accuracy(
    context: StudyContext, store: ImageStore, tmp_path: Path
) -> None:
    rows = drive(EXTRACTION.work("0", USERS, without_labels(context)), Service(store, tmp_path, DefenceConfig()))
    assert all("accuracy" not in row and "agreement" in row for row in rows)
