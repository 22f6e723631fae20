"""The figures of a run, drawn from plain data: image strips (Fig. 5 and 6), PSNR boxes (Fig. 7), learning curves.

Figures are made with matplotlib's objects, without pyplot: they need no display and leave no state behind.
"""

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray
from torch import Tensor
from torch import uint8 as torch_uint8

from sim.figure_style import COLUMN, PAGE, PNG_DPI, STYLE, Look, Target, draw_legend, look_of, save_figure

_MANY_USERS = 16
_MOST_BOXES = 24
"""Users up to which each has its own boxes: those of Table I, with the control, are nineteen."""
_LONGEST_LEGEND = 8
_LETTER = 0.065
"""Width of a letter of a label, in inches."""


@dataclass(frozen=True, eq=False)
class StripRow:
    """One row of a strip: ``images`` is uint8 ``(K, 3, H, W)``, ``captions`` are K texts to go below them."""

    label: str
    images: Tensor
    captions: list[str] | None


@dataclass(frozen=True, eq=False)
class Box:
    """PSNR values in dB, ``(N,)``, of the images of one user (``label``) under one measurement (``group``)."""

    label: str
    values: Tensor
    group: str


@dataclass(frozen=True)
class Panel:
    """One diagram of curves: the ``key`` of the rows it shows, against their ``x``; ``log`` for a logarithmic axis."""

    key: str
    title: str
    log: bool = False
    x: str = "epoch"


