"""What a node works with on the machine that it is on: data, arithmetic, a folder of its own."""

import ctypes
import gc
import os
from pathlib import Path

import torch

from roles.common.compute import Compute
from roles.common.data import ImageStore, prepare
from sim.config.experiment import Experiment
from sim.config.places import cache_folder
from sim.exchange.messages import MessageError

_KEPT_MEMORY = {-4: 0, -1: 2**31 - 1, -2: 2**28}
"""Options of glibc's malloc: no maps of their own for large blocks (M_MMAP_MAX), never less than 2 GB to give back
(M_TRIM_THRESHOLD), and 256 MB at a time (M_TOP_PAD)."""


def store_of(experiment: Experiment) -> ImageStore:
    """Return this machine's copy of the data, made on first use."""
    return prepare(experiment.data, cache_folder() / "data")


def compute_of(experiment: Experiment) -> Compute:
    """Return the arithmetic of this process, with its thread count set."""
    torch.set_num_threads(experiment.runtime.threads)
    precision = experiment.runtime.precision
    if precision == "auto":
        raise MessageError("runtime.precision is still auto: the experiment was not resolved")
    device = None if experiment.runtime.gpu_fraction else "cpu"
    return Compute(precision, device, graphs=experiment.runtime.cuda_graphs)


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


def node_folder(run: Path, name: str) -> Path:
    """Return where the node ``name``, such as ``user-0000``, keeps its state: no other opens a file in it.

    The provider's is open to its replicas, which are in the workers.
    """
    return run / "state" / name
