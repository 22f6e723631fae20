"""A student of psi: what it learns from labels, and what gradients add."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.augment import crop
from roles.common.compute import Compute
from roles.common.data import ImageStore
from roles.common.images import normalise, to_unit
from roles.evaluator import student as module
from roles.evaluator.student import Lessons, Student, answers_of, train_student
from tests.roles.evaluator.studies.known_users import NearestMean


@pytest.fixture(scope="module")
def lessons(tiny: ImageStore) -> Lessons:
    """Fifty images with what a psi says of them, and the gradients of that."""
    psi, images = NearestMean(tiny), tiny.images("train")[:50]
    inputs = to_unit(images).requires_grad_()
    logits = psi(inputs)
    labels = logits.argmax(1)
    (gradients,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), inputs)
    return Lessons(images, labels, gradients)


def taught(lessons: Lessons, steps: int, compute: Compute, shift: int = 0) -> Student:
    return train_student(lessons, 10, 8, steps, 16, 1.0, 0, compute, shift=shift, flip=False)


def gradients_of(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of each image's loss, ``(N, 3 * H * W)``."""
    leaf = to_unit(images).requires_grad_()
    logits = network(normalise(leaf) if isinstance(network, Student) else leaf)
    (gradients,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), leaf)
    return gradients.flatten(1)


def test_gradients_bring_those_of_a_student_nearer_to_psis_than_the_same_labels_alone(
    lessons: Lessons, tiny: ImageStore, compute: Compute
) -> None:
    psi, test = NearestMean(tiny), tiny.images("test")
    answers = psi(to_unit(test)).argmax(1)
    of_psi = gradients_of(psi, test, answers)
    with_gradients, alone = (
        F.cosine_similarity(gradients_of(taught(known, 30, compute), test, answers), of_psi).mean().item()
        for known in (lessons, Lessons(lessons.images, lessons.labels))
    )
    assert with_gradients > alone + 0.1


def test_a_student_is_taught_what_moved_images_show(lessons: Lessons, compute: Compute) -> None:
    labels = Lessons(lessons.images, lessons.labels)
    moved = crop(lessons.images, 1, torch.tensor([[0], [1]]).expand(2, 50))
    still, moving = (
        float((answers_of(taught(labels, 150, compute, shift), moved, compute) == lessons.labels).double().mean())
        for shift in (0, 1)
    )
    assert moving > still


def test_gradients_are_matched_where_they_belong(
    lessons: Lessons, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Tensor, Tensor]] = []
    undisturbed = module._loss

    def noted(student: Student, images: Tensor, labels: Tensor, gradients: Tensor, weight: float) -> Tensor:
        given.append((images.detach().clone(), gradients))
        return undisturbed(student, images, labels, gradients, weight)

    monkeypatch.setattr(module, "_loss", noted)
    taught(lessons, 3, compute, shift=2)
    assert lessons.gradients is not None
    for images, gradients in given:
        assert (len(images), len(gradients)) == (16, 8)
        for image, gradient in zip(images, gradients, strict=False):
            place = (lessons.gradients == gradient).all(dim=(1, 2, 3)).nonzero()[0, 0]
            assert torch.equal(to_unit(lessons.images[place]), image)


def test_how_long_gradients_are_teaches_a_student_nothing(lessons: Lessons, compute: Compute) -> None:
    assert lessons.gradients is not None
    longer = Lessons(lessons.images, lessons.labels, 4 * lessons.gradients)
    one, other = (taught(known, 3, compute).state_dict() for known in (lessons, longer))
    assert all(torch.allclose(one[name], other[name], atol=1e-3) for name in one)


def test_a_students_answer_to_an_image_does_not_depend_on_others(tiny: ImageStore, compute: Compute) -> None:
    student, images = Student(10, 8).train(), to_unit(tiny.images("test")[:4])
    assert torch.allclose(student(images)[:1], student(images[:1]), atol=1e-5)


def test_a_student_whose_loss_is_not_finite_is_said_to_have_diverged(lessons: Lessons, compute: Compute) -> None:
    assert lessons.gradients is not None
    broken = Lessons(lessons.images, lessons.labels, lessons.gradients * torch.nan)
    with pytest.raises(ValueError, match=r"^the student of an extraction diverged at step 0$"):
        taught(broken, 2, compute)
