"""The tables of a run, as they are read back."""

from pathlib import Path
from typing import TYPE_CHECKING

from roles.common.files import UnreadableFile

if TYPE_CHECKING:
    import pandas as pd


def read_table(path: Path) -> "pd.DataFrame":
    """Return the table in a Parquet file.

    Raises:
        UnreadableFile: it cannot be read, or is cut off.
    """
    import pandas as pd  # nodes know of tables, and have no use for what reads them

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{path}: not a readable Parquet file; resume the run to have it written again") from error


def is_damaged(path: Path) -> bool:
    """Return whether there is a table that cannot be read."""
    try:
        if path.is_file():
            read_table(path)
    except UnreadableFile:
        return True
    return False
