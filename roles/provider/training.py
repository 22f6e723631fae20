"""How the provider trains psi on plain images (Section III-A, step 1)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from roles.common.augment import augment
from roles.common.batches import Batches
from roles.common.compute import Compute
from roles.common.data import ImageStore, Split
from roles.common.images import to_unit
from roles.common.labels import load_labels
from roles.common.recipes import Frozen, Recipe, set_lr
from roles.common.seeds import derived_seed, generator
from roles.common.weights import State, cpu_state
from roles.provider.classifiers import Classifier, ClassifierName


class ClassifierConfig(Frozen):
    """psi: its architecture, its training, its seed."""

    name: ClassifierName = "resnet20"
    training: Recipe = Recipe(epochs=200)
    crop_padding: Annotated[int, Field(ge=0)] = 4
    """Black pixels around an image before the random crop of augmentation; 0 turns the crop off."""
    flip: bool = True
    """Whether augmentation mirrors images (not for digits)."""
    seed: int = 0
    """Apart from the run's seed, so that psi is trained once and shared by runs with other seeds."""


@dataclass(frozen=True)
class TrainedClassifier:
    """What training psi gives."""

    state: State
    curve: list[dict[str, float]]
    """One row an epoch: epoch, step, train_loss, validation_loss, validation_accuracy (in [0, 1])."""
    selected_epoch: int
    test_accuracy: float
    """Share of plain test images that the selected psi classifies correctly, in [0, 1]."""


def predict(classifier: Classifier, images: Tensor, compute: Compute, batch_size: int = 500) -> Tensor:
    """Return logits ``(N, classes)`` of uint8 ``images`` on the CPU; ``classifier`` is left in eval mode."""
    classifier.eval()
    with torch.no_grad(), compute.autocast():
        batches = [classifier(compute.batch(to_unit(batch))).cpu() for batch in torch.split(images, batch_size)]
    return torch.cat(batches)


def train_classifier(
    config: ClassifierConfig,
    store: ImageStore,
    compute: Compute,
    progress: Callable[[int, int, float], None] = lambda step, total, loss: None,
) -> TrainedClassifier:
    """Train psi and return the epoch with the lowest validation loss (Section IV-A).

    Args:
        progress: called after every step with the steps done, their total, and the loss of the step.

    Raises:
        ValueError: the loss is not finite any more.
    """
    images, labels = store.images("train"), load_labels(store.folder, "train")
    torch.manual_seed(derived_seed(config.seed, "psi"))  # initial weights and dropout
    classifier = compute.module(Classifier(config.name, len(store.classes)))
    optimiser = config.training.optimiser_for(classifier)
    batches = Batches(torch.arange(len(images)), config.training.batch_size, derived_seed(config.seed, "psi", "order"))
    total = config.training.total_steps(batches.per_epoch)

    curve: list[dict[str, float]] = []
    best: tuple[float, int, State] = (math.inf, -1, {})
    summed = torch.zeros((), dtype=torch.float64)
    classifier.train()
    for step in range(total):
        ids = batches.ids_at(step)
        stream = generator(config.seed, "psi", "augment", step)
        batch = augment(images[ids], config.crop_padding, stream, flip=config.flip)
        set_lr(optimiser, config.training.lr_at(step, total))
        with compute.autocast():
            logits = classifier(compute.batch(to_unit(batch)))
        loss = F.cross_entropy(logits, labels[ids].to(compute.device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        value = loss.item()
        if not math.isfinite(value):
            raise ValueError(f"training psi diverged: loss {value} at step {step}; lower classifier.training.lr")
        summed += value
        progress(step + 1, total, value)
        if (step + 1) % batches.per_epoch == 0 or step + 1 == total:
            steps = step % batches.per_epoch + 1
            val_loss, val_accuracy = _evaluate(classifier, store, "validation", compute)
            epoch = len(curve)
            curve.append(
                {
                    "epoch": epoch + 1,
                    "step": step + 1,
                    "train_loss": summed.item() / steps,
                    "validation_loss": val_loss,
                    "validation_accuracy": val_accuracy,
                }
            )
            if val_loss < best[0]:
                best = (val_loss, epoch, cpu_state(classifier))
            summed.zero_()
            classifier.train()
    classifier.load_state_dict(best[2])
    _, accuracy = _evaluate(classifier, store, "test", compute)
    return TrainedClassifier(state=best[2], curve=curve, selected_epoch=best[1] + 1, test_accuracy=accuracy)


def _evaluate(classifier: Classifier, store: ImageStore, split: Split, compute: Compute) -> tuple[float, float]:
    labels = load_labels(store.folder, split)
    logits = predict(classifier, store.images(split), compute)
    correct = int((logits.argmax(1) == labels).sum())
    return F.cross_entropy(logits, labels).item(), correct / len(labels)
