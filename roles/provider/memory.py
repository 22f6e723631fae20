"""What a curious provider keeps: the protected images that it has computed gradients for, each with its plain image."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from roles.common.exchange import LossGradient, Memories
from roles.common.images import to_bitmap
from roles.common.naming import user_name

_COUNTER_BYTES = 8


class Memory:
    """The last protected images of every user, with the ids that say which images of X' they show.

    One file a user, which any process of the provider may write to and read from; a user asks one thing at a time, so
    nobody else writes at the same time.

    Args:
        folder: where the files are.
        capacity: images kept of each user, at least 1.
        side: height and width of the images in pixels.
    """

    def __init__(self, folder: Path, capacity: int, side: int) -> None:
        self._folder, self._capacity, self._shape = folder, capacity, (3, side, side)

    def note(self, request: LossGradient) -> None:
        """Keep the images of a request as 8-bit images, in place of the oldest.

        A request that comes again, after an interruption, goes where it was: in the end the same is kept.
        """
        counter, ring_ids, ring = self._open(request.user)
        end, last = request.asked + len(request.ids), slice(-self._capacity, None)
        places = np.arange(request.asked, end)[last] % self._capacity
        ring_ids[places] = request.ids[last].numpy()
        ring[places] = to_bitmap(request.protected[last]).numpy()
        counter[0] = max(int(counter[0]), end)

    def recall(self, user: int) -> Memories:
        """Return what is kept of a user."""
        if not self._file(user).is_file():
            return Memories(torch.empty(0, *self._shape, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
        counter, ids, images = self._open(user)
        known = min(int(counter[0]), self._capacity)
        return Memories(torch.from_numpy(images[:known].copy()), torch.from_numpy(ids[:known].copy()))

    def _file(self, user: int) -> Path:
        return self._folder / f"{user_name(user)}.bin"

    def _open(self, user: int) -> "tuple[np.memmap[Any, Any], np.memmap[Any, Any], np.memmap[Any, Any]]":
        """Map the number of images asked about so far, the ids and the images that are kept."""
        path, shape = self._file(user), (self._capacity, *self._shape)
        ids_at, images_at = _COUNTER_BYTES, _COUNTER_BYTES * (1 + self._capacity)
        if not path.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(images_at + int(np.prod(shape)))
        return (
            np.memmap(path, np.int64, "r+", 0, (1,)),
            np.memmap(path, np.int64, "r+", ids_at, (self._capacity,)),
            np.memmap(path, np.uint8, "r+", images_at, shape),
        )
