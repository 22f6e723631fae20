"""Studies against users whose protections are known functions, and a provider that is a function call away."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from roles.common.augment import augment
from roles.common.config.attack import AttackConfig, ItnConfig
from roles.common.config.data import Split
from roles.common.data import ImageStore
from roles.common.exchange import (
    Answer,
    Classify,
    ImageIds,
    Memories,
    Predictions,
    Published,
    Recall,
    Request,
    Theta,
    TrainingImages,
    drive,
    other_classifier,
)
from roles.common.images import to_bitmap, to_unit
from roles.common.labels import load_labels
from roles.common.protection import Protect
from roles.common.weights import State
from roles.evaluator import study as module
from roles.evaluator.attacker import Attacker
from roles.evaluator.baselines import mean_image
from roles.evaluator.itn import Pairs, train_itn
from roles.evaluator.measures import psnr, ssim
from roles.evaluator.results import Findings, Row
from roles.evaluator.studies import Collusion, Curious, Inversion, Retrieval, Transfer, Utility
from roles.evaluator.studies.curious import aligned
from roles.evaluator.studies.retrieval import hits
from roles.evaluator.study import Study, StudyContext

USERS = [0, 1, 2]


class Scaled(nn.Module):
    """An h_theta of one number: it darkens, or inverts where the number is negative."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factor if self.factor > 0 else 1 + images * self.factor


def factor_of(theta: State) -> float:
    return float(theta["factor"])


def protection(user: int, theta: State) -> Protect:
    def protect(images: Tensor, split: Split, positions: Tensor) -> Tensor:
        return to_bitmap(Scaled(factor_of(theta))(to_unit(images)))

    return protect


class Provider:
    """Answers as a provider and a ServerApp would; psi looks at the test labels, in the order of the images."""

    def __init__(self, store: ImageStore, factors: list[float]) -> None:
        self._store, self._factors = store, factors
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Answer:
        self.requests.append(request)
        match request:
            case Published():
                return Theta({"factor": torch.tensor(self._factors[request.user])})
            case Classify():
                labels = load_labels(self._store.folder, "test")[: len(request.images)]
                # The second of the others takes every image for a nought.
                return Predictions(torch.zeros_like(labels) if request.user == other_classifier(1) else labels)
            case TrainingImages():
                return ImageIds(torch.arange(50) + 50 * request.user, torch.arange(10))
            case Recall():
                ids = torch.arange(40)
                plain = self._store.images("train")[ids]
                theta = {"factor": torch.tensor(self._factors[request.user])}
                return Memories(protection(request.user, theta)(plain, "train", ids), ids)
            case _:
                raise AssertionError(request)


@pytest.fixture
def context(small_itn: ItnConfig, attacker_with: Callable[[AttackConfig], Attacker]) -> StudyContext:
    training = small_itn.training.model_copy(update={"epochs": 8})
    attack = AttackConfig(
        itns=(small_itn.model_copy(update={"training": training}),), pairs=200, test_images=20, pictures=2, flip=False
    )
    return StudyContext(
        attacker_with(attack),
        protection=protection,
        network=lambda user, theta: Scaled(factor_of(theta)),
        others=["resnet20", "resnet20"],
        keyed=lambda user: False,
        state={},
    )


@dataclass
class Training:
    """The plain images that an inverse network was trained on, and those that its epoch was selected by."""

    plain: Tensor
    validation: Tensor


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    done: list[Training] = []

    def noted(
        config: ItnConfig, pairs: Pairs, *arguments: Any, **options: Any
    ) -> tuple[nn.Module, list[dict[str, float]]]:
        done.append(Training(pairs.plain, pairs.validation_plain))
        return train_itn(config, pairs, *arguments, **options)

    monkeypatch.setattr(module, "train_itn", noted)
    return done


