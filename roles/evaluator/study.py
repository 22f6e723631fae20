"""What a study is: questions about several users at once, in parts that evaluators work on side by side.

A study is one class in one file of ``studies/``: its options are its fields, its parts are the pieces of work, and what
it finds are the rows of a table. ``studies/__init__.py`` names it.
"""

import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from roles.common.config.attack import ItnConfig, Users
from roles.common.config.base import Frozen
from roles.common.config.data import Split
from roles.common.config.provider import DefenceConfig
from roles.common.exchange import ImageIds, Published, Theta, TrainingImages, Work, expect
from roles.common.protection import Protect, without_noise
from roles.common.unet import UNet
from roles.common.weights import State, digest
from roles.evaluator.attacker import Attacker
from roles.evaluator.itn import Pairs, train_itn
from roles.evaluator.measures import psnr, ssim
from roles.evaluator.nearest import retrieved
from roles.evaluator.results import Findings, Row

HONEST = "honest"
"""How a provider that does not hijack has treated a user (:attr:`StudyContext.hijacked`)."""
RECONSTRUCTION_COLUMNS = {
    "psnr": "median PSNR of the estimates over the test images, in dB",
    "ssim": "median SSIM of the same",
    "protected_psnr": "median PSNR of the protected images themselves, which nothing was done to",
    "protected_ssim": "median SSIM of the same",
    "class_mean_psnr": "median PSNR of the trivial guess: the mean of all train images of the true class",
    "class_mean_ssim": "median SSIM of the same",
    "mean_image_psnr": "median PSNR of the guess without a label: the mean of all train images",
    "mean_image_ssim": "median SSIM of the same",
    "gain_psnr": "psnr - class_mean_psnr or mean_image_psnr, whichever is higher",
    "gain_ssim": "ssim - class_mean_ssim or mean_image_ssim, whichever is higher",
    "recognised": "share of the estimates that a classifier which is not psi takes for the true class; empty where the "
    "provider has psi alone",
    "retrieved": "share of the estimates to which, of the first 1,000 test images at most, their own is the nearest",
    "protected_recognised": "share of the protected images that this classifier takes for the true class",
    "protected_retrieved": "share of the protected images whose own plain image is the nearest",
    "class_mean_recognised": "share of the class means that it takes for their class: what a label alone gives",
    "class_mean_retrieved": "share of images that are the nearest to the mean of their class",
}
"""The columns that :meth:`StudyContext.measured` fills; those of class_mean where the evaluator has labels, and those
of recognition where it has labels and a judge (:class:`Attacker`)."""


@dataclass(frozen=True)
class HeatMap:
    """A picture of a table: ``value`` as a colour at ``x`` and ``y``, which are columns of users."""

    x: str
    y: str
    value: str
    title: str


@dataclass(frozen=True)
class Reference:
    """A line that values are read against: at each place, the median over rows of the highest of ``columns``.

    Columns that a table lacks are left out, and the line is where it has none of them.
    """

    label: str
    columns: tuple[str, ...]
    each: bool = False
    """Whether each value of ``by`` has its own."""


RECONSTRUCTION_REFERENCES = (
    Reference("trivial guess", ("class_mean_ssim", "mean_image_ssim")),
    Reference("protected image", ("protected_ssim",)),
    Reference("ITN of the run", ("itn_ssim",)),
)
"""What the SSIM of estimates is read against; reports add ``itn_ssim``, of what the run's own attack has found."""


@dataclass(frozen=True)
class Lines:
    """A picture of a table: the mean of ``value`` against ``x``, a line for each value of ``by``."""

    x: str
    value: str
    by: str
    title: str
    share: bool = False
    """Whether values are shares in [0, 1], which are drawn in percent."""
    references: tuple[Reference, ...] = ()


