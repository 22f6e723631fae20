"""What a curious provider keeps: the protected images that it has computed gradients for, each with its plain image."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from roles.common.exchange import LossGradient, Memories
from roles.common.files import write_atomically
from roles.common.images import to_bitmap
from roles.common.naming import user_name


class Memory:
    """The last ``capacity`` protected images of every user, of ``side`` pixels, with their ids.

    One file a user in ``folder``, which any process of the provider may write to and read from; a user asks one thing
    at a time, so nobody else writes at the same time.
    """

    def __init__(self, folder: Path, capacity: int, side: int) -> None:
        self._folder, self._capacity = folder, capacity
        self._entry = np.dtype([("image", np.uint8, (3, side, side)), ("id", np.int64), ("used", np.bool_)])

    def note(self, request: LossGradient) -> None:
        """Keep the images of a request as 8-bit images, in place of the oldest.

        A request that comes again, after an interruption, goes where it was: in the end the same is kept.
        """
        path, last = self._file(request.user), slice(-self._capacity, None)
        if not path.is_file():
            write_atomically(path, bytes(self._capacity * self._entry.itemsize))
        ring = self._open(path)
        places = np.arange(request.asked, request.asked + len(request.ids))[last] % self._capacity
        ring["image"][places] = to_bitmap(request.protected[last]).cpu().numpy()
        ring["id"][places] = request.ids[last].numpy()
        ring["used"][places] = True

    def recall(self, user: int) -> Memories:
        """Return what is kept of a user."""
        path = self._file(user)
        ring = self._open(path) if path.is_file() else np.empty(0, self._entry)
        images, ids = (ring[name][ring["used"]] for name in ("image", "id"))
        return Memories(torch.from_numpy(images), torch.from_numpy(ids))

    def _file(self, user: int) -> Path:
        return self._folder / f"{user_name(user)}.bin"

    def _open(self, path: Path) -> "np.memmap[Any, Any]":
        return np.memmap(path, self._entry, "r+")
