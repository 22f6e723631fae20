"""Which images make a batch, as a pure function of seed and step."""

import torch
from torch import Tensor

from roles.common.seeds import generator


def batch_sizes(images: int, batch_size: int, least: int = 2) -> list[int]:
    """Return how many images each batch of an epoch holds: as many as fit, and the rest.

    A rest of fewer than ``least`` images joins the batch before it: batch norm cannot train on one.

    >>> batch_sizes(10, 4), batch_sizes(9, 4), batch_sizes(3, 4), batch_sizes(10, 4, least=3)
    ([4, 4, 2], [4, 5], [3], [4, 6])
    """
    count = max(1, -(-images // batch_size))
    if count > 1 and 0 < images % batch_size < max(2, least):
        count -= 1
    return [batch_size] * (count - 1) + [images - batch_size * (count - 1)]


class Batches:
    """The batches of a training on the images ``ids``, int64 ``(M,)``: each epoch another permutation of them.

    They are of ``batch_size`` images, or at the end of ``least`` and more, as :func:`batch_sizes` says, and follow from
    ``seed``.
    """

    def __init__(self, ids: Tensor, batch_size: int, seed: int, least: int = 2) -> None:
        self._ids, self._batch_size, self._seed = ids, batch_size, seed
        self._epoch, self._order = -1, ids
        self.per_epoch = len(batch_sizes(len(ids), batch_size, least))

    def ids_at(self, step: int) -> Tensor:
        """Return the image ids of the 0-based ``step``, int64 ``(N,)``."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self._ids), generator=generator(self._seed, "epoch", epoch))
            self._epoch, self._order = epoch, self._ids[order]
        end = (position + 1) * self._batch_size if position + 1 < self.per_epoch else len(self._ids)
        return self._order[position * self._batch_size : end]
