"""Image sets: loaded once by name or path, kept as memory-mapped uint8 tensors that all workers of a machine share."""

import hashlib
import json
import shutil
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roles.common.config.data import DataConfig, Split
from roles.common.files import read_json
from roles.common.sources import ImageSet, folder_of, load_digits, load_named

_FORMAT = 3


class ImageStore:
    """The image sets of one experiment on this machine, without labels.

    Args:
        folder: where :func:`prepare` has put them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[Split, Tensor] = {}
        meta = read_json(folder / "meta.json")
        self.classes: list[str] = meta["classes"]
        self.fingerprint: str = meta["fingerprint"]
        self.counts: dict[str, int] = meta["counts"]
        self.side: int = meta["side"]
        self.shared: int = meta["shared"]
        """How many test images are, value by value, training images as well."""

    def images(self, split: Split, device: torch.device | None = None) -> Tensor:
        """Return the images of a split, uint8 ``(N, 3, H, W)``, not to be written to.

        They are mapped from disk or, for a GPU, put there once in a process.
        """
        if device is not None and device.type != "cpu":
            return _on_gpu(self.folder, split, device)
        if split not in self._open:
            with warnings.catch_warnings():
                # The map is read-only, and so is every use of it.
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")
                self._open[split] = torch.from_numpy(np.load(self.folder / f"{split}.images.npy", mmap_mode="r"))
        return self._open[split]


@lru_cache(maxsize=3)
def _on_gpu(folder: Path, split: Split, device: torch.device) -> Tensor:
    return ImageStore(folder).images(split).to(device)


def prepare(config: DataConfig, cache: Path) -> ImageStore:
    """Load the image sets named by ``config`` into ``cache``, or find them there.

    Raises:
        ValueError: the data cannot be found or do not fit; the message says what and where.
    """
    key = hashlib.sha256(json.dumps([_FORMAT, config.model_dump(), _source_stamp(config.name)]).encode()).hexdigest()
    slug = "".join(c if c.isalnum() else "-" for c in Path(config.name).name) or "data"
    folder = cache / f"{slug}-{key[:16]}"
    if not (folder / "meta.json").is_file():
        loaded, classes = load_digits(config.size or 32) if config.name == "digits" else load_named(config)
        sets = _split(loaded, config)
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
        try:
            _write(partial, sets, classes)
            partial.rename(folder)
        except OSError:
            # Another process was first: its copy is the same.
            if not (folder / "meta.json").is_file():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return ImageStore(folder)


def _source_stamp(name: str) -> list[list[str | int]]:
    folder = folder_of(name)
    if folder is None or not folder.is_dir():
        return []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _split(loaded: dict[str, ImageSet], config: DataConfig) -> dict[str, ImageSet]:
    from sklearn.model_selection import train_test_split

    for split, (images, labels) in loaded.items():
        if len(images) < 10:
            raise ValueError(f"data.name {config.name!r}: its {split} split has only {len(images)} images")
        if split == "train" and np.unique(labels, return_counts=True)[1].min() < 2:
            raise ValueError(f"data.name {config.name!r}: a class has a single training image, so it cannot be split")
    (images, labels), (test_images, test_labels) = loaded["train"], loaded["test"]
    options = {"test_size": config.validation_fraction, "random_state": config.split_seed, "stratify": labels}
    try:
        train, validation = (np.sort(ids) for ids in train_test_split(np.arange(len(labels)), **options))
    except ValueError as error:
        raise ValueError(f"data.validation_fraction: got {config.validation_fraction}: {error}") from error
    test = np.arange(len(test_labels))
    if not np.any(np.diff(test_labels) < 0):
        # They come class by class: whoever took the first few would have them of one or two classes.
        test = np.random.default_rng(0).permutation(len(test))
    return {
        "train": (images[train], labels[train]),
        "validation": (images[validation], labels[validation]),
        "test": (test_images[test], test_labels[test]),
    }


def _shared(*training: NDArray[np.uint8], test: NDArray[np.uint8]) -> int:
    known = {hashlib.sha256(image.tobytes()).digest() for images in training for image in images}
    return sum(hashlib.sha256(image.tobytes()).digest() in known for image in test)


def _write(folder: Path, sets: dict[str, ImageSet], classes: list[str]) -> None:
    sha = hashlib.sha256()
    for split, (images, labels) in sets.items():
        np.save(folder / f"{split}.images.npy", images)
        np.save(folder / f"{split}.labels.npy", labels)
        sha.update(images.tobytes())
        sha.update(labels.tobytes())
    meta = {
        "classes": classes,
        "counts": {split: len(labels) for split, (_, labels) in sets.items()},
        "side": int(sets["train"][0].shape[-1]),
        "fingerprint": sha.hexdigest(),
        "shared": _shared(*(images for split, (images, _) in sets.items() if split != "test"), test=sets["test"][0]),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))
