"""A network of the evaluator's own that is taught to answer as psi does, by labels and, if there are any, by gradients.

psi's architecture is not used: a hostile user need not know it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.augment import augment
from roles.common.compute import Compute
from roles.common.fitting import descend
from roles.common.images import normalise, to_unit
from roles.common.seeds import derived_seed, generator

_BATCH = 500
_GROUPS = 8
_LR = 3e-3
"""Adam's at the start; it falls to 0."""


class Student(nn.Sequential):
    """Three stages of two 3x3 convolutions each, of ``width`` channels, twice and four times as many.

    Smooth (SiLU), since its gradient is trained as well, and normalised within an image, since the gradient of one
    image must not depend on others.
    """

    def __init__(self, classes: int, width: int) -> None:
        layers: list[nn.Module] = []
        channels = 3
        for stage in range(3):
            for number in range(2):
                wider = width * 2**stage
                stride = 2 if stage and not number else 1
                layers += [nn.Conv2d(channels, wider, 3, stride, 1), nn.GroupNorm(_GROUPS, wider), nn.SiLU()]
                channels = wider
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


@dataclass(frozen=True, eq=False)
class Lessons:
    """What a student is taught: images uint8 ``(N, 3, H, W)``, labels int64 ``(N,)``, perhaps gradients like images."""

    images: Tensor
    labels: Tensor
    gradients: Tensor | None = None
    """Of the loss of each image with its label, in the direction of which alone anything is learned, float32."""


def train_student(
    lessons: Lessons,
    classes: int,
    width: int,
    steps: int,
    batch_size: int,
    weight: float,
    seed: int,
    compute: Compute,
    *,
    shift: int,
    flip: bool,
) -> Student:
    """Teach a student for ``steps`` steps of Adam, and return it in evaluation mode.

    Half of a batch are lessons as they are. The other half are moved, and keep their labels: what is shown does not
    change by that. Gradients are those of images in their place, and are matched in the first half alone.

    The loss is cross entropy and, with gradients, ``weight`` times 1 - cos between psi's gradient with respect to the
    image and the student's own: the direction survives clipping and scaling. Source of gradients as lessons: Milli et
    al., 2019 (arXiv:1807.05185); of matching them: Czarnecki et al., 2017 (arXiv:1706.04859).

    Args:
        shift: pixels, at most, by which images are moved in each direction.
        flip: whether they are mirrored as well (not for digits).

    Raises:
        ValueError: the loss is not finite.
    """
    torch.manual_seed(derived_seed(seed, "student"))
    student = compute.module(Student(classes, width))
    optimiser = torch.optim.Adam(student.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _LR * (1 - step / steps))
    stream = generator(seed, "student", "batches")
    for step in range(steps):
        places = torch.randint(len(lessons.images), (batch_size,), generator=stream)
        still, moved = lessons.images[places].tensor_split([batch_size - batch_size // 2])
        moves = generator(seed, "student", "moves", step)
        images = compute.batch(to_unit(torch.cat([still, augment(moved, shift, moves, flip=flip)])))
        gradients = None if lessons.gradients is None else compute.batch(lessons.gradients[places[: len(still)]])
        loss = descend(optimiser, _loss(student, images, lessons.labels[places].to(images.device), gradients, weight))
        schedule.step()
        if compute.reads(step) and not torch.isfinite(loss):
            raise ValueError(f"the student of an extraction diverged at step {step}")
    return student.eval()


def _loss(student: Student, images: Tensor, labels: Tensor, gradients: Tensor | None, weight: float) -> Tensor:
    images.requires_grad_(gradients is not None)
    losses = F.cross_entropy(student(normalise(images)), labels, reduction="none")
    if gradients is None:
        return losses.mean()
    matched = slice(len(gradients))
    (own,) = torch.autograd.grad(losses[matched].sum(), images, create_graph=True)
    likeness = F.cosine_similarity(own[matched].flatten(1), gradients.flatten(1))
    return losses.mean() + weight * (1 - likeness).mean()


def answers_of(student: Student, images: Tensor, compute: Compute) -> Tensor:
    """Return the labels that a student gives uint8 ``(N, 3, H, W)``, int64 ``(N,)``, on the CPU."""
    with torch.no_grad():
        batches = [compute.batch(to_unit(batch)) for batch in torch.split(images, _BATCH)]
        return torch.cat([student(normalise(batch)).argmax(1).cpu() for batch in batches])
