"""How the provider trains psi on plain images (Section III-A, step 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.augment import Augmentation
from roles.common.batches import Batches
from roles.common.compute import Compute
from roles.common.config.classifier import ClassifierConfig
from roles.common.config.data import Split
from roles.common.data import ImageStore
from roles.common.fitting import Fitted, Progress, fit
from roles.common.images import to_unit
from roles.common.labels import load_labels
from roles.common.seeds import derived_seed, generator
from roles.provider.classifiers import Classifier


@dataclass(frozen=True, eq=False)
class TrainedClassifier(Fitted):
    """What training psi gives; its curve has validation_accuracy, in [0, 1], as well."""

    test_accuracy: float
    """Share of plain test images that the selected psi classifies correctly, in [0, 1]."""


def predict(classifier: Classifier, images: Tensor, compute: Compute, batch_size: int = 500) -> Tensor:
    """Return logits ``(N, classes)`` of uint8 ``(N, 3, H, W)`` on the CPU; ``classifier`` is left in eval mode."""
    classifier.eval()
    with torch.no_grad(), compute.autocast():
        return torch.cat([classifier(compute.batch(to_unit(batch))).cpu() for batch in torch.split(images, batch_size)])


def train_classifier(
    config: ClassifierConfig, store: ImageStore, compute: Compute, progress: Progress = lambda step, total, loss: None
) -> TrainedClassifier:
    """Train psi and return the epoch with the lowest validation loss (Section IV-A).

    Raises:
        ValueError: the loss is not finite any more.
    """
    images = store.images("train", compute.device)
    labels = load_labels(store.folder, "train").to(compute.device)
    torch.manual_seed(derived_seed(config.seed, "psi"))  # initial weights and dropout
    classifier = compute.module(Classifier(config.name, len(store.classes), store.side))
    batches = Batches(torch.arange(len(images)), config.training.batch_size, derived_seed(config.seed, "psi", "order"))

    def draw(number: int, ids: Tensor) -> tuple[Tensor, ...]:
        stream = generator(config.seed, "psi", "augment", number)
        return ids, *Augmentation.draw(len(ids), config.crop_padding, stream, flip=config.flip)

    def loss_of(ids: Tensor, *drawn: Tensor) -> Tensor:
        batch = Augmentation(*drawn).of(images[ids], config.crop_padding)
        with compute.autocast():
            logits = classifier(compute.batch(to_unit(batch)))
        return F.cross_entropy(logits, labels[ids])

    def validate() -> dict[str, float]:
        loss, accuracy = _evaluate(classifier, store, "validation", compute)
        return {"validation_loss": loss, "validation_accuracy": accuracy}

    names = {"name": "training psi", "rate": "classifier.training.lr"}
    fitted = fit(classifier, config.training, batches, draw, loss_of, validate, progress, compute, **names)
    _, accuracy = _evaluate(classifier, store, "test", compute)
    return TrainedClassifier(fitted.state, fitted.curve, fitted.selected_epoch, accuracy)


def _evaluate(classifier: Classifier, store: ImageStore, split: Split, compute: Compute) -> tuple[float, float]:
    """Return mean loss and accuracy in [0, 1] of a split."""
    labels = load_labels(store.folder, split)
    logits = predict(classifier, store.images(split), compute)
    return F.cross_entropy(logits, labels).item(), int((logits.argmax(1) == labels).sum()) / len(labels)
