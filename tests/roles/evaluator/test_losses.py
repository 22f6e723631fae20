from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.attack import ItnConfig
from roles.common.config.user import FeaturesConfig
from roles.common.data import ImageStore
from roles.common.features import Features
from roles.common.images import to_unit
from roles.common.unet import UNet
from roles.common.weights import cpu_state
from roles.evaluator.itn import Pairs, train_itn
from roles.evaluator.losses import loss_of, selecting_loss_of
from roles.evaluator.measures import ssim

PHI = FeaturesConfig(layer="relu1_2")


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    estimates, plain = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return estimates, plain


def named(small_itn: ItnConfig, loss: str) -> ItnConfig:
    features = PHI.model_dump() if loss == "perceptual" else None
    return ItnConfig.model_validate(small_itn.model_dump() | {"loss": loss, "features": features})


def test_each_loss_is_what_it_is_called(
    small_itn: ItnConfig, compute: Compute, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    estimates, plain = images
    mse, phi = F.mse_loss(estimates, plain), Features(PHI)
    expected = {
        "mse": mse,
        "l1": (estimates - plain).abs().mean(),
        "ssim": 1 - ssim(estimates, plain).mean() + mse,
        "perceptual": (phi(estimates) - phi(plain)).square().mean() + mse,
    }
    for loss, value in expected.items():
        config = named(small_itn, loss)
        assert loss_of(config, compute)(estimates, plain).item() == pytest.approx(value.item(), rel=1e-5), loss
        selecting = mse if loss == "l1" else value
        assert selecting_loss_of(config, compute)(estimates, plain).item() == pytest.approx(selecting.item(), rel=1e-5)


def test_the_gradient_of_ssim_is_that_of_its_values(images: tuple[torch.Tensor, torch.Tensor]) -> None:
    estimates, plain = (each[:1].double() for each in images)
    assert torch.autograd.gradcheck(lambda x: ssim(x, plain), estimates.requires_grad_())


@pytest.mark.parametrize("loss", ["ssim", "perceptual"])
def test_the_weights_with_the_best_loss_of_that_kind_are_returned(
    loss: str, small_itn: ItnConfig, store: ImageStore, compute: Compute
) -> None:
    plain, held_out = store.images("train")[:32], store.images("validation")[:8]
    # It has learned to leave images as they are, as held-out pairs are, and is to learn their negatives: the better it
    # gets at these, the worse it does on held-out pairs.
    recipe = small_itn.training.model_copy(update={"epochs": 20})
    before = small_itn.model_copy(update={"training": recipe})
    learned, _ = train_itn(before, Pairs(plain, plain, held_out, held_out), compute, seed=0, flip=False)
    config, pairs = named(small_itn, loss), Pairs(255 - plain, plain, held_out, held_out)

    def lost(network: UNet) -> float:
        with torch.no_grad():
            return loss_of(config, compute)(network(to_unit(held_out)), to_unit(held_out)).item()

    itn, curve = train_itn(config, pairs, compute, seed=0, flip=False, start=cpu_state(learned))
    losses = [lost(learned), *(row["validation_loss"] for row in curve)]
    assert losses[-1] > min(losses)
    assert lost(itn) == pytest.approx(min(losses), rel=1e-4)


def test_features_are_for_the_perceptual_loss_and_it_needs_them(small_itn: ItnConfig) -> None:
    with pytest.raises(ValidationError, match="loss perceptual needs features, such as"):
        ItnConfig.model_validate(small_itn.model_dump() | {"loss": "perceptual"})
    with pytest.raises(ValidationError, match="loss ssim has no use for features"):
        ItnConfig.model_validate(small_itn.model_dump() | {"loss": "ssim", "features": {}})


def test_features_that_cannot_be_had_are_named(small_itn: ItnConfig, compute: Compute, tmp_path: Path) -> None:
    features = {"weights": str(tmp_path / "phi.safetensors")}
    config = ItnConfig.model_validate(small_itn.model_dump() | {"loss": "perceptual", "features": features})
    with pytest.raises(ValueError, match="no such weights file"):
        loss_of(config, compute)
