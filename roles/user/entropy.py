"""A user that leaves little beside a few codes: protected images are to be alike within clusters of their own."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.user import EntropyConfig
from roles.common.seeds import generator
from roles.common.weights import State
from roles.user.features import OwnLoss

_KEPT = 0.9
"""Of what is known of a cluster, when one more image is found to be of it."""
_KEPT_SHARE = 0.99
"""Of how large a share of images a cluster is known to have, at each step."""
_FEWEST = 0.2
"""Share of images from which on a cluster is kept, as a part of an equal share: one below it starts anew elsewhere."""
_LEAST_VARIANCE = 1e-6


class Entropy(OwnLoss):
    """The user's own loss ``weight * mean of 1/2 log(variance of x_hat within its cluster)``, over all its values.

    Users have no labels. Clusters are those of protected images themselves: their means, and their variances value by
    value, follow the images that come nearest to them from step to step. What L_class needs different moves images
    from one cluster to another; whatever else differs, and could be undone, is drawn to the mean of the cluster, the
    harder the less of it is left, down to the variance of the noise on it. For Gaussian noise of that size the loss is,
    but for a constant, a bound on the information of x_hat about x that its cluster does not hold, whatever attacks it.

    For ``warmup`` steps nothing is asked for, then clusters are drawn from a batch, or from the one after it where that
    is the short rest of an epoch, and over twice as many steps the weight rises to its value.

    Args:
        seed: which images clusters begin with follows from it.

    Raises:
        ValueError: no batch has as many images as there are clusters.

    Source: Xia et al., Theoretical Insights in Model Inversion Robustness and Conditional Entropy Maximization for
    Collaborative Inference Systems, CVPR 2025 (arXiv:2503.00383): log-variances within a Gaussian mixture. There the
    mixtures are of classes, or are fitted once an epoch; here they follow every step.
    """

    alpha = 0.0
    # What is asked for grows in training, so that epochs do not compare.
    selects = False
    # Clusters are drawn in one step and not in others.
    recorded = False

    def __init__(self, config: EntropyConfig, seed: int, compute: Compute) -> None:
        self._config, self._seed, self._device = config, seed, compute.device
        self._means = self._variances = self._shares = torch.empty(0)

    def gradient(self, plain: Tensor, protected: Tensor, step: int) -> tuple[Tensor | None, Tensor]:
        """See :class:`OwnLoss`: of the loss above, with means and variances as they were before this step."""
        warmup, unknown = self._config.warmup, protected.new_full((), math.nan)
        if step < warmup:
            return None, unknown
        images = protected.detach().float().flatten(1)
        if not len(self._means):
            count = self._config.clusters
            if len(images) < count:
                # Of two batches in a row at most one is the rest of an epoch.
                if step > warmup:
                    raise ValueError(f"user.protection.clusters is {count}, and a batch has only {len(images)} images")
                return None, unknown
            self._begin(images)
        distances = torch.cdist(images, self._means)
        nearest = distances.argmin(1)
        apart = images - self._means[nearest]
        # d/dx_hat of 1/2 log v is (x_hat - mean) / v for each image of the mean that v is.
        gradient = apart / self._variances[nearest].clamp(min=_LEAST_VARIANCE)
        self._follow(images, apart, nearest, distances)
        weight = self._config.weight * min(1.0, (step - warmup + 1) / (2 * warmup + 1))
        return (weight / images.numel() * gradient).view_as(protected), unknown

    def _begin(self, images: Tensor) -> None:
        """Draw the clusters' first means from a batch, each far from those before (k-means++)."""
        count, stream = self._config.clusters, generator(self._seed, "clusters")
        chosen = torch.randint(len(images), (1,), generator=stream)
        while len(chosen) < count:
            squares = torch.cdist(images, images[chosen]).amin(1).square().cpu().double()
            squares[chosen] = 0
            # Where all images are the same, any of those not chosen is as good as another.
            squares = squares if squares.sum() > 0 else torch.ones_like(squares).index_fill_(0, chosen, 0)
            chosen = torch.cat([chosen, torch.multinomial(squares, 1, generator=stream)])
        self._means = images[chosen].clone()
        self._variances = images.var(0, correction=0).expand_as(self._means).clone()
        self._shares = images.new_full((count,), 1 / count)

    def _follow(self, images: Tensor, apart: Tensor, nearest: Tensor, distances: Tensor) -> None:
        """Move means and variances towards those of this batch, and an empty cluster to the image that fits worst."""
        members = F.one_hot(nearest, len(self._means)).to(images.dtype)
        counts = members.sum(0)
        kept = (_KEPT**counts).unsqueeze(1)
        found = [(members.T @ values) / counts.clamp(min=1).unsqueeze(1) for values in (images, apart.square())]
        self._means = kept * self._means + (1 - kept) * found[0]
        self._variances = kept * self._variances + (1 - kept) * found[1]
        self._shares = _KEPT_SHARE * self._shares + (1 - _KEPT_SHARE) * counts / len(images)
        least, worst = self._shares.argmin(), distances.amin(1).argmax()
        empty = self._shares[least] < _FEWEST / len(self._shares)
        place = (torch.arange(len(self._shares), device=images.device) == least) & empty
        self._means = torch.where(place.unsqueeze(1), images[worst], self._means)
        self._variances = torch.where(place.unsqueeze(1), self._variances.mean(0), self._variances)
        self._shares = torch.where(place, 1 / len(self._shares), self._shares)

    def checkpoint(self) -> State:
        """See :class:`OwnLoss`."""
        state = {"means": self._means, "variances": self._variances, "shares": self._shares}
        return {name: value.cpu() for name, value in state.items()} if len(self._means) else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`OwnLoss`."""
        if tensors:
            self._means, self._variances, self._shares = (
                tensors[name].to(self._device) for name in ("means", "variances", "shares")
            )
