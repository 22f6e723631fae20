"""The diagonal Fisher information leakage: a bound on what any unbiased estimate of a plain image can be."""

import pytest
import torch
from torch import Tensor, nn

from roles.common.compute import Compute
from roles.common.fisher import jacobian_energy, leakage, noise_for
from roles.common.seeds import generator


class Scaled(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 0.5 * images


def plain(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_energy_of_a_scaled_image_is_the_square_of_the_scale(compute: Compute) -> None:
    assert jacobian_energy(Scaled(), plain(), compute, generator(0, "x")).item() == pytest.approx(0.25)


def test_the_energy_is_that_of_the_whole_jacobian(compute: Compute) -> None:
    torch.manual_seed(0)
    h = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sigmoid(), nn.Conv2d(4, 3, 3, padding=1), nn.Sigmoid()).eval()
    images = plain(2)
    exact = torch.stack([torch.autograd.functional.jacobian(h, image[None]).square().sum() / 192 for image in images])
    found = [jacobian_energy(h, images, compute, generator(0, "x", number)) for number in range(200)]
    assert torch.stack(found).mean().item() == pytest.approx(exact.mean().item(), rel=0.05)


def test_more_noise_tells_less_and_without_any_what_is_rounded_away_counts() -> None:
    energy = torch.tensor(1.0)
    assert leakage(energy, 0.1).item() == pytest.approx(100, rel=0.01)
    assert leakage(energy, 0.2) < leakage(energy, 0.1) < leakage(energy, 0.0)
    assert leakage(energy, 0.0).item() == pytest.approx(12 * 255**2)


@pytest.mark.parametrize("dfil", [0.1, 1.0, 30.0])
def test_noise_can_be_set_to_what_a_leakage_asks_for(dfil: float) -> None:
    energy = torch.tensor(0.7)
    assert leakage(energy, noise_for(energy, dfil)).item() == pytest.approx(dfil, rel=1e-4)


def test_an_unbiased_estimate_is_no_better_than_its_bound() -> None:
    x, noise = plain(50), 0.1
    estimate = (0.5 * x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))) / 0.5
    bound = 1 / leakage(torch.tensor(0.25), noise)
    assert (estimate - x).square().mean() >= 0.98 * bound
