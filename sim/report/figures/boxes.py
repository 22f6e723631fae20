"""PSNR boxes, as in Fig. 7."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from torch import Tensor

from sim.report.figures.style import COLUMN, PAGE, Target, draw_legend, look_of, new_figure, say_no_data, wrap

_MOST_USERS = 24
"""Users up to which each has its own boxes: those of Table I, with the control, are nineteen."""
_LETTER = 0.065
"""Width of a letter of a label, in inches."""


@dataclass(frozen=True, eq=False)
class Box:
    """PSNR values in dB, ``(N,)``, of the images of one user (``label``) under one measurement (``group``)."""

    label: str
    values: Tensor
    group: str


def draw_psnr_boxes(to: Target, boxes: list[Box]) -> None:
    """Draw PSNR values as in Fig. 7: quartiles, median, whiskers within 1.5 (Q3 - Q1) of the box, no outliers.

    Up to 24 users have a box each in every group. Of more users, each group has one box: that of its users' medians.

    Users and groups come in the order of their first box. NaN is left out, and an infinite PSNR (an image recovered
    exactly) counts as the highest finite one of its box; a box without finite values is not drawn.
    """
    groups = list(dict.fromkeys(box.group for box in boxes))
    slots: dict[str, dict[str, NDArray[np.float64]]] = {box.label: {} for box in boxes}
    for box in boxes:
        if len(values := _finite(box.values)):
            slots[box.label][box.group] = values
    users, many = len(slots), len(slots) > _MOST_USERS
    if many:
        medians = {group: [np.median(of[group]) for of in slots.values() if group in of] for group in groups}
        slots = {wrap(group, 18): {group: np.array(values)} if values else {} for group, values in medians.items()}

    inches = min(PAGE, max(COLUMN, 0.8 + 0.16 * sum(map(len, slots.values())) + 0.1 * len(slots)))
    longest = _LETTER * max((len(line) for slot in slots for line in slot.split("\n")), default=0)
    leaning = longest >= inches / max(1, len(slots))
    with new_figure(to, inches, 2.6 + (0.6 * longest if leaning else 0)) as figure:
        ax = figure.add_subplot(ylabel="median PSNR of a user (dB)" if many else "PSNR (dB)")
        if many:
            ax.set_xlabel(f"boxes: distribution of {users:,} medians, of users and control")
        else:
            for number, group in enumerate(groups):
                ax.fill([], [], **_look(number), label=group)
        if not any(slots.values()):
            say_no_data(ax)
        step = 0.8 / max([1, *map(len, slots.values())])
        for slot, of in enumerate(slots.values()):
            for place, group in enumerate(sorted(of, key=groups.index)):
                look = _look(groups.index(group))
                ax.boxplot(
                    of[group],
                    positions=[slot + (place - (len(of) - 1) / 2) * step],
                    widths=min(0.85 * step, 0.5),
                    patch_artist=True,
                    showfliers=False,
                    manage_ticks=False,
                    boxprops=look | {"linewidth": 0.7},
                    medianprops={"color": "black", "linewidth": 1.2},
                    whiskerprops={"color": look["edgecolor"], "linewidth": 0.7},
                    capprops={"color": look["edgecolor"], "linewidth": 0.7},
                )
        lean: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if leaning else {}
        ax.set_xticks(range(len(slots)), list(slots), **lean)
        ax.tick_params(axis="x", length=0)
        ax.set_xlim(-0.5, max(0.5, len(slots) - 0.5))
        draw_legend(figure)


def _finite(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().cpu().double().numpy()
    finite = array[np.isfinite(array)]
    # Leaving out what was recovered exactly would make an attack look weaker than it is.
    return np.clip(array[~np.isnan(array)], finite.min(), finite.max()) if len(finite) else finite


def _look(group: int) -> dict[str, Any]:
    look = look_of(group)
    pale = tuple(0.45 * part + 0.55 for part in to_rgb(look.colour))
    return {"facecolor": pale, "edgecolor": look.colour, "hatch": look.hatch}
