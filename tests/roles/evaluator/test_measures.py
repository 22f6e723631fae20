import itertools
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from roles.evaluator.measures import PSNR_CAP, Lpips, moved_ssim, psnr, ssim


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


@settings(max_examples=25, deadline=None)
@given(down=st.integers(-3, 3), right=st.integers(-3, 3), seed=st.integers(0, 99))
def test_images_that_were_only_moved_are_found_to_be_the_plain_ones(down: int, right: int, seed: int) -> None:
    plain = noise(seed, 3, 3, 32, 32).mul(255).to(torch.uint8)
    moved = torch.roll(plain, (down, right), (2, 3))
    alike, *way = moved_ssim(moved, plain)
    assert alike == pytest.approx(1)
    assert way == [down, right]
    assert moved_ssim(moved.flip(2), plain)[0] < 0.3  # other images


def test_images_that_no_move_makes_more_alike_are_not_moved() -> None:
    plain = noise(0, 40, 3, 32, 32).mul(255).to(torch.uint8)
    assert moved_ssim(torch.zeros_like(plain), plain)[1:] == (0, 0)
    flat = torch.full_like(plain, 90)
    assert moved_ssim(flat, flat) == (pytest.approx(1, abs=1e-3), 0, 0)
    # Of very many images, the first few are enough to tell.
    assert moved_ssim(torch.cat([plain[:32], plain[32:].flip(2)]), plain)[0] == pytest.approx(1)


@pytest.mark.parametrize("side", [8, 16])
def test_small_images_are_moved_by_an_eighth_of_their_side(side: int) -> None:
    plain = noise(0, 2, 3, side, side).mul(255).to(torch.uint8)
    reach = side // 8
    assert moved_ssim(torch.roll(plain, (reach, -reach), (2, 3)), plain) == (pytest.approx(1), reach, -reach)
    assert moved_ssim(torch.roll(plain, reach + 1, 2), plain)[0] < 0.5


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 5),
    height=st.integers(8, 33),
    width=st.integers(8, 33),
    down=st.integers(-3, 3),
    right=st.integers(-3, 3),
    share=st.floats(0, 1),
    coarse=st.booleans(),
    seed=st.integers(0, 999),
)
def test_the_best_move_and_its_ssim_are_those_of_comparing_window_by_window(
    count: int, height: int, width: int, down: int, right: int, share: float, coarse: bool, seed: int
) -> None:
    grid = (4, 5) if coarse else (height, width)
    images = F.interpolate(noise(seed, 2 * count, 3, *grid), (height, width), mode="bilinear")
    plain, other = torch.split(images.mul(255).to(torch.uint8), count)
    protected = (share * torch.roll(plain, (down, right), (2, 3)) + (1 - share) * other).to(torch.uint8)

    reach = min(3, min(height, width) // 8)
    sides = height - 2 * reach, width - 2 * reach
    middle = plain[:, :, reach:, reach:][:, :, : sides[0], : sides[1]]
    alike = {}
    for way in itertools.product(range(-reach, reach + 1), repeat=2):
        window = protected[:, :, reach + way[0] :, reach + way[1] :][:, :, : sides[0], : sides[1]]
        of_each = structural_similarity_index_measure(
            window.double() / 255, middle.double() / 255, reduction="none", data_range=1.0
        )
        alike[way] = torch.as_tensor(of_each).median().item()

    found, *found_way = moved_ssim(protected, plain)
    best = max(alike.values())
    assert found == pytest.approx(alike[tuple(found_way)], abs=1e-5)
    if found_way == [0, 0]:
        assert best - found < 0.05 + 1e-5
    else:
        assert found == pytest.approx(best, abs=1e-5)
        assert found - alike[0, 0] > 0.05 - 1e-5


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (7, 3, 32, 32), (2, 3, 6, 40)])
def test_ssim_is_that_of_torchmetrics(shape: tuple[int, ...]) -> None:
    plain = noise(6, *shape)
    estimate = (plain + noise(7, *shape)) / 2
    expected = structural_similarity_index_measure(estimate.double(), plain.double(), reduction="none", data_range=1.0)
    assert torch.allclose(ssim(estimate, plain).double(), torch.as_tensor(expected), atol=1e-6)


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
