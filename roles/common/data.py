"""Image sets: loaded once by name or path, kept as memory-mapped uint8 tensors that all workers of a machine share."""

import hashlib
import json
import shutil
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roles.common.config.data import DataConfig, Split

_FORMAT = 2
_Set = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images ``(N, 3, H, W)`` and their labels."""


class ImageStore:
    """The image sets of one experiment on this machine, without labels.

    Args:
        folder: where :func:`prepare` has put them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[Split, Tensor] = {}
        meta = json.loads((folder / "meta.json").read_text())
        self.classes: list[str] = meta["classes"]
        self.fingerprint: str = meta["fingerprint"]
        self.counts: dict[str, int] = meta["counts"]
        self.side: int = meta["side"]

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
        loaded, classes = _load_digits(config.size or 32) if config.name == "digits" else _load_huggingface(config)
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
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _split(loaded: dict[str, _Set], config: DataConfig) -> dict[str, _Set]:
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


def _write(folder: Path, sets: dict[str, _Set], classes: list[str]) -> None:
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
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))


def _load_digits(side: int) -> tuple[dict[str, _Set], list[str]]:
    """scikit-learn's 1,797 handwritten digits, 8x8 in 17 greys, enlarged to colour; 360 of them are the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    grey = torch.from_numpy(digits.images).div(16).unsqueeze(1).float()
    large = torch.nn.functional.interpolate(grey, size=side, mode="bilinear", align_corners=False)
    images = large.expand(-1, 3, -1, -1).mul(255).round().to(torch.uint8).numpy()
    labels = digits.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=360, random_state=0, stratify=labels)
    return {"train": (images[train], labels[train]), "test": (images[test], labels[test])}, [*map(str, range(10))]


def _load_huggingface(config: DataConfig) -> tuple[dict[str, _Set], list[str]]:
    import datasets

    where = f"data.name {config.name!r}"
    looks_local = config.name.startswith((".", "/", "~")) or Path(config.name).exists()
    source = str(Path(config.name).expanduser().resolve()) if looks_local else config.name
    if looks_local and not Path(source).is_dir():
        raise ValueError(f"{where}: no such folder")
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(source)
    except Exception as error:
        # The library raises whatever its many backends raise; what a user needs is the name and the reason.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{where}: cannot be loaded ({reason})") from error
    for split in ("train", "test"):
        if split not in loaded:
            raise ValueError(f"{where}: has no {split!r} split (it has {sorted(loaded)})")
    features = loaded["train"].features
    image, label = (
        next((name for name, feature in features.items() if isinstance(feature, kind)), "")
        for kind in (datasets.Image, datasets.ClassLabel)
    )
    if not (image and label):
        kinds = {name: type(kind).__name__ for name, kind in features.items()}
        raise ValueError(f"{where}: needs one Image and one ClassLabel column, it has {kinds}")
    labels = {split: np.asarray(loaded[split][label], dtype=np.int64) for split in ("train", "test")}
    sets = {name: (_stack(loaded[name], image, config.size, f"{where}, {name}"), labels[name]) for name in labels}
    return sets, list(features[label].names)


def _stack(table: Any, column: str, size: int | None, where: str) -> NDArray[np.uint8]:
    arrays: list[NDArray[np.uint8]] = []
    try:
        for picture in table[column]:
            rgb = picture.convert("RGB")
            arrays.append(np.asarray(rgb if size is None else rgb.resize((size, size)), dtype=np.uint8))
            shape = arrays[-1].shape
            if shape[0] != shape[1] or shape != arrays[0].shape:
                wrong = f"image {len(arrays) - 1} is {shape[1]}x{shape[0]}"
                raise ValueError(f"{where}: {wrong}, but all must be squares of one size; set data.size")
    except OSError as error:
        raise ValueError(f"{where}: image {len(arrays)} cannot be read ({error})") from error
    return np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2))
