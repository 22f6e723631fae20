import pytest
import torch

from roles.evaluator.controls import blur


def test_a_blurred_point_is_a_gaussian_of_the_same_mass() -> None:
    point = torch.zeros(1, 3, 17, 17, dtype=torch.uint8)
    point[..., 8, 8] = 255
    row = blur(point, sigma=1.0)[0, 0, 8].float()
    assert torch.equal(row, row.flip(0))
    # 255 / (2 pi) in the middle, exp(-1/2) of it beside
    assert row[8].item() == pytest.approx(255 / 6.2832, abs=1)
    assert row[9].item() == pytest.approx(0.6065 * 255 / 6.2832, abs=1)
    assert blur(point, sigma=1.0)[0, 0].float().sum().item() == pytest.approx(255, abs=20)


def test_a_uniform_image_is_unchanged_by_blur() -> None:
    grey = torch.full((1001, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(blur(grey, sigma=1.5), grey)


def test_a_blur_wider_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="reaches 9 pixels"):
        blur(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), sigma=3)
