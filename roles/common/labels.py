"""Labels, apart from the images: import contracts say who may import this module."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from roles.common.config.data import Split


def load_labels(folder: Path, split: Split) -> Tensor:
    """Return the labels of a split of a prepared image store, int64 ``(N,)``."""
    return torch.from_numpy(np.load(folder / f"{split}.labels.npy"))
