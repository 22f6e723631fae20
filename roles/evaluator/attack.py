"""The evaluation of one published protection: what it hides, what an attacker gets back, and what must be beaten."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from roles.common.compute import Compute
from roles.common.data import ImageStore, Split
from roles.common.exchange import PSI, Classify, ExchangeError, Predictions, Work, expect
from roles.common.images import to_bitmap
from roles.common.labels import load_labels
from roles.common.recipes import Frozen, Recipe
from roles.common.seeds import generator
from roles.common.transform import apply_network
from roles.common.unet import UNet
from roles.evaluator.baselines import class_means, mean_image
from roles.evaluator.itn import ItnConfig, Progress, train_itn
from roles.evaluator.measures import Lpips, psnr, ssim

_CLASSIFY_BATCH = 500
_CURVE_COLUMNS = ("epoch", "step", "train_loss", "validation_loss")
FR_ATTACK, KEY_ATTACK = "fr_attack", "key_attack"
CIPHER_ATTACKS = {FR_ATTACK: "FR-Attack", KEY_ATTACK: "known pairs"}
"""Attacks on encryption that train no network, and what tables and figures call them."""
_TAKEN_NAMES = ("plain", "protected", *CIPHER_ATTACKS)

Protect = Callable[[Tensor, Split, Tensor], Tensor]
"""A protection that the attacker may use: uint8 images ``(N, 3, H, W)``, their split, and their positions in it, int64
``(N,)``, to protected images of the same form; the same for the same images."""
CipherAttack = Callable[[Tensor], Tensor]
"""An attack that trains no network: protected images, uint8 ``(N, 3, H, W)``, to uint8 estimates of the same shape."""


class AttackConfig(Frozen):
    """How a published protection is attacked and measured."""

    itns: Annotated[tuple[ItnConfig, ...], Field(min_length=1, max_length=5)] = (
        ItnConfig(name="paper", training=Recipe(epochs=200)),
        ItnConfig(
            name="strong",
            mirrors="image",
            training=Recipe(epochs=200, optimiser="adam", lr=1e-3, weight_decay=0, schedule="cosine"),
        ),
    )
    """The paper's inverse network, and one trained as today's practice would: the former may be under-trained, and
    mirrors pairs that h_theta would never give."""
    pairs: Annotated[int, Field(ge=2)] | None = None
    """Train images that the attacker makes pairs from; by default all."""
    test_images: Annotated[int, Field(ge=1)] | None = None
    """Test images that are protected, attacked and measured; by default all."""
    lpips: bool = False
    """Whether to measure LPIPS as well, which needs AlexNet's weights."""
    pictures: Annotated[int, Field(ge=1)] = 8
    """Test images to keep as pictures."""
    flip: bool = True
    """Whether augmentation mirrors images (not for digits); each inverse network says which."""
    blur_sigma: Annotated[float, Field(gt=0)] = 1.5
    """Standard deviation in pixels of the blur that whoever runs the positive control gives to be attacked."""

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        names = [*_TAKEN_NAMES, *(itn.name for itn in self.itns)]
        if len(set(names)) < len(names):
            taken = ", ".join(map(repr, _TAKEN_NAMES))
            raise ValueError(f"itns need names of their own, none of {taken}: they are {names[len(_TAKEN_NAMES) :]}")
        return self


