import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from roles.common import data
from roles.common.config.data import SPLITS, DataConfig
from roles.common.data import ImageStore, prepare
from roles.common.labels import load_labels


@pytest.fixture(autouse=True)
def hub_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")


@pytest.fixture(scope="module")
def digits32(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return prepare(DataConfig(), tmp_path_factory.mktemp("digits32"))


def picture(value: int, side: int = 8) -> Image.Image:
    return Image.fromarray(np.full((side, side, 3), value, dtype=np.uint8))


def write_images(folder: Path, per_class: int = 10, splits: tuple[str, ...] = ("train", "test")) -> Path:
    for split in splits:
        for label, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for number in range(per_class):
                picture(100 * label + number).save(folder / split / name / f"{number:02d}.png")
    return folder


def write_parquet(folder: Path, with_label: bool = True) -> Path:
    folder.mkdir()
    features = {"img": datasets.Image()}
    if with_label:
        features["label"] = datasets.ClassLabel(names=["cat", "dog"])
    for split in ("train", "test"):
        rows = {"img": [picture(100 * (i % 2) + i) for i in range(20)]}
        if with_label:
            rows["label"] = [i % 2 for i in range(20)]
        table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def refusal(config: DataConfig, cache: Path) -> str:
    with pytest.raises(ValueError, match=r"^data\.") as caught:
        prepare(config, cache)
    message = str(caught.value)
    assert "\n" not in message
    assert not cache.is_dir() or not list(cache.iterdir())
    return message


def test_digits_are_colour_bitmaps_of_32_pixels_in_three_sets(digits32: ImageStore) -> None:
    assert digits32.counts == {"train": 1293, "validation": 144, "test": 360}
    for split in SPLITS:
        images = digits32.images(split)
        assert images.dtype == torch.uint8
        assert images.shape == (digits32.counts[split], 3, 32, 32)
        assert len(load_labels(digits32.folder, split)) == len(images)
    assert digits32.classes == [str(digit) for digit in range(10)]
    assert digits32.side == 32


def test_digits_can_be_of_another_size(digits: ImageStore) -> None:
    assert digits.side == 16
    assert digits.images("train").shape[1:] == (3, 16, 16)


def test_every_set_holds_each_class_in_its_share(digits: ImageStore) -> None:
    whole = torch.cat([load_labels(digits.folder, split) for split in SPLITS]).bincount()
    for split in SPLITS:
        share = digits.counts[split] / 1797
        counts = load_labels(digits.folder, split).bincount(minlength=10)
        assert bool(((counts - whole * share).abs() <= 1.5).all())


def test_no_image_is_in_two_sets(digits32: ImageStore) -> None:
    hashes = [hashlib.sha256(i.numpy().tobytes()).digest() for split in SPLITS for i in digits32.images(split)]
    assert len(set(hashes)) == len(hashes)


def test_a_second_prepare_takes_the_same_folder_and_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(DataConfig(size=8), tmp_path / "cache")
    written = (first.folder / "train.images.npy").stat().st_mtime_ns
    monkeypatch.setattr(data, "load_digits", None)
    second = prepare(DataConfig(size=8), tmp_path / "cache")
    assert second.folder == first.folder
    assert second.fingerprint == first.fingerprint
    assert (second.folder / "train.images.npy").stat().st_mtime_ns == written
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.folder.name]


def test_another_process_that_was_first_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = data._write
    first = prepare(DataConfig(size=8), tmp_path / "one")

    def overtaken(folder: Path, *arguments: object) -> None:
        write(folder, *arguments)  # type: ignore[arg-type]
        shutil.copytree(first.folder, tmp_path / "two" / first.folder.name)

    monkeypatch.setattr(data, "_write", overtaken)
    store = prepare(DataConfig(size=8), tmp_path / "two")
    assert store.fingerprint == first.fingerprint
    assert [path.name for path in (tmp_path / "two").iterdir()] == [store.folder.name]


def test_another_split_seed_holds_out_other_images_of_the_same_number(tmp_path: Path) -> None:
    first, other = (prepare(DataConfig(size=8, split_seed=seed), tmp_path) for seed in (0, 1))
    assert first.counts == other.counts
    assert not torch.equal(first.images("validation"), other.images("validation"))
    assert torch.equal(first.images("test"), other.images("test"))


@pytest.mark.parametrize("write", [write_images, write_parquet])
def test_a_folder_of_images_or_of_parquet_files_loads(write: Callable[[Path], Path], tmp_path: Path) -> None:
    store = prepare(DataConfig(name=str(write(tmp_path / "pets")), validation_fraction=0.2), tmp_path / "cache")
    assert store.counts == {"train": 16, "validation": 4, "test": 20}
    assert store.classes == ["cat", "dog"]
    assert store.side == 8
    for split in SPLITS:
        labels = load_labels(store.folder, split)
        # Cats are darker than 100.
        assert torch.equal((store.images(split)[:, 0, 0, 0] >= 100).long(), labels)
    assert load_labels(store.folder, "validation").bincount().tolist() == [2, 2]


