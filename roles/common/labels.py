"""Labels, apart from the images: the import contract keeps roles.user from importing this module."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from roles.common.data import Split


def load_labels(folder: Path, split: Split) -> Tensor:
    """Return the labels of a split of a prepared image store, ``(N,)`` int64."""
    return torch.from_numpy(np.load(folder / f"{split}.labels.npy"))
