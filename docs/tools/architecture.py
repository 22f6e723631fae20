"""Draws which room imports which into ARCHITECTURE.md and its picture: ``python docs/tools/architecture.py``.

The imports are read from the code by grimp, the library that import-linter checks the walls with.
"""

from dataclasses import dataclass
from pathlib import Path

import grimp
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from pages import DOCS, fill

PAGE = DOCS / "ARCHITECTURE.md"
PICTURE = DOCS / "architecture.svg"
PACKAGES = ("sim", "roles", "strategies")
Arrow = tuple[str, str]
"""A room, and one that it imports."""


@dataclass(frozen=True)
class Box:
    """Where a room stands in the picture, and what is written there."""

    x: float
    y: float
    width: float
    colour: str
    does: str


HEIGHT = 0.8
_APP, _ROOM, _PROVIDER, _USER, _EVALUATOR = "#ffffff", "#d9e7f5", "#fbe0c3", "#d5edd0", "#e6d9f2"
ROOMS = {
    "sim.cli": Box(5.2, 8.1, 1.6, _APP, "veilsim run,\nreport, bench"),
    "sim.server_app": Box(2.25, 8.1, 3.7, _APP, "one experiment, phase by phase"),
    "sim.client_app": Box(
        9.95, 8.1, 7.5, _APP, "every node: a message's type says what is asked, its role who answers"
    ),
    "sim.phases": Box(1.7, 6.4, 2.6, _ROOM, "roster, psi, users,\nevaluation, studies"),
    "sim.report": Box(4.8, 6.4, 2.4, _ROOM, "tables, figures, page,\nsim.load"),
    "sim.nodes.role": Box(7.1, 6.4, 1.6, _APP, "which role\na node has"),
    "sim.nodes.provider": Box(9.0, 6.4, 1.8, _PROVIDER, "answers for psi"),
    "sim.nodes.user": Box(10.95, 6.4, 1.8, _USER, "trains, publishes,\nis tested"),
    "sim.nodes.evaluator": Box(12.95, 6.4, 1.9, _EVALUATOR, "attacks, studies"),
    "sim.run": Box(4.15, 5.1, 3.7, _ROOM, "run folders, progress, sweeps, launch"),
    "sim.exchange": Box(5.1, 4.0, 5.6, _ROOM, "messages, relay, direct calls, waiting sessions"),
    "sim.config": Box(4.15, 2.9, 3.7, _ROOM, "an experiment: its keys, files, checks"),
    "roles.provider": Box(9.0, 1.1, 1.8, _PROVIDER, "psi and its loss"),
    "roles.user": Box(10.95, 1.1, 1.8, _USER, "h_theta and L_feat"),
    "roles.evaluator": Box(12.95, 1.1, 1.9, _EVALUATOR, "inverse networks,\nmeasures, studies"),
    "roles.common": Box(11.0, -0.1, 5.8, _APP, "images, U-Net, requests and answers, configs"),
    "strategies": Box(1.2, 1.1, 1.6, _APP, "who trains when"),
}
"""Every room of the code, from the top of the picture to the bottom: imports point downwards."""
PANELS = {"sim/": (0, 2.3, 14.15, 6.65), "roles/": (7.8, -0.7, 6.35, 2.7)}
"""The folders that rooms lie in: x, y, width and height."""
_LINE = "#555555"


