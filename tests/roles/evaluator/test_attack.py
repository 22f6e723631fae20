from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from roles.common.config.attack import AttackConfig, ItnConfig
from roles.common.config.data import Split
from roles.common.config.recipe import Recipe
from roles.common.data import ImageStore
from roles.common.exchange import Answer, Classify, ExchangeError, LossValues, Predictions, Request, Work, drive
from roles.common.labels import load_labels
from roles.evaluator import attacker
from roles.evaluator.attack import evaluate_protection
from roles.evaluator.attacker import Attacker
from roles.evaluator.baselines import class_means, mean_image
from roles.evaluator.measures import psnr, ssim
from roles.evaluator.results import AttackResult

Start = Callable[[dict[str, Tensor]], Work[AttackResult]]
AttackerWith = Callable[[AttackConfig], Attacker]


def invert(images: Tensor, split: Split, positions: Tensor) -> Tensor:
    return 255 - images


def by_brightness(request: Request) -> Answer:
    assert isinstance(request, Classify)
    return Predictions((request.images.float().mean(dim=(1, 2, 3)) / 25.6).long())


@pytest.fixture
def config(small_itn: ItnConfig) -> AttackConfig:
    other = small_itn.model_copy(update={"name": "other", "loss": "l1"})
    return AttackConfig(itns=(small_itn, other), pairs=36, test_images=10, pictures=3, flip=False)


