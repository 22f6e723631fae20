"""What a node works with on the machine that it is on: data, arithmetic, a folder of its own."""

from pathlib import Path

import torch

from roles.common.compute import Compute
from roles.common.data import ImageStore, prepare
from sim.config.experiment import Experiment
from sim.config.places import cache_folder
from sim.exchange.messages import MessageError


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


def node_folder(run: Path, name: str) -> Path:
    """Return where the node ``name``, such as ``user-0000``, keeps its state: no other opens a file in it.

    The provider's is open to its replicas, which are in the workers.
    """
    return run / "state" / name
