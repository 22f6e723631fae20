"""A run as a notebook shows it: who is protected, in words, as a table and as pictures."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.report.columns import recorded
from sim.report.sprites import grid
from sim.report.text import templates
from sim.run.subject import CONTROL, Subject

_MOST_ROWS = 20


def in_html(
    name: str,
    headline: str,
    short: pd.DataFrame,
    control: str,
    strips: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]],
) -> str:
    """Return a run in HTML.

    Args:
        name: what the run is called.
        headline: who is protected, in words.
        short: what :func:`short_of` makes of the run's table.
        control: whether the positive control works, in a word or two.
        strips: texts, each with rows of images below each other, uint8 ``(N, H, W, 3)``.
    """
    titles = {column.key: column.label for column in recorded("first_in_pages")}
    rounded = short.head(_MOST_ROWS).copy()
    for column in rounded:
        if titles[str(column)].endswith("(%)"):
            rounded[column] = (100 * rounded[column].astype("Float64")).round(1)
    rounded.loc[rounded["subject"] == CONTROL.name, "verdict"] = control
    rounded["subject"] = [Subject.named(name).title for name in rounded["subject"]]
    pictures = [(words, grid(rows, lossless=True), rows[0].shape) for words, rows in strips]
    texts = rounded.rename(columns=titles).astype(object).where(rounded.notna().to_numpy(), "-")
    table = texts.to_html(index=False, float_format="{:.3g}".format, border=0)
    environment = templates("sim.report", html=True)
    return environment.get_template("notebook.html.j2").render(
        name=name, headline=headline, table=table, more=len(short) - len(rounded), pictures=pictures
    )
