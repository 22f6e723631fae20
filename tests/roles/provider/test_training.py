from pathlib import Path

import numpy as np
import pytest
import torch

from roles.common.compute import Compute
from roles.common.config.classifier import ClassifierConfig
from roles.common.config.recipe import Recipe
from roles.common.data import ImageStore
from roles.common.labels import load_labels
from roles.common.weights import digest, load_into
from roles.provider import training
from roles.provider.classifiers import Classifier
from roles.provider.training import predict, train_classifier

SHORT = Recipe(epochs=3, batch_size=16, optimiser="adam", lr=0.003, weight_decay=0, schedule="one_cycle")
CONFIG = ClassifierConfig(training=SHORT, crop_padding=1, flip=False)


@pytest.fixture(scope="module")
def few(tiny: ImageStore, tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """A hundredth of the digits' work: 64 train, 20 validation and 20 test images."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "meta.json").write_text((tiny.folder / "meta.json").read_text())
    for split, count in (("train", 64), ("validation", 20), ("test", 20)):
        for kind in ("images", "labels"):
            name = f"{split}.{kind}.npy"
            np.save(folder / name, np.load(tiny.folder / name)[:count])
    return ImageStore(folder)


def test_the_defaults_are_the_papers() -> None:
    assert ClassifierConfig().training == Recipe(epochs=200)
    assert (ClassifierConfig().crop_padding, ClassifierConfig().flip) == (4, True)


def test_training_lowers_the_loss_and_counts_its_steps(few: ImageStore, compute: Compute) -> None:
    calls: list[tuple[int, int]] = []
    trained = train_classifier(CONFIG, few, compute, lambda step, total, loss: calls.append((step, total)))
    assert trained.curve[-1]["train_loss"] < trained.curve[0]["train_loss"] - 0.2
    assert [(row["epoch"], row["step"]) for row in trained.curve] == [(1, 4), (2, 8), (3, 12)]
    assert calls == [(step, 12) for step in range(1, 13)]


def test_the_same_seed_gives_the_same_psi_and_another_seed_another(few: ImageStore, compute: Compute) -> None:
    short = CONFIG.model_copy(update={"training": SHORT.model_copy(update={"epochs": 0.5})})

    def psi(seed: int) -> str:
        return digest(train_classifier(short.model_copy(update={"seed": seed}), few, compute).state)

    first = psi(0)
    torch.rand(3)  # whatever else the process draws
    assert psi(0) == first
    assert psi(1) != first


def test_the_epoch_with_the_lowest_validation_loss_is_returned(
    few: ImageStore, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([(2.0, 0.1), (1.0, 0.2), (3.0, 0.3), (9.0, 0.4)])
    seen: list[str] = []

    def scripted(classifier: Classifier, *_: object) -> tuple[float, float]:
        seen.append(digest(classifier.state_dict()))
        return next(losses)

    monkeypatch.setattr(training, "_evaluate", scripted)
    trained = train_classifier(CONFIG, few, compute)
    assert trained.selected_epoch == 2
    assert digest(trained.state) == seen[1]
    assert seen[3] == seen[1]  # the test images are classified by the selected psi
    assert trained.test_accuracy == 0.4
    assert [row["validation_accuracy"] for row in trained.curve] == [0.1, 0.2, 0.3]


def test_the_reported_accuracy_is_that_of_the_returned_weights(few: ImageStore, compute: Compute) -> None:
    trained = train_classifier(CONFIG, few, compute)
    classifier = Classifier("resnet20", 10)
    load_into(classifier, trained.state, "psi")
    correct = predict(classifier, few.images("test"), compute).argmax(1) == load_labels(few.folder, "test")
    assert trained.test_accuracy == int(correct.sum()) / 20


def test_predictions_do_not_depend_on_the_batch_size(few: ImageStore, compute: Compute) -> None:
    torch.manual_seed(0)
    classifier = Classifier("resnet20", 10)
    images = few.images("test")
    whole, parts = predict(classifier, images, compute), predict(classifier, images, compute, batch_size=3)
    assert whole.shape == (20, 10)
    assert torch.allclose(whole, parts, atol=1e-5)
    assert not classifier.training


def test_a_training_that_diverges_says_so_in_one_line(few: ImageStore, compute: Compute) -> None:
    wild = Recipe(epochs=5, batch_size=16, lr=1e30)
    with pytest.raises(ValueError, match=r"training psi diverged: .* lower classifier.training.lr") as caught:
        train_classifier(ClassifierConfig(training=wild), few, compute)
    assert "\n" not in str(caught.value)


def test_images_and_labels_on_disk_are_not_written_to(few: ImageStore, compute: Compute) -> None:
    def content(folder: Path) -> list[bytes]:
        return [path.read_bytes() for path in sorted(folder.iterdir())]

    before = content(few.folder)
    train_classifier(CONFIG.model_copy(update={"training": Recipe(epochs=0.2)}), few, compute)
    assert content(few.folder) == before