def arrows() -> set[Arrow]:
    """Return which room imports which."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    found: set[Arrow] = set()
    for module in graph.modules - set(PACKAGES):
        found |= {(room_of(module), room_of(other)) for other in graph.find_modules_directly_imported_by(module)}
    return {(room, other) for room, other in found if room != other}


def room_of(module: str) -> str:
    """Return the room that a module stands in.

    Raises:
        ValueError: there is none in :data:`ROOMS`.
    """
    for room in sorted(ROOMS, key=len, reverse=True):
        if f"{module}.".startswith(f"{room}."):
            return room
    raise ValueError(f"{module}: in no room of the picture; add one to ROOMS of {Path(__file__).name}")


def drawn(found: set[Arrow]) -> list[Arrow]:
    """Return the arrows of the picture: those that do not follow from others, and those of nodes to their own roles."""
    following: dict[str, set[str]] = {room: {other for of, other in found if of == room} for room in ROOMS}

    def reached(room: str) -> set[str]:
        return following[room].union(*(reached(other) for other in following[room]))

    def follows(room: str, other: str) -> bool:
        return any(other in reached(between) for between in following[room] - {other})

    def is_own(room: str, other: str) -> bool:
        return room.replace("sim.nodes", "roles") == other

    return sorted(arrow for arrow in found if is_own(*arrow) or not follows(*arrow))


def table(found: set[Arrow]) -> str:
    """Return which room imports which, in Markdown, from the top of the picture to the bottom."""
    lines = ["| room | imports |", "|---|---|"]
    for room in ROOMS:
        others = [f"`{other}`" for other in ROOMS if (room, other) in found]
        lines.append(f"| `{room}` | {', '.join(others) or 'none of them'} |")
    return "\n".join(lines)


def draw(shown: list[Arrow]) -> None:
    """Write the picture, with its arrows in words among its metadata."""
    figure = Figure(figsize=(12, 8.3))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-0.15, 14.3), ylim=(-0.85, 9.1))
    ax.axis("off")
    for name, (x, y, width, height) in PANELS.items():
        _draw_box(ax, (x, y), width, height, "#f3f4f6", edgecolor="none")
        ax.text(x + 0.15, y + height - 0.2, name, ha="left", va="center", fontsize=11, color=_LINE, style="italic")
    for room, other in shown:
        _draw_arrow(ax, ROOMS[room], ROOMS[other])
    for room, box in ROOMS.items():
        _draw_box(ax, (box.x - box.width / 2, box.y - HEIGHT / 2), box.width, HEIGHT, box.colour, edgecolor=_LINE)
        name = room.partition(".")[2].replace(".", "/") or room
        two = "\n" in box.does
        ax.text(box.x, box.y + (0.21 if two else 0.14), name, ha="center", va="center", fontsize=11, weight="bold")
        ax.text(box.x, box.y - (0.13 if two else 0.16), box.does, ha="center", va="center", fontsize=8.5)
    # The same picture is the same file, so that a change of it can be seen.
    with matplotlib.rc_context({"svg.hashsalt": "veilsim"}):
        figure.savefig(PICTURE, metadata={"Date": None, "Description": in_words(shown)})


def in_words(shown: list[Arrow]) -> str:
    """Return arrows as the picture's metadata have them."""
    return ", ".join(f"{room} > {other}" for room, other in shown)


def _draw_box(ax: Axes, corner: tuple[float, float], width: float, height: float, colour: str, edgecolor: str) -> None:
    style = "round,pad=0,rounding_size=0.1"
    ax.add_patch(FancyBboxPatch(corner, width, height, style, facecolor=colour, edgecolor=edgecolor, linewidth=0.9))


def _draw_arrow(ax: Axes, box: Box, other: Box) -> None:
    """Draw an arrow straight down where two boxes overlap, else around one corner."""
    left, right = (max(b.x - b.width / 2 for b in (box, other)), min(b.x + b.width / 2 for b in (box, other)))
    if left < right:
        middle = (left + right) / 2
        way = [(middle, box.y - HEIGHT / 2), (middle, other.y + HEIGHT / 2)]
    elif other.x < box.x:
        way = [(box.x - 0.5, box.y - HEIGHT / 2), (box.x - 0.5, other.y), (other.x + other.width / 2, other.y)]
    else:
        way = [(box.x + box.width / 2, box.y), (other.x - 0.5, box.y), (other.x - 0.5, other.y + HEIGHT / 2)]
    ax.plot(*zip(*way[:-1], strict=True), color=_LINE, linewidth=1.1, solid_joinstyle="round")
    ax.annotate("", way[-1], way[-2], arrowprops={"arrowstyle": "-|>", "color": _LINE, "linewidth": 1.1, "shrinkA": 0})


def main() -> None:
    """Write the picture and the block ``rooms`` of the page."""
    found = arrows()
    draw(drawn(found))
    fill(PAGE, {"rooms": lambda: table(found)})


if __name__ == "__main__":
    main()
