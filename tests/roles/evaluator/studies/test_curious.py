from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from roles.common.augment import augment
from roles.common.data import ImageStore
from roles.common.exchange import Answer, Memories, Recall, Request, drive
from roles.evaluator.results import Row
from roles.evaluator.studies import Curious
from roles.evaluator.studies.curious import aligned
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import STUDIES, USERS, Provider, Training, distinct, findings, protection


def remembering(context: StudyContext, store: ImageStore, ids: Tensor) -> Row:
    """Return the row of a curious provider that remembers x_hat of these images, unmoved."""
    provider = Provider(store, [0.5, 0.5, -1.0])

    def answer(request: Request) -> Answer:
        if not isinstance(request, Recall):
            return provider(request)
        plain = store.images("train")[ids]
        return Memories(protection(0, {"factor": torch.tensor(0.5)})(plain, "train", ids), ids)

    study = Curious(kind="curious", images=20, shift=0)
    return drive(study.work("0", USERS, replace(context, state={})), answer)[0]


def test_a_provider_that_was_never_asked_has_nothing_to_attack_with(context: StudyContext, store: ImageStore) -> None:
    provider = Provider(store, [0.5, 0.5, -1.0])

    def forgetful(request: Request) -> Answer:
        empty = Memories(torch.empty(0, 3, 16, 16, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
        return empty if isinstance(request, Recall) else provider(request)

    study = STUDIES["curious"]
    rows = [row for part in findings(study, context, forgetful).values() for row in part]
    assert rows == [{"user": user, "pairs": 0} for user in USERS]
    assert "seen no pair" in study.conclusion(rows)


@pytest.mark.parametrize(("distinct_ids", "held_out"), [(40, 4), (18, 2), (10, 1), (2, 1)])
def test_a_curious_provider_selects_by_images_that_it_has_in_no_pair_that_it_trains_on(
    short: StudyContext, store: ImageStore, trainings: list[Training], distinct_ids: int, held_out: int
) -> None:
    remembering(short, store, torch.arange(80) % distinct_ids)
    assert len(trainings) == 1
    training, selected_by = trainings[0], distinct(trainings[0].validation)
    assert len(training.plain) + len(training.validation) == 80
    assert len(selected_by) == held_out
    assert not selected_by & distinct(training.plain)


@pytest.mark.parametrize(("pairs", "attacked"), [(17, False), (18, True)])
def test_of_fewer_than_eighteen_pairs_a_curious_provider_makes_no_attack(
    short: StudyContext, store: ImageStore, pairs: int, attacked: bool
) -> None:
    row = remembering(short, store, torch.arange(pairs))
    assert row["pairs"] == pairs
    assert ("psnr" in row) is attacked


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.integers(0, 3), flip=st.booleans())
def test_a_curious_provider_finds_how_images_were_moved_from_their_edges(seed: int, shift: int, flip: bool) -> None:
    stream = torch.Generator().manual_seed(seed)
    plain = torch.randint(256, (6, 3, 16, 16), generator=stream, dtype=torch.uint8)
    moved = augment(plain, shift, stream, flip=flip)
    protected = 255 - moved // 2  # another brightness and contrast, inverted
    assert torch.equal(aligned(protected, plain, 3, flip=True), moved)
    if not flip:
        assert torch.equal(aligned(protected, plain, shift, flip=False), moved)


def test_what_training_has_shown_serves_a_provider_that_aligns_it_better_than_one_that_does_not(
    context: StudyContext, store: ImageStore
) -> None:
    provider = Provider(store, [0.5, 0.5, -1.0])

    def watched(request: Request) -> Answer:
        if not isinstance(request, Recall):
            return provider(request)
        ids = torch.arange(200)
        moved = augment(store.images("train")[ids], 4, torch.Generator().manual_seed(0), flip=False)
        return Memories(protection(0, {"factor": torch.tensor(0.5)})(moved, "train", ids), ids)

    def row(shift: int) -> Row:
        study = Curious(kind="curious", images=20, shift=shift)
        return drive(study.work("0", USERS, replace(context, state={})), watched)[0]

    moved, unmoved = row(4), row(0)
    assert (moved["aligned"], unmoved["aligned"]) == (1, 0)
    assert float(moved["gain_ssim"]) > float(unmoved["gain_ssim"]) + 0.05
