import pytest
import torch

from roles.user.features import feature_loss


def test_the_feature_loss_is_the_mean_square_over_images_channels_and_pixels() -> None:
    plain = torch.zeros(2, 2, 1, 3)
    protected = plain.clone()
    protected[0, 0, 0, 0], protected[0, 1, 0, 2], protected[1, 1, 0, 1] = 1, -2, 5
    # (1 + 4 + 25) over 2 images of 2 x 1 x 3 features
    assert feature_loss(protected, plain).item() == pytest.approx(30 / 12)
    each = [feature_loss(protected[i : i + 1], plain[i : i + 1]).item() for i in range(2)]
    assert each == pytest.approx([5 / 6, 25 / 6])
    assert feature_loss(plain, protected).item() == feature_loss(protected, plain).item()


def test_the_feature_loss_is_taken_in_float32() -> None:
    value = feature_loss(torch.full((1, 1, 1, 1), 300.0, dtype=torch.bfloat16), torch.zeros(1, 1, 1, 1))
    assert value.dtype == torch.float32
