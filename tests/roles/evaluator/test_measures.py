import urllib.error
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from roles.evaluator.measures import PSNR_CAP, Lpips, psnr, ssim


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_is_what_the_formula_gives_by_hand() -> None:
    plain = torch.full((3, 3, 2, 2), 100, dtype=torch.uint8)
    estimate = plain.clone()
    estimate[0] += 51  # MSE 0.2^2 = 0.04
    estimate[1, 0, 0, 0] += 51  # MSE 0.04 / 12
    expected = torch.tensor([13.9794, 24.7712, PSNR_CAP])
    assert torch.allclose(psnr(estimate, plain), expected, atol=1e-3)


def test_psnr_of_bitmaps_and_of_the_same_images_as_floats_agree() -> None:
    images = torch.randint(256, (2, 4, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(psnr(images[0], images[1]), psnr(images[0], images[1].float() / 255))


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (7, 3, 32, 32), (2, 3, 6, 40)])
def test_ssim_is_that_of_torchmetrics(shape: tuple[int, ...]) -> None:
    plain = noise(6, *shape)
    estimate = (plain + noise(7, *shape)) / 2
    expected = structural_similarity_index_measure(estimate.double(), plain.double(), reduction="none", data_range=1.0)
    assert torch.allclose(ssim(estimate, plain).double(), torch.as_tensor(expected), atol=1e-6)


def test_ssim_of_a_hundred_images_is_that_of_scikit_image_with_the_same_window_and_borders() -> None:
    plain, share = noise(8, 100, 3, 32, 32), torch.linspace(0, 1, 100).view(-1, 1, 1, 1)
    estimate = share * plain + (1 - share) * noise(9, 100, 3, 32, 32)
    # scikit-image leaves out what is 5 pixels from a border: here, the reflected ones.
    wide = [F.pad(images, (5, 5, 5, 5), mode="reflect").double().numpy() for images in (estimate, plain)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [structural_similarity(*pair, channel_axis=0, **options) for pair in zip(*wide, strict=True)]
    assert torch.allclose(ssim(estimate, plain), torch.tensor(expected).float(), atol=1e-5)
    assert min(expected) < 0.1 and max(expected) > 0.999


def test_one_grey_level_in_one_pixel_stays_below_the_cap() -> None:
    plain = torch.zeros(1, 3, 225, 225, dtype=torch.uint8)
    estimate = plain.clone()
    estimate[0, 0, 0, 0] = 1
    assert 99 < psnr(estimate, plain).item() < PSNR_CAP


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), level=st.floats(0.01, 0.2), factor=st.floats(1.1, 3))
def test_psnr_is_symmetric_and_falls_as_noise_grows(seed: int, level: float, factor: float) -> None:
    plain, change = 0.5 * torch.ones(2, 3, 8, 8), noise(seed, 2, 3, 8, 8) - 0.5
    little, much = plain + level * change, plain + level * factor * change
    assert torch.equal(psnr(little, plain), psnr(plain, little))
    assert bool((psnr(much, plain) < psnr(little, plain)).all())


def test_ssim_is_one_for_identical_images_and_falls_with_noise() -> None:
    plain = noise(0, 3, 3, 16, 16)
    assert torch.allclose(ssim(plain, plain), torch.ones(3))
    little = ssim((plain + 0.1 * noise(1, 3, 3, 16, 16)).clamp(0, 1), plain)
    much = ssim((plain + 0.8 * noise(1, 3, 3, 16, 16)).clamp(0, 1), plain)
    assert bool((much < little).all())
    assert bool((little < 1).all())


def test_ssim_of_an_error_at_the_border_is_what_the_formula_gives_there_as_anywhere() -> None:
    plain = noise(5, 1, 3, 32, 32)
    estimate = plain.clone()
    estimate[:, :, 0], estimate[:, :, :, -1] = 0, 1
    distances = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-distances.square() / (2 * 1.5**2))
    window = torch.outer(window, window) / window.sum() ** 2

    def local_mean(images: Tensor) -> Tensor:
        padded = F.pad(images, (5, 5, 5, 5), mode="reflect")
        return (padded.unfold(2, 11, 1).unfold(3, 11, 1) * window).sum(dim=(4, 5))

    x, y = estimate.double(), plain.double()
    m_x, m_y = local_mean(x), local_mean(y)
    s_xx, s_yy, s_xy = (local_mean(a * b) - local_mean(a) * local_mean(b) for a, b in ((x, x), (y, y), (x, y)))
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * m_x * m_y + c1) * (2 * s_xy + c2) / ((m_x**2 + m_y**2 + c1) * (s_xx + s_yy + c2))
    assert ssim(estimate, plain).item() == pytest.approx(similarity.mean().item(), abs=1e-5)


def test_measures_of_many_images_are_those_of_each_one() -> None:
    estimate, plain = noise(2, 501, 3, 8, 8), noise(3, 501, 3, 8, 8)  # more than one batch
    for measure in (psnr, ssim):
        together = measure(estimate, plain)
        assert together.shape == (501,)
        assert torch.allclose(together[500:], measure(estimate[500:], plain[500:]), atol=1e-6)


def test_images_of_different_shapes_are_refused() -> None:
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match="estimates are"):
            measure(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8))


def test_lpips_without_weights_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(ValueError, match=r"AlexNet weights.*no route to host") as caught:
        Lpips(32)
    assert "\n" not in str(caught.value)


def test_lpips_refuses_images_too_small_for_its_network() -> None:
    with pytest.raises(ValueError, match="at least 31x31"):
        Lpips(8)


def test_lpips_gives_one_distance_an_image_and_none_to_identical_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def untrained(**_: object) -> SimpleNamespace:
        # Without the classifier on top, which holds nearly all of AlexNet's parameters and is not used.
        with torch.device("meta"):
            features = torchvision.models.AlexNet().features
        features = features.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        for value in features.parameters():
            value.data.normal_(0, 0.05, generator=generator)
        return SimpleNamespace(features=features)

    monkeypatch.setattr(torchvision.models, "alexnet", untrained)
    lpips = Lpips(31)
    plain = noise(4, 3, 3, 31, 31)
    estimate = plain.clone()
    estimate[1] = 1 - plain[1]
    distances = lpips(estimate, plain)
    assert distances.shape == (3,)
    assert distances[0] == distances[2] == 0
    assert distances[1] > 0
    assert lpips(estimate[:1], plain[:1]).shape == (1,)
