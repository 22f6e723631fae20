"""PSNR boxes, as in Fig. 7, lying on their side."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from roles.evaluator.measures import PSNR_CAP
from sim.report.figures.style import COLUMN, Target, draw_legend, look_of, new_figure, pale, say_no_data, wrap

GUESSES = {"class-mean baseline": "class mean", "mean-image baseline": "mean image"}
"""Groups that are a trivial guess, and what figures call it."""
_MOST_USERS = 24
"""Users up to which each has its own boxes: those of Table I, with the control, are nineteen."""
_PITCH, _LINE, _GAP = 0.09, 1.3, 0.9
"""Height of a box with the space around it, in inches; that of a line of a label, and between users, in boxes."""
_LABEL = 20
"""Letters in a line of a label."""
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Box:
    """PSNR values in dB, ``(N,)``, of the images of one user (``label``) under one measurement (``group``)."""

    label: str
    values: Tensor
    group: str


def draw_psnr_boxes(to: Target, boxes: list[Box]) -> None:
    """Draw PSNR values as in Fig. 7: quartiles, median, whiskers within 1.5 (Q3 - Q1) of the box, no outliers.

    Users are down the side, and the figure is as high as they need. Up to 24 have a box each in every group. Of more,
    each group has one box: that of its users' medians. The trivial guess (:data:`GUESSES`), which is the same for all
    users, is one band from quartile to quartile behind all boxes, with a line at its median; of many users, that line.

    Users and groups come in the order of their first box. NaN is left out, and a box without values is not drawn. An
    image recovered exactly (a PSNR of :data:`PSNR_CAP` or infinity) counts as the highest other one of its box, beside
    which "partly exact" is written; where all are, the group's name and "exact" stand in place of the box.
    """
    guesses: dict[str, list[Values]] = {GUESSES[box.group]: [] for box in boxes if box.group in GUESSES}
    slots: dict[str, dict[str, Values]] = {box.label: {} for box in boxes}
    for box in boxes:
        if not len(values := _known(box.values)):
            continue
        if box.group in GUESSES:
            guesses[GUESSES[box.group]].append(np.quantile(values, (0.25, 0.5, 0.75)))
        else:
            slots[box.label][box.group] = values
    groups = [group for group in dict.fromkeys(box.group for box in boxes) if group not in GUESSES]
    users, many = len(slots), len(slots) > _MOST_USERS
    if many:
        medians = {group: [np.median(of[group]) for of in slots.values() if group in of] for group in groups}
        slots = {group: {group: np.array(values)} if values else {} for group, values in medians.items()}

    labels = [wrap(slot, _LABEL) for slot in slots]
    heights = [max(len(of), _LINE * (1 + label.count("\n"))) for of, label in zip(slots.values(), labels, strict=True)]
    middles = np.cumsum([height + _GAP for height in heights]) - np.array(heights) / 2
    bottom = sum(heights) + _GAP * (len(heights) + 1)
    with new_figure(to, COLUMN, 0.9 + _PITCH * bottom) as figure:
        ax = figure.add_subplot(xlabel="PSNR (dB)")
        if many:
            ax.set_xlabel(f"PSNR (dB): {users:,} medians, of users and control")
        else:
            for number, group in enumerate(groups):
                ax.fill([], [], **_look(number), label=group)
        if not any(slots.values()):
            say_no_data(ax)
        for name, quartiles in guesses.items():
            if quartiles:
                _draw_guess(ax, name, np.median(quartiles, axis=0), band=not many)
        for middle, of in zip(middles, slots.values(), strict=True):
            for place, group in enumerate(sorted(of, key=groups.index)):
                _draw_box(ax, group, of[group], middle + place - (len(of) - 1) / 2, _look(groups.index(group)))
        ax.set_yticks(middles, labels)
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        ax.grid(visible=True, axis="x")
        for middle, height in zip(middles[:-1], heights, strict=False):
            ax.axhline(middle + (height + _GAP) / 2, color="0.9", linewidth=0.5)
        ax.set_ylim(max(bottom, 1), 0)
        draw_legend(figure)


def _known(values: Tensor) -> Values:
    array: Values = values.detach().cpu().double().numpy()
    return array[~np.isnan(array)].clip(max=PSNR_CAP)


def _draw_guess(ax: Axes, name: str, quartiles: Values, *, band: bool) -> None:
    low, median, high = quartiles
    if band:
        ax.axvspan(low, high, color="0.9", linewidth=0, zorder=0)
    ax.axvline(median, color="0.35", linewidth=0.8, linestyle="--", zorder=0.5)
    above: Mapping[str, Any] = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    ax.text(median, 1, f"trivial guess: {name}", size=6, color="0.3", **above)


def _draw_box(ax: Axes, group: str, values: Values, place: float, look: Mapping[str, Any]) -> None:
    # Leaving out what was recovered exactly would make an attack look weaker than it is.
    exact = values >= PSNR_CAP
    if exact.all():
        edge: Mapping[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "center"}
        ax.text(1, place, f"{group}: exact", size=6, color="0.2", **edge)
        return
    shown = values.clip(max=values[~exact].max())
    if exact.any():
        beside: Mapping[str, Any] = {"xytext": (3, 0), "textcoords": "offset points"}
        ax.annotate("partly exact", (shown.max(), place), **beside, va="center", size=6, color="0.2")
    ax.boxplot(
        shown,
        positions=[place],
        widths=0.72,
        orientation="horizontal",
        patch_artist=True,
        showfliers=False,
        manage_ticks=False,
        boxprops=dict(look) | {"linewidth": 0.6},
        medianprops={"color": "black", "linewidth": 1.2},
        whiskerprops={"color": look["edgecolor"], "linewidth": 0.6},
        capprops={"color": look["edgecolor"], "linewidth": 0.6},
    )


def _look(group: int) -> dict[str, Any]:
    look = look_of(group)
    return {"facecolor": pale(look.colour), "edgecolor": look.colour, "hatch": look.hatch}
