"""Which images an experiment uses, and how they are split."""

from typing import Annotated, Literal

from pydantic import Field

from roles.common.config.base import Frozen

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class DataConfig(Frozen):
    """Which images, and how they are split."""

    name: Annotated[str, Field(min_length=1, max_length=1000)] = "digits"
    """``digits`` (scikit-learn's, no download), a name on the Hugging Face Hub, or a local folder: parquet files, or
    images in ``train/<class>/`` and ``test/<class>/``."""
    size: Annotated[int, Field(ge=8, le=512)] | None = None
    """Side in pixels that images are resized to; by default they are taken as they are."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training images held out for validation, stratified by class (the paper: 5,000 of 50,000)."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the training/validation split: apart from the run's seed, so that runs with other seeds compare."""
