"""Whether the trainings of a run had come to rest when they ended, as their learning curves tell."""

from collections.abc import Sequence

import pandas as pd

_RESTS = {"late_accuracy": 0.05, "late_passes_through": 0.1}
"""By how much a training that has come to rest may still have changed over its last third."""


def at_the_end(curve: Sequence[dict[str, float]], selected_epoch: int) -> dict[str, float]:
    """Return columns of a table on how the training of an h_theta ended.

    ``passes_through`` and ``dfil`` are of the selected epoch or, where that is 0 and there is none, of the last.
    ``late_accuracy`` and ``late_passes_through`` are by how much accuracy, in [0, 1], and what passes through have
    changed on validation images since two thirds of the epochs (of two epochs, since the first). A training of one
    epoch has not got them.
    """
    looks = ("passes_through", "dfil") if curve else ()
    ends = {name: curve[selected_epoch - 1].get(f"validation_{name}") for name in looks}
    if len(curve) > 1:
        before, last = curve[max(1, 2 * len(curve) // 3) - 1], curve[-1]
        for name in ("accuracy", "passes_through"):
            key = f"validation_{name}"
            ends[f"late_{name}"] = last[key] - before[key] if key in last and key in before else None
    return {name: value for name, value in ends.items() if value is not None}


def moving_users(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of users whose h_theta was still moving, whoever trained for a single epoch among them.

    Rows of runs that were made before their curves said what passes through are judged by accuracy alone.
    """
    changes = table.reindex(columns=list(_RESTS)).astype(float).abs()
    moved = (changes > pd.Series(_RESTS)).any(axis=1) | (changes["late_accuracy"].isna())
    return table[moved & table.reindex(columns=["late_accuracy", "passes_through"]).notna().any(axis=1)]
