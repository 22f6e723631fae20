"""Where images come from: scikit-learn's digits, a data set of the Hugging Face Hub, or a folder of this machine."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from roles.common.config.data import DataConfig
from roles.common.files import absolute, is_local

ImageSet = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images ``(N, 3, H, W)`` and their labels."""
_SPLITS = ("train", "test")
_WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Modes of images of more than 8 bits, as Pillow names them."""


def folder_of(name: str) -> Path | None:
    """Return the folder that ``data.name`` means, whether it is there or not; None: it is a name on the Hub.

    Raises:
        ValueError: it begins with the home of somebody who has none here.
    """
    if not is_local(name):
        return None
    try:
        return absolute(name)
    except FileNotFoundError as error:
        raise ValueError(f"data.name {name!r}: no such folder") from error


def load_digits(side: int) -> tuple[dict[str, ImageSet], list[str]]:
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


def load_named(config: DataConfig) -> tuple[dict[str, ImageSet], list[str]]:
    """Return the train and test images of a data set of the Hub or of a folder, and the names of its classes.

    Raises:
        ValueError: it cannot be loaded, lacks a split, or holds what is no labelled image; which, and why.
    """
    import datasets

    where, folder = f"data.name {config.name!r}", folder_of(config.name)
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{where}: no such folder")
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(*_arguments(config.name, folder))
    except Exception as error:
        # The library raises whatever its many backends raise; what a user needs is the name and the reason.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{where}: cannot be loaded ({reason})") from error
    for split in _SPLITS:
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
    classes = list(features[label].names)
    labels = {split: _labels(loaded[split][label], f"{where}, {split}") for split in _SPLITS}
    _check_classes(labels, classes, where)
    encoded = {split: loaded[split].cast_column(image, datasets.Image(decode=False))[image] for split in _SPLITS}
    sets = {split: (_stack(encoded[split], config.size, f"{where}, {split}"), labels[split]) for split in _SPLITS}
    return sets, classes


def _arguments(name: str, folder: Path | None) -> tuple[Any, ...]:
    """Return what a data set is loaded by.

    Where a folder has a folder for each split, they say what is in which: the library would guess by words in paths,
    and take a class or a file called "test" for the test split.
    """
    if folder is None:
        return (name,)
    if all((folder / split).is_dir() and _has_classes(folder / split) for split in _SPLITS):
        return "imagefolder", None, None, {split: str(folder / split / "**") for split in _SPLITS}
    return (str(folder),)


def _has_classes(folder: Path) -> bool:
    return any(path.is_dir() for path in folder.iterdir())


def _labels(found: Any, where: str) -> NDArray[np.int64]:
    unlabelled = next((number for number, label in enumerate(found) if label is None or label < 0), None)
    if unlabelled is not None:
        raise ValueError(f"{where}: image {unlabelled} has no label (its label is {found[unlabelled]})")
    return np.asarray(found, dtype=np.int64)


def _check_classes(labels: dict[str, NDArray[np.int64]], classes: list[str], where: str) -> None:
    held = {split: set(np.unique(of).tolist()) for split, of in labels.items()}
    for split, other in (_SPLITS, _SPLITS[::-1]):
        if alone := sorted(held[split] - held[other]):
            raise ValueError(f"{where}: class {classes[alone[0]]!r} has images in the {split} split only")


def _stack(pictures: list[dict[str, Any]], size: int | None, where: str) -> NDArray[np.uint8]:
    arrays: list[NDArray[np.uint8]] = []
    for name, picture in _opened(pictures, where):
        rgb = _in_colours(picture)
        arrays.append(np.asarray(rgb if size is None else rgb.resize((size, size)), dtype=np.uint8))
        shape = arrays[-1].shape
        if shape[0] != shape[1] or shape != arrays[0].shape:
            wrong = f"{name} is {shape[1]}x{shape[0]}"
            raise ValueError(f"{where}: {wrong}, but all must be squares of one size; set data.size")
    return np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2))


def _opened(pictures: list[dict[str, Any]], where: str) -> Iterator[tuple[str, Image.Image]]:
    for number, encoded in enumerate(pictures):
        name = Path(encoded["path"]).name if encoded["path"] else f"image {number}"
        source = encoded["path"] if encoded["bytes"] is None else io.BytesIO(encoded["bytes"])
        try:
            picture = Image.open(source)
            picture.load()
        except UnidentifiedImageError as error:
            raise ValueError(f"{where}: {name} cannot be read (it is no image that Pillow knows)") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{where}: {name} cannot be read ({error})") from error
        yield name, picture


def _in_colours(picture: Image.Image) -> Image.Image:
    """Return an image in 8 bits a colour: what is transparent is white, and 16 bits are scaled and not cut off."""
    if picture.mode in _WIDE:
        values = np.asarray(picture, dtype=np.int64).clip(0, 2**16 - 1)
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layers = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return picture.convert("RGB")