@dataclass(frozen=True, eq=False)
class StudyContext:
    """What a part of a study works with."""

    attacker: Attacker
    protection: Callable[[int, State], Protect]
    """From a user and its published theta to what it does to images."""
    network: Callable[[int, State], nn.Module | None]
    """The same as a network; None where the user publishes none."""
    others: Sequence[str]
    """Names of the provider's other classifiers, in their order."""
    keyed: Callable[[int], bool]
    """Whether a user's protection is a key, and its images are classified by a classifier of its own."""
    state: State
    """What the part has found so far: with the same tensors in it, the same part started anew asks the same request
    again (:mod:`roles.common.exchange`)."""
    terms: DefenceConfig = field(default_factory=DefenceConfig)
    """On which terms the provider gives gradients away; they are public."""
    hijacked: Callable[[int], str] = lambda user: HONEST
    """How the provider has treated a user: :data:`HONEST`, or the hijack in a few words."""
    pictures: State = field(default_factory=dict)
    """What :meth:`show` has been given."""

    def show(self, **images: Tensor) -> None:
        """Have the first images kept as pictures, ``attack.pictures`` of each uint8 ``(N, 3, H, W)``, by name."""
        count = self.attacker.config.pictures
        self.pictures.update({name: shown[:count].contiguous() for name, shown in images.items()})

    @property
    def itn(self) -> ItnConfig:
        """The inverse network that studies train: the last of ``attack.itns``."""
        return self.attacker.config.itns[-1]

    def theta_of(self, user: int) -> Work[State]:
        """Ask for the theta that a user has published."""
        return expect((yield Published(user)), Theta).theta

    def protected(self, user: int, split: Split, ids: Tensor) -> Work[Tensor]:
        """Return images of a split as a user protects them, uint8 ``(N, 3, H, W)``, kept in the state as well."""
        key = f"protected/{user}/{split}"
        if key not in self.state:
            protect = self.protection(user, (yield from self.theta_of(user)))
            self.state[key] = protect(self.attacker.store.images(split)[ids], split, ids)
        return self.state[key]

    def without_noise(self, user: int, split: Split, ids: Tensor) -> Work[tuple[Tensor, Tensor]]:
        """Return images as a user's public h_theta makes them, and the noise that its protection adds to each.

        This is what an attacker has of its own images: the user's noise follows from a secret. Kept in the state.

        Returns:
            Images uint8 ``(N, 3, H, W)``, and the standard deviations of the noise, of values in [0, 1], float32
            ``(N,)``; as :meth:`protected`, and zeros, where the user adds none.
        """
        keys = [f"protected/{user}/{split}/{part}" for part in ("without noise", "noise")]
        if keys[0] not in self.state:
            transform, noise = without_noise(self.protection(user, (yield from self.theta_of(user))))
            made = transform(self.attacker.store.images(split)[ids], split, ids), torch.full((len(ids),), noise)
            self.state.update(zip(keys, made, strict=True))
        return self.state[keys[0]], self.state[keys[1]]

    def forget(self, user: int) -> None:
        """Drop what :meth:`protected` and :meth:`without_noise` keep of a user."""
        for key in [key for key in self.state if key.startswith(f"protected/{user}/")]:
            del self.state[key]

    def ids_of(self, user: int) -> Work[Tensor]:
        """Return which train images are a user's X', int64 ``(M,)``; kept in the state as well."""
        key = f"x-prime/{user}"
        if key not in self.state:
            self.state[key] = expect((yield TrainingImages(user)), ImageIds).train
        return self.state[key]

    def row(self, key: str, find: Callable[[], Work[Row]]) -> Work[Row]:
        """Return a row of the table, from the state if it was found before."""
        name = f"row/{key}"
        if name not in self.state:
            text = json.dumps((yield from find()))
            self.state[name] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        row: Row = json.loads(self.state[name].numpy().tobytes())
        return row

    def kept(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """Return a tensor from the state, or make it and keep it there: what is long to make is made once."""
        if key not in self.state:
            self.state[key] = make()
        return self.state[key]

    def inverse_network(self, user: int, protect: Protect) -> UNet:
        """Train an inverse network against a user's protection; see :meth:`Attacker.inverse_network`."""
        return self.attacker.inverse_network(self.itn, protect, keyed=self.keyed(user))[0]

    def fit(
        self,
        pairs: Pairs,
        user: int,
        *,
        itn: ItnConfig | None = None,
        start: State | None = None,
        noise: float | Tensor = 0.0,
    ) -> tuple[UNet, list[dict[str, float]]]:
        """Train an inverse network on pairs that a user has made; they are mirrored only as they are.

        Args:
            itn: by default :attr:`itn`.
            start: weights to start from; by default fresh ones.
            noise: what protected images get whenever they are trained on, one for all or for each pair; see
                :func:`train_itn`.
        """
        itn, whose = itn or self.itn, self.attacker
        flip = whose.config.flip and itn.mirrors == "pair" and not self.keyed(user)
        seed, progress = whose.seed, whose.progress
        return train_itn(itn, pairs, whose.compute, seed, flip=flip, start=start, noise=noise, progress=progress)

    def test_images(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the first test images, uint8 ``(count, 3, H, W)`` or fewer, and their positions, int64."""
        plain = self.attacker.store.images("test")[:count]
        return plain, torch.arange(len(plain))

    def measured(self, estimates: Tensor, protected: Tensor, plain: Tensor) -> Work[Row]:
        """Return how near estimates come to the first test images, and how near what must be beaten does.

        It asks the judge what they show. What it says of images is kept by what is in them: the same are asked about
        once. So estimates of a training must be the same again, bit for bit, where a part is started anew: keep them in
        the state until they are measured.

        Args:
            estimates: uint8 ``(N, 3, H, W)``, as all images are.

        Raises:
            ExchangeError: the provider's answer is unusable.
        """
        guesses = self.attacker.guesses(len(plain))
        shown = {"": estimates, "protected_": protected}
        shown |= {f"{name}_": guesses[name] for name in ("class_mean", "mean_image") if name in guesses}
        row: Row = {}
        for prefix, images in shown.items():
            row[f"{prefix}psnr"] = float(psnr(images, plain).median())
            row[f"{prefix}ssim"] = float(ssim(images, plain).median())
        for measure in ("psnr", "ssim"):
            row[f"gain_{measure}"] = float(row[measure]) - max(float(row[f"{name}_{measure}"]) for name in guesses)
        del shown["mean_image_"]
        for prefix, images in shown.items():
            key = f"recognised/{digest({'images': images})}"
            if (share := (yield from self.attacker.recognised(images, key, self.state))) is not None:
                row[f"{prefix}recognised"] = share
            row[f"{prefix}retrieved"] = retrieved(images, plain)
        return row


class Study(Frozen, ABC):
    """A question about the users of a run, asked when all of them have published.

    Subclasses have a ``kind: Literal["..."]``, by which a config chooses them and files call them.
    """

    columns: ClassVar[Mapping[str, str]]
    """The table's columns, and what is in them."""
    figure: ClassVar[HeatMap | Lines]
    """How the table is drawn."""
    seen_in_training: ClassVar[bool] = False
    """Whether it is about what was noted while users trained, so that no finished run can be asked it any more."""

    users: Users = None
    """Users that it is about; by default all who have published."""

    def among(self, published: Sequence[int]) -> list[int]:
        """Return those of the users that have ``published`` that it is about."""
        return [user for user in published if self.users is None or user in self.users]

    def parts(self, users: Sequence[int], seed: int) -> list[str]:
        """Return the pieces of work, named by letters, digits and hyphens: by default one for each who published."""
        return [str(user) for user in users]

    @abstractmethod
    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """Do one piece, given all ``users`` that the study is about.

        Raises:
            ExchangeError: an answer is unusable.
            ValueError: an inverse network diverged, or there are fewer images than it takes.
        """

    @abstractmethod
    def conclusion(self, rows: Sequence[Row]) -> str:
        """Say in a sentence or two what the rows of all parts, at least one, amount to."""


def values_by(rows: Sequence[Row], column: str, value: str) -> dict[str, list[float]]:
    """Return the values of one column by those of another.

    >>> values_by([{"by": "x", "at": 1.0}, {"by": "y", "at": 2.0}, {"by": "x", "at": 3.0}], "by", "at")
    {'x': [1.0, 3.0], 'y': [2.0]}
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        found[str(row[column])].append(float(row[value]))
    return dict(found)
