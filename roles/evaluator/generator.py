"""A generative prior: a small network that an attacker has taught what images of its own kind look like."""

from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.batches import Batches
from roles.common.config.recipe import Recipe
from roles.common.fitting import fit
from roles.common.images import to_unit
from roles.common.seeds import derived_seed, generator
from roles.evaluator.attacker import Attacker

_WIDTH = 32
_VARIANCE = 0.05**2
"""Of a pixel about what the generator makes of z: what an error of the generator costs, against an unlikely z."""
_RECIPE = Recipe(epochs=1, batch_size=64, optimiser="adam", lr=2e-3, weight_decay=0, schedule="cosine")
_VALIDATION = 500
"""Most validation images that the epoch is selected by."""


class Generator(nn.Module):
    """G: z, float32 ``(N, latent)``, to images, float32 ``(N, 3, side, side)`` in [0, 1]; z is standard normal."""

    def __init__(self, latent: int, side: int) -> None:
        super().__init__()
        self.latent, self.side = latent, side
        self._base = -(-side // 4)
        self.begin = nn.Linear(latent, 2 * _WIDTH * self._base**2)
        self.grow = nn.ModuleList([_layer(2 * _WIDTH, _WIDTH), _layer(_WIDTH, _WIDTH // 2)])
        self.finish = nn.Conv2d(_WIDTH // 2, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Return the images of ``z``."""
        features = self.begin(z).view(len(z), -1, self._base, self._base)
        for layer in self.grow:
            features = layer(F.interpolate(features, scale_factor=2, mode="nearest"))
        images: Tensor = self.finish(features)
        return images[..., : self.side, : self.side].float().sigmoid()


class _Autoencoder(nn.Module):
    """A variational autoencoder, whose second half is the generator (Kingma and Welling, 2014, arXiv:1312.6114)."""

    def __init__(self, latent: int, side: int) -> None:
        super().__init__()
        last = -(-side // 4)
        self.encode = nn.Sequential(_layer(3, _WIDTH, stride=2), _layer(_WIDTH, 2 * _WIDTH, stride=2), nn.Flatten())
        self.moments = nn.Linear(2 * _WIDTH * last**2, 2 * latent)
        self.generator = Generator(latent, side)

    def loss(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return minus the evidence lower bound, but for a constant: a mean over images, in nats."""
        mean, log_variance = self.moments(self.encode(images)).float().chunk(2, dim=1)
        estimates = self.generator(mean + noise * (log_variance / 2).exp())
        errors = (estimates - images).square().sum(dim=(1, 2, 3)) / (2 * _VARIANCE)
        surprise = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
        loss: Tensor = (errors + surprise).mean()
        return loss


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def trained_generator(attacker: Attacker, latent: int, steps: int) -> Generator:
    """Return a generator of images such as the attacker's own train images, frozen, in eval mode.

    It depends on no user, so a process trains it once for all of them. Mirrored images are among those that it is
    trained on where ``attack.flip`` says so.

    Args:
        latent: how many numbers z has.
        steps: of training.

    Raises:
        ValueError: there are fewer train images than ``attack.pairs``, or the training diverged.
    """
    config, compute = attacker.config, attacker.compute
    return _trained(
        _Wanted(
            attacker.store.fingerprint,
            config.pairs,
            config.flip,
            attacker.seed,
            latent,
            steps,
            f"{compute.device} {compute.precision}",
            attacker,
        )
    )


@dataclass(frozen=True)
class _Wanted:
    """All that decides what a generator is, and who trains it."""

    fingerprint: str
    pairs: int | None
    flip: bool
    seed: int
    latent: int
    steps: int
    machine: str
    attacker: Attacker = field(compare=False)


@lru_cache(maxsize=2)
def _trained(wanted: _Wanted) -> Generator:
    attacker, seed = wanted.attacker, wanted.seed
    compute, side = attacker.compute, attacker.store.side
    known = attacker.known[0]
    images = (torch.cat([known, known.flip(3)]) if wanted.flip else known).to(compute.device)
    count = min(attacker.validation_count(len(known)), _VALIDATION)
    held_out = compute.batch(to_unit(attacker.store.images("validation")[attacker.ids("validation", count)]))
    torch.manual_seed(derived_seed(seed, "generator"))
    autoencoder = compute.module(_Autoencoder(wanted.latent, side))
    batches = Batches(torch.arange(len(images)), _RECIPE.batch_size, derived_seed(seed, "generator", "order"))

    def noise(*scope: str | int, count: int) -> Tensor:
        return torch.randn(count, wanted.latent, generator=generator(seed, "generator", "noise", *scope))

    def draw(number: int, ids: Tensor) -> tuple[Tensor, ...]:
        return ids, noise(number, count=len(ids))

    def loss_of(ids: Tensor, drawn: Tensor) -> Tensor:
        with compute.autocast():
            loss: Tensor = autoencoder.loss(compute.batch(to_unit(images[ids])), drawn.to(compute.device))
        return loss

    def validate() -> dict[str, float]:
        autoencoder.eval()
        with torch.no_grad(), compute.autocast():
            loss = autoencoder.loss(held_out, noise("validation", count=len(held_out)).to(compute.device))
        return {"validation_loss": loss.item()}

    recipe = _RECIPE.model_copy(update={"epochs": wanted.steps / batches.per_epoch})
    names = {"name": "the generator", "rate": "the number of steps"}
    fit(autoencoder, recipe, batches, draw, loss_of, validate, attacker.progress, compute, **names)
    return autoencoder.generator.eval().requires_grad_(False)
