"""The tables of a run, as they are read back."""

from pathlib import Path

import pandas as pd
import pyarrow

from roles.common.files import UnreadableFile


def read_table(path: Path) -> pd.DataFrame:
    """Return the table in a Parquet file.

    Raises:
        UnreadableFile: it cannot be read, or is cut off.
    """
    try:
        return pd.read_parquet(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UnreadableFile(f"{path}: not a readable Parquet file; resume the run to have it written again") from error


def is_damaged(path: Path) -> bool:
    """Return whether there is a table that cannot be read."""
    try:
        return path.is_file() and read_table(path).columns.empty
    except UnreadableFile:
        return True