@pytest.fixture
def start(config: AttackConfig, attacker_with: AttackerWith) -> Start:
    return lambda state: evaluate_protection(invert, None, attacker_with(config), state)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacker, "_CLASSIFY_BATCH", 4)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    train = attacker.train_itn

    def counted(config: ItnConfig, *arguments: object, **options: object) -> object:
        names.append(config.name)
        return train(config, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(attacker, "train_itn", counted)
    return names


def flattened(result: AttackResult) -> dict[str, Tensor]:
    sets = {"protected": result.protected, **result.estimates, **result.baselines}
    tensors = {f"{name} psnr": measured.psnr for name, measured in sets.items()}
    tensors |= {f"{name} ssim": measured.ssim for name, measured in sets.items()}
    tensors |= {f"{name} accuracy": torch.tensor(measured.accuracy or -1.0) for name, measured in sets.items()}
    tensors |= {f"{name} curve": torch.tensor([list(r.values()) for r in c]) for name, c in result.curves.items()}
    return tensors | result.pictures


def test_every_set_of_images_is_measured_against_the_plain_test_images(
    config: AttackConfig, store: ImageStore, attacker_with: AttackerWith
) -> None:
    ten = attacker_with(config.model_copy(update={"pictures": 10}))
    result = drive(evaluate_protection(invert, None, ten, {}), by_brightness)
    plain, labels = store.images("test")[:10], load_labels(store.folder, "test")[:10]
    assert list(result.estimates) == ["small", "other"]
    assert torch.equal(result.pictures["protected"], 255 - plain)
    for name, measured in {"protected": result.protected, **result.estimates}.items():
        images = result.pictures[name]
        predicted = by_brightness(Classify(images))
        assert isinstance(predicted, Predictions)
        assert torch.equal(measured.psnr, psnr(images, plain))
        assert torch.equal(measured.ssim, ssim(images, plain))
        assert measured.accuracy == (predicted.labels == labels).double().mean().item()
    assert len({measured.accuracy for measured in (result.protected, *result.estimates.values())}) > 1
    for measured in (result.protected, *result.estimates.values(), *result.baselines.values()):
        assert measured.psnr.shape == measured.ssim.shape == (10,)
        assert measured.psnr.dtype == measured.ssim.dtype == torch.float32
        assert measured.lpips is None
    assert list(result.curves) == ["small", "other"]
    assert list(result.curves["small"][0]) == ["epoch", "step", "train_loss", "validation_loss"]
    assert [row["epoch"] for row in result.curves["small"]] == [1, 2]
    assert list(result.pictures) == ["plain", "protected", "small", "other", "class_mean"]


def test_without_labels_the_mean_image_is_the_only_guess_and_nothing_has_an_accuracy(
    start: Start, config: AttackConfig, attacker_with: AttackerWith
) -> None:
    known = flattened(drive(start({}), by_brightness))
    blind = attacker_with(config.model_copy(update={"labels": False}))
    assert blind.labels is None
    result = drive(evaluate_protection(invert, None, blind, {}), by_brightness)
    assert list(result.baselines) == ["mean_image"]
    for measured in (result.protected, *result.estimates.values(), *result.baselines.values()):
        assert measured.accuracy is None
    # All else is as with labels.
    for name, value in flattened(result).items():
        if not name.endswith(" accuracy"):
            assert torch.equal(value, known[name])


def test_as_many_pictures_are_kept_as_the_config_says(start: Start, store: ImageStore) -> None:
    result = drive(start({}), by_brightness)
    assert torch.equal(result.pictures["protected"], 255 - store.images("test")[:3])
    assert all(p.dtype == torch.uint8 and p.shape == (3, 3, 16, 16) for p in result.pictures.values())


def test_guesses_are_the_means_of_all_train_images_and_of_the_true_class_whatever_psi_says(
    start: Start, store: ImageStore
) -> None:
    result = drive(start({}), by_brightness)
    train, labels = store.images("train"), load_labels(store.folder, "train")
    plain, of_class = store.images("test")[:10], load_labels(store.folder, "test")[:10]
    expected = {
        "mean_image": psnr(mean_image(train).expand_as(plain), plain),
        "class_mean": psnr(class_means(train, labels, 10)[of_class], plain),
    }
    for name, measured in result.baselines.items():
        assert torch.allclose(measured.psnr, expected[name], atol=0.05)  # they are measured as 8-bit images
        assert measured.accuracy is None
    assert psnr(result.pictures["class_mean"], result.pictures["plain"]).tolist() == pytest.approx(
        result.baselines["class_mean"].psnr[:3].tolist()
    )


def test_an_image_that_is_inverted_is_measured_as_a_person_sees_it(
    config: AttackConfig, attacker_with: AttackerWith
) -> None:
    many = attacker_with(config.model_copy(update={"test_images": 100}))
    result = drive(evaluate_protection(invert, None, many, {}), by_brightness)
    assert result.protected.ssim.median() < 0.5
    assert result.seen is not None
    assert result.seen.ssim.min() > 0.99
    assert result.seen.shown.min() > 0.99


@pytest.mark.usefixtures("small_batches")
def test_dropped_at_every_yield_it_goes_on_from_its_state_to_the_same_result(
    start: Start, trainings: list[str]
) -> None:
    requests: list[Tensor] = []

    def recording(request: Request) -> Answer:
        assert isinstance(request, Classify)
        requests.append(request.images)
        return by_brightness(request)

    undisturbed = flattened(drive(start({}), recording))
    assert [len(images) for images in requests] == [4, 4, 2] * 3
    trainings.clear()

    saved: dict[str, Tensor] = {}
    for expected in requests:
        for _ in range(2):  # nobody answers the first of the two
            state = {key: value.clone() for key, value in saved.items()}
            work = start(state)
            request = next(work)
            saved = {key: value.clone() for key, value in state.items()}
            assert isinstance(request, Classify)
            assert torch.equal(request.images, expected)
        # The state of the next yield, or of the end, follows from the answer.
        try:
            work.send(by_brightness(request))
        except StopIteration as end:
            restarted = flattened(end.value)
        saved = {key: value.clone() for key, value in state.items()}
    assert trainings == ["small", "other"]
    assert restarted.keys() == undisturbed.keys()
    assert all(torch.equal(restarted[name], undisturbed[name]) for name in undisturbed)


def test_every_user_faces_an_attacker_with_the_same_images_and_another_seed_another(
    config: AttackConfig, attacker_with: AttackerWith
) -> None:
    ids = attacker_with(config).ids("train", 20)
    assert torch.equal(attacker_with(config).ids("train", 40)[:20], ids)
    assert not torch.equal(replace(attacker_with(config), seed=1).ids("train", 20), ids)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (LossValues(loss=0.0, correct=0), "expected Predictions"),
        (Predictions(torch.zeros(3, dtype=torch.int64)), r"expected torch.int64 \(10,\)"),
        (Predictions(torch.zeros(10)), "labels are torch.float32"),
        (Predictions(torch.full((10,), 10)), "labels are 10 to 10, expected 0 to 9"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(start: Start, answer: Answer, reason: str) -> None:
    with pytest.raises(ExchangeError, match=reason):
        drive(start({}), lambda _: answer)


@pytest.mark.parametrize(("name", "split"), [("pairs", "train"), ("test_images", "test")])
def test_more_images_than_there_are_is_an_error(
    name: str, split: str, config: AttackConfig, attacker_with: AttackerWith
) -> None:
    greedy = attacker_with(config.model_copy(update={name: 5000}))
    with pytest.raises(ValueError, match=f"{name} is 5000, but the {split} split has only"):
        next(evaluate_protection(invert, None, greedy, {}))


def test_the_default_attackers_are_the_papers_and_a_strong_one() -> None:
    paper, strong = AttackConfig().itns
    assert (paper.name, paper.training) == ("paper", Recipe(epochs=200))
    assert (strong.name, strong.training.optimiser, strong.training.weight_decay) == ("strong", "adam", 0)


@pytest.mark.parametrize("names", [("a", "a"), ("plain",), ("protected",)])
def test_inverse_networks_need_names_of_their_own(names: tuple[str, ...], small_itn: ItnConfig) -> None:
    with pytest.raises(ValidationError, match="names of their own"):
        AttackConfig(itns=tuple(small_itn.model_copy(update={"name": name}) for name in names))