def draw_strips(to: Target, rows: list[StripRow], title: str | None = None) -> None:
    """Draw rows of small images with labels at the left, as in Fig. 5 and 6.

    Args:
        to: see :data:`Target`.
        rows: from top to bottom; they may differ in K and in image size, and all images are drawn equally large.
        title: above the rows.

    Raises:
        ValueError: there are no rows or no images, images are not uint8 ``(K, 3, H, W)``, or a row has not one caption
            an image.
    """
    _check_strips(rows)
    columns = max(len(row.images) for row in rows)
    with mpl.rc_context(STYLE):
        figure = Figure(dpi=PNG_DPI)
        # All lengths from here on are pixels of the PNG: only then does every image pixel cover equally many of them.
        gap, margin, caption_height, title_height = 6, 8, 24, 36
        labels = [figure.text(0, 0, _wrap(row.label, 16), ha="right", va="center") for row in rows]
        captions = [[figure.text(0, 0, c, ha="center", va="top", size=6) for c in row.captions or []] for row in rows]
        heading = figure.text(0, 0, title or "", ha="center", va="top")
        left = margin + _widest(labels) + 2 * gap
        pixels = max(row.images.shape[-1] for row in rows)
        room = min(160, (PAGE * PNG_DPI - left - margin) // columns - gap)
        side = pixels * max(1, int(room // pixels))
        pitch = max(side, _widest([text for texts in captions for text in texts])) + gap
        right = left + max(columns * pitch - gap, _widest([heading]))
        tops = []
        bottom = margin + (title_height if title else 0)
        for row in rows:
            tops.append(bottom)
            bottom += side + gap + (caption_height if row.captions else 0)
        width, height = right + margin, bottom - gap + margin
        figure.set_size_inches(width / PNG_DPI, height / PNG_DPI)

        heading.set_position(((left + right) / 2 / width, 1 - margin / height))
        for row, label, texts, top in zip(rows, labels, captions, tops, strict=True):
            label.set_position(((left - 2 * gap) / width, 1 - (top + side / 2) / height))
            for index, image in enumerate(row.images.cpu().permute(0, 2, 3, 1).numpy()):
                x = left + index * pitch + (pitch - gap - side) // 2
                ax = figure.add_axes((x / width, 1 - (top + side) / height, side / width, side / height))
                ax.imshow(image, interpolation="nearest", aspect="auto")
                ax.set_axis_off()
                if texts:
                    texts[index].set_position(((x + side / 2) / width, 1 - (top + side + 4) / height))
        save_figure(figure, to)


def _wrap(label: str, width: int) -> str:
    # "alpha = 0.005" is one word.
    return textwrap.fill(label.replace(" = ", "\u00a0=\u00a0"), width)


def _widest(texts: list[Text]) -> int:
    return max((math.ceil(text.get_window_extent().width) for text in texts), default=0)


def _check_strips(rows: list[StripRow]) -> None:
    if not any(len(row.images) for row in rows):
        raise ValueError("a strip needs at least one row with an image")
    for row in rows:
        if row.images.dtype != torch_uint8 or row.images.ndim != 4 or row.images.shape[1] != 3:
            found = f"{row.images.dtype} {tuple(row.images.shape)}"
            raise ValueError(f"strip row {row.label!r}: images must be uint8 (K, 3, H, W), not {found}")
        if row.captions is not None and len(row.captions) != len(row.images):
            raise ValueError(f"strip row {row.label!r}: {len(row.captions)} captions for {len(row.images)} images")


def draw_psnr_boxes(to: Target, boxes: list[Box]) -> None:
    """Draw box plots of PSNR values as in Fig. 7: quartiles, median, :func:`whiskers`, no outliers.

    Up to 24 users have a box each in every group. Of more users, each group has one box: that of its users' medians.

    Args:
        to: see :data:`Target`.
        boxes: in any order; users and groups are drawn in the order of their first box. NaN is left out, and an
            infinite PSNR (an image recovered exactly) counts as the highest finite one of its box; a box without finite
            values is not drawn.
    """
    groups = list(dict.fromkeys(box.group for box in boxes))
    users = list(dict.fromkeys(box.label for box in boxes))
    values = [_finite(box.values) for box in boxes]
    many = len(users) > _MOST_BOXES
    slots: list[str]
    drawn: list[tuple[int, int, NDArray[np.float64]]]  # slot on the axis, group, values
    if many:
        slots = [_wrap(group, 18) for group in groups]
        medians: dict[str, list[float]] = {group: [] for group in groups}
        for box, finite in zip(boxes, values, strict=True):
            if len(finite):
                medians[box.group].append(float(np.median(finite)))
        drawn = [(slot, slot, np.array(medians[group])) for slot, group in enumerate(groups) if medians[group]]
    else:
        slots = users
        pairs = zip(boxes, values, strict=True)
        drawn = [(users.index(box.label), groups.index(box.group), finite) for box, finite in pairs if len(finite)]

    with mpl.rc_context(STYLE):
        inches = min(PAGE, max(COLUMN, 0.8 + 0.16 * len(drawn) + 0.1 * len(slots)))
        room = inches / max(1, len(slots))
        longest = max((len(line) for slot in slots for line in slot.split("\n")), default=0) * _LETTER
        upright = longest < room
        # Labels that lean need height.
        figure = Figure(figsize=(inches, 2.6 + (0 if upright else 0.6 * longest)), layout="constrained")
        ax = figure.add_subplot()
        ax.set_ylabel("median PSNR of a user (dB)" if many else "PSNR (dB)")
        if many:
            ax.set_xlabel(f"boxes: distribution of {len(users):,} medians, of users and control")
        _draw_boxes(ax, drawn)
        ax.set_xticks(range(len(slots)), slots, rotation=0 if upright else 40, ha="center" if upright else "right")
        if not upright:
            for tick in ax.get_xticklabels():
                tick.set_rotation_mode("anchor")
        ax.tick_params(axis="x", length=0)
        ax.set_xlim(-0.5, max(0.5, len(slots) - 0.5))
        if groups and not many:
            draw_legend(figure, [Patch(**_box_style(look_of(index))) for index in range(len(groups))], groups)
        save_figure(figure, to)


def whiskers(values: Tensor) -> tuple[float, float]:
    """Return the ends of the whiskers, as the caption of Fig. 7 defines them.

    They are the minimum and the maximum of the values in [Q1 - 1.5 (Q3 - Q1), Q3 + 1.5 (Q3 - Q1)], quartiles
    interpolated linearly; like matplotlib's, a whisker never ends inside the box.

    Args:
        values: ``(N,)``, at least one, all finite.

    >>> import torch
    >>> whiskers(torch.tensor([-9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 20.0]))
    (1.0, 5.0)
    """
    return _whiskers(values.detach().cpu().double().numpy())


def _whiskers(values: NDArray[np.float64]) -> tuple[float, float]:
    q1, q3 = np.quantile(values, [0.25, 0.75])
    reach = 1.5 * (q3 - q1)
    low = values[values >= q1 - reach].min()
    high = values[values <= q3 + reach].max()
    return float(min(low, q1)), float(max(high, q3))


def _finite(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().cpu().double().numpy()
    finite = array[np.isfinite(array)]
    if len(finite) == 0:
        return finite
    # Leaving out what was recovered exactly would make an attack look weaker than it is.
    return np.clip(array[~np.isnan(array)], finite.min(), finite.max())


def _draw_boxes(ax: Axes, drawn: list[tuple[int, int, NDArray[np.float64]]]) -> None:
    if not drawn:
        _say_no_data(ax)
        return
    present: dict[int, list[int]] = {}
    for slot, group, _ in drawn:
        present.setdefault(slot, []).append(group)
    step = 0.8 / max(len(of_slot) for of_slot in present.values())
    width = min(0.85 * step, 0.5)
    for slot, group, values in drawn:
        place = sorted(present[slot]).index(group) - (len(present[slot]) - 1) / 2
        q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
        low, high = _whiskers(values)
        look = look_of(group)
        ax.bxp(
            [{"q1": q1, "med": median, "q3": q3, "whislo": low, "whishi": high}],
            positions=[slot + place * step],
            widths=width,
            patch_artist=True,
            showfliers=False,
            manage_ticks=False,
            boxprops=_box_style(look) | {"linewidth": 0.7},
            medianprops={"color": "black", "linewidth": 1.2},
            whiskerprops={"color": look.colour, "linewidth": 0.7},
            capprops={"color": look.colour, "linewidth": 0.7},
        )


def _box_style(look: Look) -> dict[str, Any]:
    pale = tuple(0.45 * part + 0.55 for part in to_rgb(look.colour))
    return {"facecolor": pale, "edgecolor": look.colour, "hatch": look.hatch}


def draw_learning_curves(to: Target, curves: dict[str, list[dict[str, float]]], panels: list[Panel]) -> None:
    """Draw each user's measurements against the epoch (or another ``x``), one panel a measurement.

    Up to 8 users are named in a legend. More than 16 are drawn thin and grey, and over them the median, at each epoch,
    of the users who have a value there.

    Args:
        to: see :data:`Target`.
        curves: by user, the rows in the order of training; each has a panel's ``x`` and any of the panels' keys. Rows
            without the key, or with a value that is not finite (in a logarithmic panel: not positive), are left out.
        panels: from left to right and top to bottom.

    Raises:
        ValueError: there are no panels.
    """
    if not panels:
        raise ValueError("learning curves need at least one panel")
    columns = len(panels) if len(panels) <= 3 else 2 if len(panels) == 4 else 3
    lines = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(COLUMN if columns == 1 else PAGE, 0.35 + (2.3 if columns < 3 else 1.9) * lines),
            layout="constrained",
        )
        for position, panel in enumerate(panels, 1):
            _draw_panel(figure.add_subplot(lines, columns, position), panel, curves)
        if len(curves) > _MANY_USERS:
            median = Line2D([], [], color=look_of(0).colour, linewidth=1.5)
            handles = [Line2D([], [], color="0.6", linewidth=0.6), median]
            draw_legend(figure, handles, ["one user", f"median of {len(curves):,} users"])
        elif 0 < len(curves) <= _LONGEST_LEGEND:
            handles = [Line2D([], [], color=look_of(index).colour, linewidth=1) for index in range(len(curves))]
            draw_legend(figure, handles, list(curves))
        save_figure(figure, to)


def _draw_panel(ax: Axes, panel: Panel, curves: dict[str, list[dict[str, float]]]) -> None:
    ax.set_title(panel.title, loc="left")
    ax.set_xlabel(panel.x)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    points = [_points(rows, panel) for rows in curves.values()]
    if not any(points):
        _say_no_data(ax)
        return
    if panel.log:
        ax.set_yscale("log")
        values = [value for line in points for _, value in line]
        # Within a decade, powers of ten and their 2 and 5 would label the axis once, or not at all.
        narrow = max(values) < 10 * min(values)
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5) if narrow else LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    if len(points) > _MANY_USERS:
        # Fainter, the more there are, so that their density shows.
        alpha = min(0.5, 30 / len(points))
        for line in points:
            # A thousand curves as vectors would make a PDF of many megabytes.
            _plot(ax, line, color="0.5", linewidth=0.4, alpha=alpha, rasterized=True)
        by_epoch: dict[float, list[float]] = {}
        for epoch, value in (point for line in points for point in line):
            by_epoch.setdefault(epoch, []).append(value)
        medians = [(epoch, float(np.median(values))) for epoch, values in sorted(by_epoch.items())]
        _plot(ax, medians, color=look_of(0).colour, linewidth=1.5)
    elif len(points) > _LONGEST_LEGEND:
        for line, share in zip(points, np.linspace(0, 0.9, len(points)), strict=True):
            _plot(ax, line, color=mpl.colormaps["viridis"](share), linewidth=0.8)
    else:
        for index, line in enumerate(points):
            _plot(ax, line, color=look_of(index).colour, linewidth=1)


def _points(rows: list[dict[str, float]], panel: Panel) -> list[tuple[float, float]]:
    found = ((row.get(panel.x, math.nan), row.get(panel.key, math.nan)) for row in rows)
    return [(x, y) for x, y in found if math.isfinite(x) and math.isfinite(y) and (y > 0 or not panel.log)]


def _plot(ax: Axes, points: list[tuple[float, float]], **style: Any) -> None:
    # A line through a single point would be invisible.
    marker = "o" if len(points) == 1 else ""
    ax.plot([x for x, _ in points], [y for _, y in points], marker=marker, markersize=3, **style)


def _say_no_data(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, "no data", transform=ax.transAxes, ha="center", va="center", color="0.5")