def distinct(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


STUDIES: dict[str, Study] = {
    "transfer": Transfer(kind="transfer", images=20),
    "collusion": Collusion(kind="collusion", coalitions=(1, 2), known_pairs=(0, 5), victims=1, images=20),
    "retrieval": Retrieval(kind="retrieval", candidates=20),
    "inversion": Inversion(kind="inversion", images=5, steps=30),
    "curious": Curious(kind="curious", images=20),
    "utility": Utility(kind="utility", images=20),
}


def findings(study: Study, context: StudyContext, provider: Callable[[Request], Answer]) -> dict[str, Findings]:
    return {
        part: drive(study.work(part, USERS, replace(context, state={})), provider)
        for part in study.parts(USERS, context.attacker.seed)
    }


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


@pytest.fixture(scope="module")
def known() -> dict[str, Findings]:
    return {}


@pytest.fixture
def found(context: StudyContext, store: ImageStore, known: dict[str, Findings]) -> Callable[[str], Findings]:
    """Return a function of a study to all its rows about two users of one theta and one that inverts; to be read."""

    def rows_of(kind: str) -> Findings:
        if kind not in known:
            parts = findings(STUDIES[kind], context, Provider(store, [0.5, 0.5, -1.0]))
            known[kind] = [row for rows in parts.values() for row in rows]
        return known[kind]

    return rows_of


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_every_row_has_the_columns_that_the_study_describes_and_they_amount_to_a_sentence(
    study: Study, found: Callable[[str], Findings]
) -> None:
    rows = found(study.kind)
    assert rows
    assert all(list(row) == list(study.columns) for row in rows)
    assert study.conclusion(rows)
    figure = study.figure
    assert {figure.x, figure.value} <= set(study.columns)


SENTENCES: dict[str, tuple[list[Row], str]] = {
    "transfer": (
        [
            {"attacker": a, "victim": v, "gain_ssim": gain}
            for a, v, gain in ((0, 0, 0.3), (0, 1, 0.05), (1, 0, 0.01), (1, 1, 0.2), (2, 0, 0.04), (2, 2, 0.4))
        ],
        "One ITN gains 0.05 SSIM or more over the better trivial guess for 1 of 3 users (median over ITNs); 0.300 for "
        "the user that it was trained against; 0.040 for others (medians).",
    ),
    "collusion": (
        [
            {"coalition": size, "known_pairs": pairs, "gain_ssim": gain}
            for size, pairs, gain in ((1, 0, -0.1), (1, 0, 0.1), (1, 10, 0.4), (2, 0, 0.2), (2, 10, 0.6))
        ],
        "Without h_theta and with 0 known pairs, coalitions gain this much SSIM over the better trivial guess (medians)"
        ": +0.000 for 1, +0.200 for 2. The most, +0.600, was had by 2 users with 10 known pairs.",
    ),
    "retrieval": (
        [
            {"by": by, "at_1": share, "candidates": 50}
            for by, share in (("protected image", 0.1), ("ITN estimate", 0.5), ("protected image", 0.3))
        ],
        "Of 50 candidates, the nearest is the right one for (medians over users) 20% by the protected image, 50% by "
        "the ITN estimate.",
    ),
    "inversion": (
        [{"ssim": ssim, "gain_ssim": ssim - 0.2} for ssim in (0.1, 0.5, 0.6)],
        "Descent through h_theta reaches SSIM 0.50 in the median over 3 users, +0.30 over the better trivial guess, "
        "without a single pair.",
    ),
    "curious": (
        [{"user": 0, "pairs": 0}, {"user": 1, "gain_ssim": 0.1}, {"user": 2, "gain_ssim": 0.3}],
        "With pairs from training alone, the provider gains 0.20 SSIM over the better trivial guess in the median over "
        "2 users.",
    ),
    "utility": (
        [
            {"classifier": name, "accuracy": accuracy, "plain_accuracy": 0.8}
            for name, accuracy in (("psi", 0.78), ("other 0 (resnet20)", 0.3))
        ],
        "Protected images are classified, against plain ones, with (medians over users) -2.0 points at psi, -50.0 "
        "points at other 0 (resnet20).",
    ),
}


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_study_says_in_a_sentence_what_it_found(study: Study) -> None:
    rows, sentence = SENTENCES[study.kind]
    assert study.conclusion(rows) == sentence


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_part_that_is_started_anew_at_every_request_finds_the_same(
    study: Study, context: StudyContext, store: ImageStore
) -> None:
    provider = Provider(store, [0.5, 0.8, -1.0])
    part = study.parts(USERS, context.attacker.seed)[0]
    undisturbed = drive(study.work(part, USERS, replace(context, state={})), provider)
    asked, provider.requests = [type(request) for request in provider.requests], []

    state: State = {}
    work = study.work(part, USERS, replace(context, state=state))
    request = next(work)
    while True:
        # As after a message: this generator is gone, and its state has been to disk and back.
        state = {name: value.clone() for name, value in state.items()}
        work = study.work(part, USERS, replace(context, state=state))
        assert type(next(work)) is type(request)
        try:
            request = work.send(provider(request))
        except StopIteration as end:
            again: Findings = end.value
            break
    assert again == undisturbed
    assert [type(request) for request in provider.requests] == asked


def test_what_counts_as_a_gain_is_beyond_the_better_of_class_mean_and_mean_image_in_each_measure(
    context: StudyContext, store: ImageStore
) -> None:
    plain = store.images("test")[:20]
    mean = to_bitmap(mean_image(store.images("train")[context.attacker.ids("train", 200)])).expand_as(plain)
    right = load_labels(store.folder, "test")[:20]
    for labels, guess in ((right, "class_mean"), ((right + 1) % 10, "mean_image")):
        row = {name: float(value) for name, value in context.measured(mean, 255 - plain, plain, labels).items()}
        assert row["mean_image_psnr"] == psnr(mean, plain).median().item()
        assert row["mean_image_ssim"] == ssim(mean, plain).median().item()
        assert row["gain_psnr"] == row["psnr"] - row[f"{guess}_psnr"]
        assert row["gain_ssim"] == row["ssim"] - max(row["class_mean_ssim"], row["mean_image_ssim"])


def without_labels(context: StudyContext) -> StudyContext:
    return replace(context, attacker=replace(context.attacker, labels=None))


def test_without_labels_the_class_mean_is_left_out_and_a_gain_is_beyond_the_mean_image(
    context: StudyContext, store: ImageStore
) -> None:
    plain, labels = store.images("test")[:20], load_labels(store.folder, "test")[:20]
    known, row = (each.measured(plain, 255 - plain, plain, labels) for each in (context, without_labels(context)))
    assert list(row) == [name for name in known if not name.startswith("class_mean_")]
    assert all(row[name] == known[name] for name in row if not name.startswith("gain_"))
    for measure in ("psnr", "ssim"):
        assert row[f"gain_{measure}"] == float(row[measure]) - float(row[f"mean_image_{measure}"])


def test_utility_is_refused_to_an_evaluator_without_labels(context: StudyContext, store: ImageStore) -> None:
    with pytest.raises(ValueError, match=r"^the study of utility needs labels: set attack.labels$"):
        drive(STUDIES["utility"].work("0", USERS, without_labels(context)), Provider(store, [0.5, 0.5, -1.0]))


def test_an_inverse_network_transfers_wholly_between_users_of_one_theta_and_not_to_one_that_inverts(
    found: Callable[[str], Findings],
) -> None:
    gain = {(row["attacker"], row["victim"]): float(row["gain_ssim"]) for row in found("transfer")}
    assert gain[0, 0] == gain[0, 1] == gain[1, 0] == gain[1, 1]
    assert gain[0, 0] > 0.05
    assert gain[0, 2] < 0


def test_a_coalition_never_holds_its_victim_and_grows_by_adding_to_the_smaller_one(
    context: StudyContext, store: ImageStore
) -> None:
    study = STUDIES["collusion"]
    members: dict[str, list[int]] = {}
    for part in study.parts(USERS, context.attacker.seed):
        provider = Provider(store, [0.5, 0.8, -1.0])
        drive(study.work(part, USERS, replace(context, state={})), provider)
        victim = int(part.split("-")[0])
        asked = [request.user for request in provider.requests if isinstance(request, TrainingImages)]
        members[part] = [user for user in asked if user != victim]
    (small, large) = members.values()
    assert len(small) == 1
    assert len(large) == 2
    assert large[0] == small[0]


def test_a_coalition_that_leaves_nobody_to_attack_is_left_out() -> None:
    study = Collusion(kind="collusion", coalitions=(1, 2, 3, 8), victims=1)
    assert [part.split("-")[1] for part in study.parts(USERS, seed=0)] == ["1", "2"]


def test_pairs_of_the_victim_help_a_coalition_whose_own_protection_is_another(
    context: StudyContext, store: ImageStore
) -> None:
    study = Collusion(kind="collusion", coalitions=(2,), known_pairs=(0, 40), victims=3, images=20)
    rows = drive(study.work("2-2", USERS, context), Provider(store, [0.5, 0.6, -1.0]))
    assert float(rows[1]["ssim"]) > float(rows[0]["ssim"])


def test_however_many_pairs_have_leaked_a_coalition_trains_for_the_same_number_of_steps(
    context: StudyContext, store: ImageStore
) -> None:
    study = Collusion(kind="collusion", coalitions=(1,), known_pairs=(0, 5, 40), victims=1, images=20)
    part, steps = study.parts(USERS, context.attacker.seed)[0], []
    watched = replace(
        context.attacker, progress=lambda step, total, loss: steps.append(total) if step == total else None
    )
    drive(study.work(part, USERS, replace(context, attacker=watched)), Provider(store, [0.5, 0.6, -1.0]))
    assert len(steps) == 3
    assert len(set(steps)) == 1


def test_eighteen_leaked_pairs_or_more_are_what_selects_the_epoch_and_those_are_not_trained_on(
    context: StudyContext, store: ImageStore, trainings: list[Training]
) -> None:
    study = Collusion(kind="collusion", coalitions=(1,), known_pairs=(0, 17, 18, 40), victims=1, images=20)
    part = study.parts(USERS, context.attacker.seed)[0]
    drive(study.work(part, USERS, context), Provider(store, [0.5, 0.6, -1.0]))
    victim = int(part.split("-")[0])
    # As Provider has it, 50 images are a user's X'.
    own = distinct(store.images("train")[50 * victim : 50 * victim + 50])
    trained_on = [distinct(training.plain) & own for training in trainings]
    selected_by = [distinct(training.validation) for training in trainings]
    assert [len(images) for images in trained_on] == [0, 17, 16, 36]
    assert [len(images & own) for images in selected_by] == [0, 0, 2, 4]
    assert [images <= own for images in selected_by] == [False, False, True, True]
    assert not any(one & other for one, other in zip(trained_on, selected_by, strict=True))


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


def test_inversion_undoes_what_a_network_keeps(context: StudyContext, store: ImageStore) -> None:
    study = Inversion(kind="inversion", images=5, steps=150, smoothness=0)
    found = findings(study, context, Provider(store, [0.5, 0.9, -1.0]))
    rows = [row for part in found.values() for row in part]
    assert all(float(row["ssim"]) > 0.9 for row in rows)
    assert all(float(row["distance"]) < 1e-3 for row in rows)


def test_inversion_leaves_out_users_without_a_network(context: StudyContext, store: ImageStore) -> None:
    keyed = replace(context, network=lambda user, theta: None)
    found = findings(STUDIES["inversion"], keyed, Provider(store, [0.5, 0.5, -1.0]))
    assert all(not part for part in found.values())


def test_a_provider_that_was_never_asked_has_nothing_to_attack_with(context: StudyContext, store: ImageStore) -> None:
    provider = Provider(store, [0.5, 0.5, -1.0])

    def forgetful(request: Request) -> Answer:
        empty = Memories(torch.empty(0, 3, 32, 32, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
        return empty if isinstance(request, Recall) else provider(request)

    study = STUDIES["curious"]
    rows = [row for part in findings(study, context, forgetful).values() for row in part]
    assert rows == [{"user": user, "pairs": 0} for user in USERS]
    assert "seen no pair" in study.conclusion(rows)


@pytest.mark.parametrize(("distinct_ids", "held_out"), [(40, 4), (18, 2), (10, 1), (2, 1)])
def test_a_curious_provider_selects_by_images_that_it_has_in_no_pair_that_it_trains_on(
    context: StudyContext, store: ImageStore, trainings: list[Training], distinct_ids: int, held_out: int
) -> None:
    remembering(context, store, torch.arange(80) % distinct_ids)
    assert len(trainings) == 1
    training, selected_by = trainings[0], distinct(trainings[0].validation)
    assert len(training.plain) + len(training.validation) == 80
    assert len(selected_by) == held_out
    assert not selected_by & distinct(training.plain)


@pytest.mark.parametrize(("pairs", "attacked"), [(17, False), (18, True)])
def test_of_fewer_than_eighteen_pairs_a_curious_provider_makes_no_attack(
    context: StudyContext, store: ImageStore, pairs: int, attacked: bool
) -> None:
    row = remembering(context, store, torch.arange(pairs))
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


def test_images_of_a_user_with_a_key_are_classified_by_its_own_classifier(
    context: StudyContext, store: ImageStore
) -> None:
    provider = Provider(store, [0.5, 0.5, -1.0])
    study = STUDIES["transfer"]
    keyed = replace(context, keyed=lambda user: user == 1)
    drive(study.work("0", USERS, keyed), provider)
    assert [request.user for request in provider.requests if isinstance(request, Classify)] == [-1, 1, -1]


def test_utility_is_the_accuracy_of_every_classifier_of_plain_images(context: StudyContext, store: ImageStore) -> None:
    rows = findings(STUDIES["utility"], context, Provider(store, [0.5, 0.5, -1.0]))["0"]
    assert [row["classifier"] for row in rows] == ["psi", "other 0 (resnet20)", "other 1 (resnet20)"]
    assert [row["accuracy"] for row in rows[:2]] == [1.0, 1.0]
    noughts = (load_labels(store.folder, "test")[:20] == 0).double().mean().item()
    assert rows[2]["accuracy"] == rows[2]["plain_accuracy"] == pytest.approx(noughts)
