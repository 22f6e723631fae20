"""The attacker of a run: what it has been given, and what it does with it (Section III-D)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from roles.common.compute import Compute
from roles.common.config.attack import AttackConfig, ItnConfig
from roles.common.config.data import Split
from roles.common.data import ImageStore
from roles.common.exchange import PSI, Classify, ExchangeError, Predictions, Work, expect
from roles.common.fitting import Progress
from roles.common.images import to_bitmap
from roles.common.protection import Protect, without_noise
from roles.common.seeds import generator
from roles.common.unet import UNet
from roles.common.weights import State
from roles.evaluator.baselines import class_means, mean_image
from roles.evaluator.itn import Pairs, train_itn

_CLASSIFY_BATCH = 500
Labels = Callable[[Split], Tensor]
"""From a split to the labels of all its images, int64 ``(N,)``."""


@dataclass(frozen=True, eq=False)
class Attacker:
    """Whoever attacks the protections of a run: all of them face the same images, labels and random streams.

    It protects images of its own, trains on these pairs, and applies the inverse network to protected test images. An
    h_theta is public; of a key, that is an attacker for whom images of its choice were encrypted, and what an inverse
    network learns from them is less than what a look at the key's algebra would give it.
    """

    store: ImageStore
    labels: Labels | None
    """None where the run's config gives an evaluator none."""
    config: AttackConfig
    compute: Compute
    seed: int
    """Of all attacks of the run."""
    progress: Progress
    judge: int | None = None
    """In place of a user's number, the provider's classifier that is not psi and says what estimates show; None where
    it has psi alone."""

    def ids(self, split: Split, count: int | None = None) -> Tensor:
        """Return which images of a split it has, int64 ``(count,)``: in random order, by default all.

        Raises:
            ValueError: there are fewer.
        """
        order = torch.randperm(self.store.counts[split], generator=generator(self.seed, "attacker", split))
        return order[: self._checked(split, count, "pairs")]

    @cached_property
    def known(self) -> tuple[Tensor, Tensor]:
        """Its train images, uint8 ``(M, 3, H, W)``, and their positions in the train set, int64 ``(M,)``."""
        ids = self.ids("train", self.config.pairs)
        return self.store.images("train")[ids], ids

    @cached_property
    def test_images(self) -> tuple[Tensor, Tensor]:
        """The test images that are attacked, uint8 ``(N, 3, H, W)``, and their positions, int64 ``(N,)``."""
        count = self._checked("test", self.config.test_images, "test_images")
        return self.store.images("test")[:count], torch.arange(count)

    def _checked(self, split: Split, count: int | None, name: str) -> int:
        available = self.store.counts[split]
        if count is not None and count > available:
            raise ValueError(f"attack.{name} is {count}, but the {split} split has only {available} images")
        return available if count is None else count

    def validation_count(self, pairs: int) -> int:
        """Return how many validation images it selects its epoch by, given how many ``pairs`` it has.

        A ninth, as the paper's 5,000 validation images to 45,000; more would be knowledge that ``pairs`` denies.
        """
        return min(max(2, pairs // 9), self.store.counts["validation"])

    @cached_property
    def mean_image(self) -> Tensor:
        """The mean of its train images, float32 ``(3, H, W)`` in [0, 1]."""
        return mean_image(self.known[0])

    def guesses(self, count: int) -> dict[str, Tensor]:
        """Return the trivial estimates of the first ``count`` test images by name, uint8 ``(count, 3, H, W)``.

        They are ``mean_image``, the mean of all train images, and, where it has labels, ``class_mean``, their mean in
        the true class: all that the best protection may give away. They know more than an attacker of a few pairs or of
        a user whose classes are predicted wrongly, and are the same for all users, so that these compare.
        """
        guesses = {"mean_image": _train_means(self.store.folder, None).expand(count, -1, -1, -1)}
        if self.labels is not None:
            means = _train_means(self.store.folder, self.labels)
            guesses["class_mean"] = means[self.labels("test")[:count]]
        return guesses

    def classes(self, count: int) -> Tensor:
        """Return the classes of the first ``count`` test images as far as it knows, int64; without labels all 0."""
        return torch.zeros(count, dtype=torch.int64) if self.labels is None else self.labels("test")[:count]

    def accuracy(self, predicted: Tensor) -> float | None:
        """Return the share of the first test images whose ``predicted`` label, int64 ``(N,)``, is the true one."""
        if self.labels is None:
            return None
        return int((predicted == self.labels("test")[: len(predicted)]).sum()) / len(predicted)

    def classify(self, images: Tensor, key: str, state: State, user: int = PSI) -> Work[Tensor]:
        """Return the labels that the provider predicts for uint8 ``(N, 3, H, W)``, int64 ``(N,)``.

        Args:
            key: where in ``state`` those known so far are.
            user: whose own classifier is asked; by default psi.

        Raises:
            ExchangeError: the provider's answer is unusable.
        """
        known, classes = state.get(key, torch.empty(0, dtype=torch.int64)), len(self.store.classes)
        while len(known) < len(images):
            batch = images[len(known) : len(known) + _CLASSIFY_BATCH]
            labels = expect((yield Classify(batch, user)), Predictions).labels
            if labels.dtype != torch.int64 or labels.shape != (len(batch),):
                got = f"{labels.dtype} {tuple(labels.shape)}"
                raise ExchangeError(f"labels are {got}, expected torch.int64 ({len(batch)},)")
            lowest, highest = (value.item() for value in labels.aminmax())
            if lowest < 0 or highest >= classes:
                raise ExchangeError(f"labels are {lowest} to {highest}, expected 0 to {classes - 1}")
            known = state[key] = torch.cat([known, labels])
        return known

    def recognised(self, images: Tensor, key: str, state: State) -> Work[float | None]:
        """Return the share of images, uint8 ``(N, 3, H, W)``, that the judge takes for the first test images' labels.

        Estimates that psi classifies well may be of use to psi alone, which h_theta was trained against. Images that
        repeat, as guesses do, are asked about once.

        Args:
            key: where in ``state`` the share is kept, and what is known on the way to it.

        Returns:
            None without a judge or labels: nobody is asked.

        Raises:
            ExchangeError: the provider's answer is unusable.
        """
        if self.judge is None or self.labels is None:
            return None
        if key not in state:
            distinct, number = torch.unique(images, dim=0, return_inverse=True)
            predicted = yield from self.classify(distinct, f"{key}/labels", state, self.judge)
            state[key] = torch.tensor(self.accuracy(predicted[number]), dtype=torch.float64)
            del state[f"{key}/labels"]
        return float(state[key])

    def inverse_network(
        self, itn: ItnConfig, protect: Protect, *, keyed: bool = False, pairs: int | None = None
    ) -> tuple[UNet, list[dict[str, float]]]:
        """Train an inverse network against ``protect``, on pairs that it makes itself; see :func:`train_itn`.

        Args:
            keyed: whether a key protects. It belongs to places in the image: the mirror image of an encrypted one is
                encrypted with another key, and such pairs are not trained on.
            pairs: how many of its train images it takes; by default all.

        Raises:
            ValueError: more pairs are asked for than there are train images, or it diverged.
        """
        plain, ids = (each[:pairs] for each in self.known)
        held_out = self.ids("validation", self.validation_count(len(plain)))
        validation = self.store.images("validation")[held_out]
        transform, noise = without_noise(protect)
        made = Pairs(transform(plain, "train", ids), plain, protect(validation, "validation", held_out), validation)
        mirrors = self.config.flip and itn.mirrors == "image"
        mirrored = transform(plain.flip(3), "train", ids) if mirrors else None
        flip = self.config.flip and (mirrors or not keyed)
        return train_itn(
            itn,
            made,
            self.compute,
            self.seed,
            flip=flip,
            mirrored=mirrored,
            noise=noise,
            progress=self.progress,
        )


@lru_cache(maxsize=4)
def _train_means(folder: Path, labels: Labels | None) -> Tensor:
    """Return the means of all train images of a store by class, or of all together, uint8 ``(classes, 3, H, W)``.

    All attacks of a process share them: whoever gives ``labels`` gives the same function every time.
    """
    store = ImageStore(folder)
    images = store.images("train")
    if labels is None:
        return to_bitmap(mean_image(images)).unsqueeze(0)
    return to_bitmap(class_means(images, labels("train"), len(store.classes)))
