import pytest
import torch
from torch import Tensor

from roles.evaluator.baselines import class_means, mean_image
from roles.evaluator.measures import psnr


def greys(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_the_mean_image_is_the_mean_of_each_pixel() -> None:
    images = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    images[1, 2, 0, 1] = 255
    expected = torch.zeros(3, 2, 2)
    expected[2, 0, 1] = 0.5
    assert torch.equal(mean_image(images), expected)


def test_class_means_are_those_of_each_class_and_an_empty_class_gets_the_mean_image() -> None:
    means = class_means(greys(0, 51, 255, 102), torch.tensor([2, 2, 0, 2]), classes=3)
    assert means.shape == (3, 3, 2, 2)
    assert torch.allclose(means[:, 0, 0, 0], torch.tensor([1.0, 0.4, 0.2]))


def test_means_over_many_chunks_are_exact() -> None:
    images = torch.full((2500, 3, 1, 1), 255, dtype=torch.uint8)
    assert torch.equal(mean_image(images), torch.ones(3, 1, 1))


def test_no_constant_has_a_lower_error_than_the_mean_image() -> None:
    images = torch.randint(256, (9, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    units, mean = images.float() / 255, mean_image(images)
    error = (units - mean).square().mean()
    assert error < (units - (mean + 0.01)).square().mean()
    assert error < (units - (mean - 0.01)).square().mean()
    assert psnr(mean.expand_as(units), images).shape == (9,)


def test_no_images_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no image"):
        mean_image(torch.empty(0, 3, 2, 2, dtype=torch.uint8))
