"""Tables of results, as files and in words: what the report of a run and that of a sweep share."""

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from roles.evaluator.attack import CIPHER_ATTACKS
from sim.progress import write_atomically
from sim.statistics import Interval


def write_table(folder: Path, table: pd.DataFrame, name: str = "table") -> None:
    """Write ``<name>.csv`` and ``<name>.parquet``."""
    write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
    parquet = io.BytesIO()
    table.to_parquet(parquet, index=False)
    write_atomically(folder / f"{name}.parquet", parquet.getvalue())


def attacks_in(table: "pd.DataFrame | pd.Series[Any]") -> list[str]:
    """Return the attacks that a table or a row has measures of, as columns begin: ``itn_<name>``, or another."""
    columns = [str(column) for column in (table.columns if isinstance(table, pd.DataFrame) else table.index)]
    return [c.removesuffix("_psnr") for c in columns if re.fullmatch(rf"(itn_.+|{'|'.join(CIPHER_ATTACKS)})_psnr", c)]


def attack_column(name: str) -> str:
    """Return how the columns of an attack begin, by its name in the results.

    >>> attack_column("strong"), attack_column("fr_attack")
    ('itn_strong', 'fr_attack')
    """
    return name if name in CIPHER_ATTACKS else f"itn_{name}"


def attack_title(attack: str) -> str:
    """Return what a table's head calls an attack.

    >>> attack_title("itn_strong"), attack_title("fr_attack")
    ('ITN strong', 'FR-Attack')
    """
    return CIPHER_ATTACKS.get(attack, f"ITN {attack.removeprefix('itn_')}")


def with_range(values: "pd.Series[float]", form: str = ".1f") -> str:
    """Return the median and, of several values, the lowest and the highest.

    >>> with_range(pd.Series([70.0, 72.0, 73.0])), with_range(pd.Series([-1.25]), "+.2f")
    ('72.0 (70.0 to 73.0)', '-1.25')
    """
    middle = format(values.median(), form)
    return middle if len(values) == 1 else f"{middle} ({format(values.min(), form)} to {format(values.max(), form)})"


def with_interval(middle: float, interval: Interval, form: str = ".1f") -> str:
    """Return a number and, where there is one, its interval.

    >>> with_interval(72.0, (67.03, 76.97)), with_interval(0.5, (math.nan, math.nan), ".2f")
    ('72.0 [67.0 to 77.0]', '0.50')
    """
    low, high = interval
    return format(middle, form) + ("" if math.isnan(low) else f" [{low:{form}} to {high:{form}}]")


def psnr_and_ssim(row: "pd.Series[Any]", name: str) -> str:
    """Return ``<name>_psnr`` and ``<name>_ssim`` of a row, or of medians over rows; a dash where nothing was measured.

    >>> psnr_and_ssim(pd.Series({"protected_psnr": 10.04, "protected_ssim": 0.125}), "protected")
    '10.0/0.12'
    """
    psnr = row.get(f"{name}_psnr")
    return "-" if pd.isna(psnr) else f"{psnr:.1f}/{row[f'{name}_ssim']:.2f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])
