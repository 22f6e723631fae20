"""Image sets: loaded once by name or path, kept as memory-mapped uint8 tensors that all workers of a machine share."""

import hashlib
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from roles.common.recipes import Frozen

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_FORMAT = 2


class DataConfig(Frozen):
    """Which images, and how they are split."""

    name: str = "digits"
    """``digits`` (scikit-learn's, no download), a name on the Hugging Face Hub, or a local folder: parquet files, or
    images in ``train/<class>/`` and ``test/<class>/``."""
    size: Annotated[int, Field(ge=8)] | None = None
    """Side in pixels that images are resized to; by default they are taken as they are."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training images held out for validation, stratified by class (the paper: 5,000 of 50,000)."""
    split_seed: int = 0
    """Seed of the training/validation split: apart from the run's seed, so that runs with other seeds compare."""


class ImageStore:
    """The image sets of one experiment on this machine, without labels.

    Args:
        folder: what :func:`prepare` returned.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[Split, Tensor] = {}
        meta = json.loads((folder / "meta.json").read_text())
        self.classes: list[str] = meta["classes"]
        self.fingerprint: str = meta["fingerprint"]
        self.counts: dict[str, int] = meta["counts"]
        self.side: int = meta["side"]

    def images(self, split: Split) -> Tensor:
        """Return the images of a split, ``(N, 3, H, W)`` uint8, mapped from disk and not to be written to."""
        if split not in self._open:
            self._open[split] = _map(self.folder / f"{split}.images.npy")
        return self._open[split]


def _map(path: Path) -> Tensor:
    with warnings.catch_warnings():
        # The map is read-only, and so is every use of it.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.load(path, mmap_mode="r"))


def prepare(config: DataConfig, cache: Path) -> ImageStore:
    """Load the image sets named by ``config`` into ``cache``, or find them there.

    Raises:
        ValueError: the data cannot be found or do not fit (no such folder, no image column, sizes that differ, more
            than 3 channels, ...); the message says what and where.
    """
    key = hashlib.sha256(json.dumps([_FORMAT, config.model_dump(), _source_stamp(config.name)]).encode()).hexdigest()
    folder = cache / f"{_slug(config.name)}-{key[:16]}"
    if not (folder / "meta.json").is_file():
        sets, classes = _load_digits(config.size or 32) if config.name == "digits" else _load_huggingface(config)
        _check(config, sets)
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
        try:
            _write(partial, _split(sets, config), classes)
            partial.rename(folder)
        except OSError:
            # Another process was first: its copy is the same.
            if not (folder / "meta.json").is_file():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return ImageStore(folder)


ImagesAndLabels = tuple[NDArray[np.uint8], NDArray[np.int64]]


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in Path(name).name) or "data"


def _source_stamp(name: str) -> list[list[str | int]]:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _check(config: DataConfig, sets: dict[str, ImagesAndLabels]) -> None:
    for split, (images, labels) in sets.items():
        if len(images) < 10:
            raise ValueError(f"data.name {config.name!r}: its {split} split has only {len(images)} images")
        counts = np.bincount(labels)
        if split == "train" and counts[counts > 0].min() < 2:
            raise ValueError(f"data.name {config.name!r}: a class has a single training image, so it cannot be split")


def _split(sets: dict[str, ImagesAndLabels], config: DataConfig) -> dict[Split, ImagesAndLabels]:
    from sklearn.model_selection import train_test_split

    images, labels = sets["train"]
    try:
        train, validation = train_test_split(
            np.arange(len(labels)),
            test_size=config.validation_fraction,
            random_state=config.split_seed,
            stratify=labels,
        )
    except ValueError as error:
        raise ValueError(f"data.validation_fraction: got {config.validation_fraction}: {error}") from error
    train, validation = np.sort(train), np.sort(validation)
    return {
        "train": (images[train], labels[train]),
        "validation": (images[validation], labels[validation]),
        "test": _mixed(*sets["test"]),
    }


def _mixed(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> ImagesAndLabels:
    """Mix test images that come class by class: whoever takes the first few would have them of one or two classes."""
    if np.any(np.diff(labels) < 0):
        return images, labels
    order = np.random.default_rng(0).permutation(len(labels))
    return images[order], labels[order]


def _write(folder: Path, sets: dict[Split, ImagesAndLabels], classes: list[str]) -> None:
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


def _load_digits(side: int) -> tuple[dict[str, ImagesAndLabels], list[str]]:
    """scikit-learn's 1,797 handwritten digits, 8x8 in 17 greys, enlarged to colour; 360 of them are the test set."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    grey = torch.from_numpy(digits.images).div(16).unsqueeze(1).float()
    large = torch.nn.functional.interpolate(grey, size=side, mode="bilinear", align_corners=False)
    images = large.expand(-1, 3, -1, -1).mul(255).round().to(torch.uint8).numpy()
    labels = digits.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=360, random_state=0, stratify=labels)
    return (
        {"train": (images[train], labels[train]), "test": (images[test], labels[test])},
        [str(digit) for digit in range(10)],
    )


def _load_huggingface(config: DataConfig) -> tuple[dict[str, ImagesAndLabels], list[str]]:
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
    image_column = next((name for name, kind in features.items() if isinstance(kind, datasets.Image)), None)
    label_column = next((name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)), None)
    if image_column is None or label_column is None:
        kinds = {name: type(kind).__name__ for name, kind in features.items()}
        raise ValueError(f"{where}: needs one Image and one ClassLabel column, it has {kinds}")
    sets = {
        split: (
            _stack(loaded[split], image_column, config, f"{where}, {split}"),
            np.asarray(loaded[split][label_column], dtype=np.int64),
        )
        for split in ("train", "test")
    }
    return sets, list(features[label_column].names)


def _stack(table: Any, column: str, config: DataConfig, where: str) -> NDArray[np.uint8]:
    arrays: list[NDArray[np.uint8]] = []
    try:
        for picture in table[column]:
            rgb = picture.convert("RGB")
            if config.size is not None:
                rgb = rgb.resize((config.size, config.size))
            arrays.append(np.asarray(rgb, dtype=np.uint8))
            shape = arrays[-1].shape
            if shape[0] != shape[1] or shape != arrays[0].shape:
                raise ValueError(
                    f"{where}: image {len(arrays) - 1} is {shape[1]}x{shape[0]}, but all must be squares of one size; "
                    "set data.size"
                )
    except OSError as error:
        raise ValueError(f"{where}: image {len(arrays)} cannot be read ({error})") from error
    return np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2))
