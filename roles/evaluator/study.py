"""What a study is: questions about several users at once, in parts that evaluators work on side by side.

A study is one class in one file of ``studies/``: its options are its fields, its parts are the pieces of work, and what
it finds are the rows of a table. ``studies/__init__.py`` names it.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from roles.common.compute import Compute
from roles.common.data import ImageStore, Split
from roles.common.exchange import PSI, Published, Theta, Work, expect
from roles.common.images import to_bitmap
from roles.common.recipes import Frozen
from roles.common.weights import State
from roles.evaluator.attack import AttackConfig, Protect, attacker_ids, class_mean_images, classify
from roles.evaluator.baselines import mean_image
from roles.evaluator.itn import ItnConfig, Progress
from roles.evaluator.measures import psnr, ssim

Row = dict[str, str | int | float]
Findings = list[Row]
"""What one part of a study has found: rows of its table."""

RECONSTRUCTION_COLUMNS = {
    "psnr": "median PSNR of the estimates over the test images, in dB",
    "ssim": "median SSIM of the same",
    "protected_psnr": "median PSNR of the protected images themselves, which nothing was done to",
    "protected_ssim": "median SSIM of the same",
    "class_mean_psnr": "median PSNR of the trivial guess: the mean image of the class predicted for x_hat",
    "class_mean_ssim": "median SSIM of the same",
    "mean_image_psnr": "median PSNR of the guess without a label: the mean of the attacker's train images",
    "mean_image_ssim": "median SSIM of the same",
    "gain_psnr": "psnr - class_mean_psnr or mean_image_psnr, whichever is higher",
    "gain_ssim": "ssim - class_mean_ssim or mean_image_ssim, whichever is higher",
}
"""The columns that :meth:`Lab.measured` fills."""


@dataclass(frozen=True)
class HeatMap:
    """A picture of a table: ``value`` as a colour at ``x`` and ``y``, which are columns of users."""

    x: str
    y: str
    value: str
    title: str


@dataclass(frozen=True)
class Lines:
    """A picture of a table: the mean of ``value`` against ``x``, a line for each value of ``by``."""

    x: str
    value: str
    by: str
    title: str


@dataclass(frozen=True, eq=False)
class Lab:
    """What a part of a study works with.

    ``state`` holds what it has found so far: with the same tensors in it, the same part started anew asks the same
    request again (:mod:`roles.common.exchange`).
    """

    store: ImageStore
    attack: AttackConfig
    """How the run attacks; studies take its pairs and its last inverse network."""
    compute: Compute
    seed: int
    """Of all attacks of the run."""
    protection: Callable[[int, State], Protect]
    """From a user and its published theta to what it does to images."""
    network: Callable[[int, State], nn.Module | None]
    """The same as a network; None where the user publishes none."""
    others: Sequence[str]
    """Names of the provider's other classifiers, in their order."""
    keyed: Callable[[int], bool]
    """Whether a user's protection is a key, and its images are classified by a classifier of its own."""
    state: State
    progress: Progress

    @property
    def itn(self) -> ItnConfig:
        """The inverse network that studies train: the last of ``attack.itns``."""
        return self.attack.itns[-1]

    @cached_property
    def mean_image(self) -> Tensor:
        """The mean of the attacker's train images, float32 ``(3, H, W)`` in [0, 1]."""
        return mean_image(self.store.images("train")[attacker_ids(self.store, "train", self.attack.pairs, self.seed)])

    @cached_property
    def _class_means(self) -> Tensor:
        return class_mean_images(self.store, self.attack, self.seed)

    def theta_of(self, user: int) -> Work[State]:
        """Ask for the theta that a user has published."""
        return expect((yield Published(user)), Theta).theta

    def protected(self, user: int, split: Split, ids: Tensor) -> Work[Tensor]:
        """Return images of a split as a user protects them, uint8, kept in the state until :meth:`forget`.

        Args:
            ids: positions in the split, int64 ``(N,)``.
        """
        key = f"protected/{user}/{split}"
        if key not in self.state:
            protect = self.protection(user, (yield from self.theta_of(user)))
            self.state[key] = protect(self.store.images(split)[ids], split, ids)
        return self.state[key]

    def predicted(self, user: int, protected: Tensor) -> Work[Tensor]:
        """Return the labels that are predicted for protected test images of a user, kept in the state as well."""
        whose = user if self.keyed(user) else PSI
        return classify(protected, f"labels/{user}", self.state, len(self.store.classes), whose)

    def row(self, key: str, find: Callable[[], Work[Row]]) -> Work[Row]:
        """Return a row of the table, from the state if it was found before."""
        name = f"row/{key}"
        if name not in self.state:
            text = json.dumps((yield from find()))
            self.state[name] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        row: Row = json.loads(self.state[name].numpy().tobytes())
        return row

    def mirrors_pairs(self, user: int) -> bool:
        """Return whether pairs that a user has made are mirrored when the inverse network is trained on them."""
        return self.attack.flip and self.itn.mirrors == "pair" and not self.keyed(user)

    def forget(self, user: int) -> None:
        """Drop what :meth:`protected` and :meth:`predicted` keep of a user."""
        for key in [key for key in self.state if key == f"labels/{user}" or key.startswith(f"protected/{user}/")]:
            del self.state[key]

    def test_images(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first test images, uint8, and their positions; fewer where there are fewer."""
        plain = self.store.images("test")[:count]
        return plain, torch.arange(len(plain))

    def measured(self, estimates: Tensor, protected: Tensor, plain: Tensor, labels: Tensor) -> Row:
        """Return how near estimates come to plain test images, and how near what must be beaten does.

        Args:
            estimates: uint8 ``(N, 3, H, W)``.
            protected: uint8 ``(N, 3, H, W)``, what they were made of.
            plain: uint8 ``(N, 3, H, W)``.
            labels: int64 ``(N,)``, predicted for the protected images.
        """
        shown = {
            "": estimates,
            "protected_": protected,
            "class_mean_": self._class_means[labels],
            "mean_image_": to_bitmap(self.mean_image).expand_as(plain),
        }
        row: Row = {}
        for name, images in shown.items():
            row[f"{name}psnr"] = float(psnr(images, plain).median())
            row[f"{name}ssim"] = float(ssim(images, plain).median())
        for measure in ("psnr", "ssim"):
            # Where classes are predicted wrongly, an attack that learns the mean image gains on the class mean alone.
            guesses = (float(row[f"{guess}_{measure}"]) for guess in ("class_mean", "mean_image"))
            row[f"gain_{measure}"] = float(row[measure]) - max(guesses)
        return row


class Study(Frozen, ABC):
    """A question about the users of a run, asked when all of them have published.

    Subclasses have a ``kind: Literal["..."]``, by which a config chooses them and files call them.
    """

    columns: ClassVar[Mapping[str, str]]
    """The table's columns, and what is in them."""
    figure: ClassVar[HeatMap | Lines]
    """How the table is drawn."""

    @abstractmethod
    def parts(self, users: Sequence[int], seed: int) -> list[str]:
        """Return the pieces of work, by names of letters, digits and hyphens.

        Args:
            users: who has published.
            seed: the run's seed.
        """

    @abstractmethod
    def work(self, part: str, users: Sequence[int], lab: Lab) -> Work[Findings]:
        """Do one piece."""

    @abstractmethod
    def conclusion(self, rows: Sequence[Row]) -> str:
        """Say in a sentence or two what the rows of all parts, at least one, amount to."""
