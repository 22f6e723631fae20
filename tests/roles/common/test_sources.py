"""Images of folders: which split and class they are of, and what becomes of unusual ones."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from roles.common.config.data import DataConfig
from roles.common.data import ImageStore, prepare
from tests.roles.common.test_data import (
    digits32,
    hub_cache_of_its_own,
    picture,
    refusal,
    write_images,
    write_parquet,
)

__all__ = ["digits32", "hub_cache_of_its_own"]


@pytest.mark.parametrize("name", ["test", "train", "training", "validation"])
def test_a_class_may_have_the_name_of_a_split(name: str, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    for split in ("train", "test"):
        (folder / split / "cat").rename(folder / split / name)
    store = prepare(DataConfig(name=str(folder)), tmp_path / "cache")
    assert store.counts == {"train": 18, "validation": 2, "test": 20}
    assert sorted(store.classes) == sorted([name, "dog"])
    assert store.shared == 20  # what write_images writes into both


def test_a_file_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    for split in ("train", "test"):
        for name in ("train", "test"):
            picture(50).save(folder / split / "cat" / f"{name}.png")
    assert prepare(DataConfig(name=str(folder)), tmp_path / "cache").counts["test"] == 22


def test_images_that_both_splits_have_are_counted(digits32: ImageStore, tmp_path: Path) -> None:
    assert digits32.shared == 0
    folder = write_images(tmp_path / "pets")
    for path in (folder / "test" / "dog").iterdir():
        picture(200 + int(path.stem)).save(path)
    assert prepare(DataConfig(name=str(folder)), tmp_path / "cache").shared == 10


def test_a_class_that_one_split_has_alone_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    (folder / "train" / "bird").mkdir()
    for number in range(10):
        picture(number).save(folder / "train" / "bird" / f"{number}.png")
    said = refusal(DataConfig(name=str(folder)), tmp_path / "cache")
    assert "class 'bird' has images in the train split only" in said


def test_images_of_16_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    for path in folder.rglob("*.png"):
        Image.fromarray(np.full((8, 8), 257 * int(path.stem), dtype=np.uint16)).save(path)
    store = prepare(DataConfig(name=str(folder)), tmp_path / "cache")
    assert set(store.images("test").unique().tolist()) == set(range(10))


def test_what_is_transparent_is_white_whatever_lies_under_it(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    for path in folder.rglob("*.png"):
        values = np.full((8, 8, 4), int(path.stem), dtype=np.uint8)
        values[:4, :, 3], values[4:, :, 3] = 0, 255
        Image.fromarray(values).save(path)
    images = prepare(DataConfig(name=str(folder)), tmp_path / "cache").images("test")
    assert torch.equal(images[:, :, :4], torch.full_like(images[:, :, :4], 255))
    assert int(images[:, :, 4:].max()) == 9


def test_an_image_that_cannot_be_read_is_named_by_its_file(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    (folder / "train" / "dog" / "03.png").write_bytes(b"no image")
    said = refusal(DataConfig(name=str(folder)), tmp_path / "cache")
    assert "train: 03.png cannot be read" in said


def test_an_image_without_a_label_is_refused(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "pets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"img": [picture(i) for i in range(20)], "label": [-1, *([0, 1] * 10)[1:]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "train-00000-of-00001.parquet")
    assert "image 0 has no label (its label is -1)" in refusal(DataConfig(name=str(folder)), tmp_path / "cache")


def test_the_home_of_somebody_unknown_is_no_folder(tmp_path: Path) -> None:
    assert "no such folder" in refusal(DataConfig(name="~nosuchuser/images"), tmp_path / "cache")
