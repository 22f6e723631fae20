"""Which images make a batch, as a pure function of seed and step."""

import torch
from torch import Tensor

from roles.common.seeds import generator


class Batches:
    """The batches of a training: each epoch a new permutation of the same images.

    Args:
        ids: ``(M,)`` int64, positions of the images in their set.
        batch_size: images a batch; the last batch of an epoch may be smaller, but never holds a single image
            (batch norm cannot train on one): it then joins the batch before it.
        seed: an already derived seed.
    """

    def __init__(self, ids: Tensor, batch_size: int, seed: int) -> None:
        self._ids = ids
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._order = ids
        self.per_epoch = max(1, -(-len(ids) // batch_size))
        if self.per_epoch > 1 and len(ids) % batch_size == 1:
            self.per_epoch -= 1

    def ids_at(self, step: int) -> Tensor:
        """Return the image ids of the 0-based ``step``."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self._ids), generator=generator(self._seed, "epoch", epoch))
            self._epoch, self._order = epoch, self._ids[order]
        end = (position + 1) * self._batch_size if position + 1 < self.per_epoch else len(self._ids)
        return self._order[position * self._batch_size : end]