def test_the_first_test_images_are_of_all_classes_even_where_a_folder_has_them_class_by_class(tmp_path: Path) -> None:
    store = prepare(DataConfig(name=str(write_images(tmp_path / "pets"))), tmp_path / "cache")
    labels = load_labels(store.folder, "test")
    assert set(labels[:10].tolist()) == {0, 1}
    again = prepare(DataConfig(name=str(write_images(tmp_path / "same"))), tmp_path / "cache")
    assert again.fingerprint == store.fingerprint


def test_test_images_that_come_mixed_stay_in_their_order(tmp_path: Path) -> None:
    store = prepare(DataConfig(name=str(write_parquet(tmp_path / "pets"))), tmp_path / "cache")
    assert load_labels(store.folder, "test").tolist() == [0, 1] * 10


def test_a_folder_that_has_changed_is_loaded_anew(tmp_path: Path) -> None:
    config = DataConfig(name=str(write_images(tmp_path / "pets")))
    before = prepare(config, tmp_path / "cache")
    picture(255).save(tmp_path / "pets" / "test" / "cat" / "extra.png")
    after = prepare(config, tmp_path / "cache")
    assert (before.counts["test"], after.counts["test"]) == (20, 21)


def test_a_folder_below_the_home_directory_that_has_changed_is_loaded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_images(tmp_path / "pets")
    before = prepare(DataConfig(name="~/pets"), tmp_path / "cache")
    picture(255).save(tmp_path / "pets" / "test" / "cat" / "extra.png")
    assert prepare(DataConfig(name="~/pets"), tmp_path / "cache").folder != before.folder


def test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    picture(3, side=12).save(folder / "train" / "cat" / "03.png")
    message = refusal(DataConfig(name=str(folder)), tmp_path / "cache")
    assert "train: 03.png is 12x12, but all must be squares of one size; set data.size" in message
    assert prepare(DataConfig(name=str(folder), size=8), tmp_path / "cache").side == 8


def test_grey_images_become_colour_images(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    Image.fromarray(np.full((8, 8), 201, dtype=np.uint8)).save(folder / "test" / "cat" / "00.png")
    store = prepare(DataConfig(name=str(folder)), tmp_path / "cache")
    assert (store.images("test") == 201).all(dim=(1, 2, 3)).sum() == 1


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    assert "no such folder" in refusal(DataConfig(name=str(tmp_path / "nowhere")), tmp_path / "cache")


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded" in refusal(DataConfig(name=str(tmp_path / "empty")), tmp_path / "cache")


def test_a_set_without_a_test_split_is_one_line(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets", splits=("train",))
    message = refusal(DataConfig(name=str(folder)), tmp_path / "cache")
    assert "has no 'test' split (it has ['train'])" in message


def test_a_set_without_labels_is_one_line(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "pets", with_label=False)
    message = refusal(DataConfig(name=str(folder)), tmp_path / "cache")
    assert "needs one Image and one ClassLabel column, it has {'img': 'Image'}" in message


@pytest.mark.parametrize("content", [b"this is no image", b""])
def test_a_file_that_is_no_image_is_one_line(content: bytes, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets")
    (folder / "train" / "cat" / "02.png").write_bytes(content)
    assert "train: 02.png cannot be read" in refusal(DataConfig(name=str(folder)), tmp_path / "cache")


def test_too_few_images_are_one_line(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets", per_class=3)
    assert "train split has only 6 images" in refusal(DataConfig(name=str(folder)), tmp_path / "cache")


def test_a_validation_share_smaller_than_a_class_is_one_line(tmp_path: Path) -> None:
    message = refusal(DataConfig(size=8, validation_fraction=0.001), tmp_path / "cache")
    assert message.startswith("data.validation_fraction: got 0.001: ")


def test_whatever_the_library_raises_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, reason in ((TimeoutError(), "TimeoutError"), (RuntimeError("first\nsecond"), "first")):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(datasets, "load_dataset", fail)
        message = refusal(DataConfig(name="some-user/some-set"), tmp_path / "cache")
        assert message.endswith(f"cannot be loaded ({reason})")


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, *_: object) -> None:
        (folder / "half").write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(data, "_write", full)
    with pytest.raises(OSError, match="no space left"):
        prepare(DataConfig(size=8), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_the_folder_describes_itself_and_holds_no_pickle(digits: ImageStore) -> None:
    meta = json.loads((digits.folder / "meta.json").read_text())
    assert meta["counts"] == digits.counts
    for path in digits.folder.glob("*.npy"):
        np.load(path, allow_pickle=False, mmap_mode="r")


def test_images_come_without_labels(digits: ImageStore) -> None:
    assert not [name for name in vars(digits) if "label" in name]