@dataclass(frozen=True, eq=False)
class Measured:
    """How near a set of images comes to the plain test images; tensors are float32 ``(N,)``, one value an image."""

    psnr: Tensor
    """In dB."""
    ssim: Tensor
    lpips: Tensor | None
    """None where it was not asked for."""
    accuracy: float | None
    """Share that the provider classifies as the true test label, in [0, 1]; None for baselines, which it never sees."""


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What the evaluation of one protection gives."""

    protected: Measured
    estimates: dict[str, Measured]
    """By the name of the inverse network, or of the attack on protected images alone."""
    baselines: dict[str, Measured]
    """By name: ``mean_image``, the mean of the attacker's train images, and ``class_mean``, their mean in the class
    that is predicted for the protected image."""
    curves: dict[str, list[dict[str, float]]]
    """By the name of the inverse network; rows as :func:`roles.evaluator.itn.train_itn` gives them."""
    pictures: dict[str, Tensor]
    """uint8 ``(pictures, 3, H, W)`` of the first test images: ``plain``, ``protected``, and each of ``estimates``."""


def evaluate_protection(
    protect: Protect,
    store: ImageStore,
    config: AttackConfig,
    compute: Compute,
    seed: int,
    state: dict[str, Tensor],
    progress: Progress = lambda step, total, loss: None,
    cipher_attacks: Mapping[str, CipherAttack] | None = None,
    *,
    keyed: bool = False,
) -> Work[AttackResult]:
    """Attack ``protect`` with every inverse network and measure what comes back (Section IV-B).

    The attacker protects train images itself, trains on these pairs, and applies the inverse network to protected test
    images. An h_theta is public; of a key, that is an attacker for whom images of its choice were encrypted, and what
    an inverse network learns from them is less than what a look at the key's algebra would give it. Which train images
    depends on ``seed`` alone, so all protections of a run face the same attacker.

    Args:
        protect: the published protection.
        store: train images to make pairs from, validation images to select by, test images to attack.
        config: the inverse networks, and how many images.
        compute: where the inverse networks are trained and applied.
        seed: the run's seed.
        state: what has been done so far, empty at first; filled in place, up to date at every yield. With the same
            tensors in it, another generator yields the same request and trains no finished inverse network again.
        progress: called after every training step of an inverse network, as :func:`train_itn` does.
        cipher_attacks: by name, attacks on the protected test images that train no network.
        keyed: see :func:`inverse_network`.

    Raises:
        ExchangeError: the provider's answer is unusable.
        ValueError: more images are asked for than there are, an inverse network diverged, or LPIPS cannot be had.
    """
    lpips = Lpips(store.side) if config.lpips else None
    plain = store.images("test")[: _checked(store, "test", config.test_images, "test_images")]
    pair_ids = attacker_ids(store, "train", config.pairs, seed)
    classes = len(store.classes)

    if "protected/images" not in state:
        state["protected/images"] = protect(plain, "test", torch.arange(len(plain)))
    protected = state["protected/images"]
    predictions = {"protected": (yield from classify(protected, "protected/labels", state, classes))}
    for itn in config.itns:
        if f"itn/{itn.name}/images" not in state:
            network, curve = inverse_network(itn, protect, store, config, compute, seed, progress, keyed=keyed)
            rows = [[row[column] for column in _CURVE_COLUMNS] for row in curve]
            state[f"itn/{itn.name}/curve"] = torch.tensor(rows, dtype=torch.float64)
            state[f"itn/{itn.name}/images"] = apply_network(network, protected, compute)
    for name, attack in (cipher_attacks or {}).items():
        if f"itn/{name}/images" not in state:
            state[f"itn/{name}/images"] = attack(protected)
    estimated = {
        name: state[f"itn/{name}/images"] for name in (*(itn.name for itn in config.itns), *(cipher_attacks or {}))
    }
    for name, images in estimated.items():
        predictions[name] = yield from classify(images, f"itn/{name}/labels", state, classes)

    labels = load_labels(store.folder, "test")[: len(plain)]

    def measured(images: Tensor, predicted: Tensor | None) -> Measured:
        return Measured(
            psnr=psnr(images, plain),
            ssim=ssim(images, plain),
            lpips=None if lpips is None else lpips(images, plain),
            accuracy=None if predicted is None else int((predicted == labels).sum()) / len(labels),
        )

    known = store.images("train")[pair_ids]
    shown = {"plain": plain, "protected": protected, **estimated}
    return AttackResult(
        protected=measured(protected, predictions["protected"]),
        estimates={name: measured(images, predictions[name]) for name, images in estimated.items()},
        baselines={
            "mean_image": measured(to_bitmap(mean_image(known)).expand_as(plain), None),
            "class_mean": measured(class_mean_images(store, config, seed)[predictions["protected"]], None),
        },
        curves={itn.name: _rows(state[f"itn/{itn.name}/curve"]) for itn in config.itns},
        pictures={name: images[: config.pictures].clone() for name, images in shown.items()},
    )


def inverse_network(
    itn: ItnConfig,
    protect: Protect,
    store: ImageStore,
    config: AttackConfig,
    compute: Compute,
    seed: int,
    progress: Progress = lambda step, total, loss: None,
    *,
    keyed: bool = False,
) -> tuple[UNet, list[dict[str, float]]]:
    """Train an inverse network on pairs that the attacker makes itself; see :func:`train_itn`.

    Args:
        keyed: whether a key protects. It belongs to places in the image: the mirror image of an encrypted one is
            encrypted with another key, and such pairs are not trained on.

    Raises:
        ValueError: more pairs are asked for than there are train images, or it diverged.
    """
    pair_ids = attacker_ids(store, "train", config.pairs, seed)
    plain = store.images("train")[pair_ids]
    validation_ids = attacker_ids(store, "validation", validation_count(len(plain), store), seed)
    validation = store.images("validation")[validation_ids]
    pairs = (protect(plain, "train", pair_ids), plain, protect(validation, "validation", validation_ids), validation)
    protects_mirrored = config.flip and itn.mirrors == "image"
    mirrored = protect(plain.flip(3), "train", pair_ids) if protects_mirrored else None
    flip = config.flip and (protects_mirrored or not keyed)
    return train_itn(itn, *pairs, compute, seed, flip=flip, mirrored=mirrored, progress=progress)


def validation_count(pairs: int, store: ImageStore) -> int:
    """Return how many validation images an attacker with so many pairs selects its epoch by.

    A ninth, as the paper's 5,000 validation images to 45,000; more would be knowledge that ``pairs`` denies.
    """
    return min(max(2, pairs // 9), store.counts["validation"])


def class_mean_images(store: ImageStore, config: AttackConfig, seed: int) -> Tensor:
    """Return the mean of the attacker's train images in each class, uint8 ``(classes, 3, H, W)``.

    Raises:
        ValueError: more pairs are asked for than there are train images.
    """
    ids = attacker_ids(store, "train", config.pairs, seed)
    labels = load_labels(store.folder, "train")[ids]
    return to_bitmap(class_means(store.images("train")[ids], labels, len(store.classes)))


def _rows(curve: Tensor) -> list[dict[str, float]]:
    return [dict(zip(_CURVE_COLUMNS, row, strict=True)) for row in curve.tolist()]


def classify(images: Tensor, key: str, state: dict[str, Tensor], classes: int, user: int = PSI) -> Work[Tensor]:
    """Return the labels that the provider predicts for uint8 ``images``, int64 ``(N,)``.

    Args:
        key: where in ``state`` those known so far are.
        classes: how many classes there are.
        user: whose own classifier is asked; by default psi.

    Raises:
        ExchangeError: the provider's answer is unusable.
    """
    known = state.get(key, torch.empty(0, dtype=torch.int64))
    while len(known) < len(images):
        batch = images[len(known) : len(known) + _CLASSIFY_BATCH]
        labels = expect((yield Classify(batch, user)), Predictions).labels
        if labels.dtype != torch.int64 or labels.shape != (len(batch),):
            got = f"{labels.dtype} {tuple(labels.shape)}"
            raise ExchangeError(f"labels are {got}, expected torch.int64 ({len(batch)},)")
        if not bool(((labels >= 0) & (labels < classes)).all()):
            lowest, highest = labels.aminmax()
            raise ExchangeError(f"labels are {lowest.item()} to {highest.item()}, expected 0 to {classes - 1}")
        known = state[key] = torch.cat([known, labels])
    return known


def attacker_ids(store: ImageStore, split: Split, count: int | None, seed: int) -> Tensor:
    """Return which images of a split an attacker has, in its order: random, and the same for all attackers of a run.

    Args:
        count: how many; None: all.

    Raises:
        ValueError: there are fewer.
    """
    order = torch.randperm(store.counts[split], generator=generator(seed, "attacker", split))
    return order[: _checked(store, split, count, "pairs")]


def _checked(store: ImageStore, split: Split, count: int | None, name: str) -> int:
    available = store.counts[split]
    if count is not None and count > available:
        raise ValueError(f"attack.{name} is {count}, but the {split} split has only {available} images")
    return available if count is None else count
