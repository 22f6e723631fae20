"""Tables of results, as files and in words: what the report of a run and that of a sweep share."""

import math
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from roles.common.files import write_atomically
from sim.report.statistics import Interval

REPORT = "veilsim report RUN"
"""What summaries end with; whoever shows one may name the folder."""


def templates(package: str, *, html: bool = False) -> jinja2.Environment:
    """Return what renders the templates of a package; whatever one asks for and is not given is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_table(folder: Path, table: pd.DataFrame, name: str = "table") -> None:
    """Write ``<name>.csv`` and ``<name>.parquet``."""
    write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
    write_atomically(folder / f"{name}.parquet", table.to_parquet(index=False))


def markdown(table: pd.DataFrame) -> str:
    """Return a table of texts in Markdown, with a dash where a value is missing.

    >>> print(markdown(pd.DataFrame({"user": ["user 0", "user 1"], "acc.": ["70.0", None]})))
    | user | acc. |
    |--------|--------|
    | user 0 | 70.0 |
    | user 1 | - |
    """
    return table.fillna("-").to_markdown(index=False, disable_numparse=True, stralign=None, numalign=None)


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


def number(row: "pd.Series[Any]", name: str, form: str) -> str:
    """Return a number of a row; a dash where it is not known.

    >>> number(pd.Series({"seen_ssim": 0.125}), "seen_ssim", ".2f"), number(pd.Series(), "seen_ssim", ".2f")
    ('0.12', '-')
    """
    value = row.get(name)
    return "-" if pd.isna(value) else format(value, form)


def percent(row: "pd.Series[Any]", name: str) -> str:
    """Return a share of a row in percent; a dash where it is not known.

    >>> percent(pd.Series({"accuracy": 0.7125}), "accuracy"), percent(pd.Series(), "accuracy")
    ('71.2', '-')
    """
    share = row.get(name)
    return "-" if pd.isna(share) else f"{100 * share:.1f}"
