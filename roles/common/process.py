"""A process that trains: what it keeps, since it would need it again at once."""

import ctypes
import gc
import os

_KEPT_MEMORY = {-4: 0, -1: 2**31 - 1, -2: 2**28}
"""Options of glibc's malloc: no maps of their own for large blocks (M_MMAP_MAX), never less than 2 GB to give back
(M_TRIM_THRESHOLD), and 256 MB at a time (M_TOP_PAD)."""


def settle() -> None:
    """Make a process that is to train at home: what it has imported stays, and so does the memory that it frees.

    The garbage collector would go through all that is imported, again and again. glibc would give every large tensor
    back to the kernel and have it faulted in again at the next step, for a third of the time of a training step.
    """
    gc.freeze()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for option, value in _KEPT_MEMORY.items():
            mallopt(option, value)
