"""A run, or several compared, as one HTML file that holds everything within itself and asks no network for anything.

``templates/report.html.j2`` puts into words what is found here, and ``templates/report.js`` shows tables and pictures.
"""

import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TextIO

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from roles.common.files import write_atomically
from sim.config.errors import ConfigError
from sim.report import summary
from sim.report.columns import verdicts_in_words
from sim.report.figures.boxes import Box, draw_psnr_boxes
from sim.report.figures.curves import Panel, draw_learning_curves
from sim.report.figures.run import PANELS, ROUND_PANELS, boxes_of, estimate_title, trade_offs
from sim.report.figures.trade_off import TradeOff, draw_trade_off
from sim.report.page import tables
from sim.report.results import Run, Sweep, load, pictures_of
from sim.report.sprites import Pictures, data_uri, fit
from sim.report.table import HIDDEN, best_attack_on, measured_users, verdict_counts
from sim.report.text import templates
from sim.run.subject import CONTROL, Subject

_BUDGET = 9_000_000
"""Characters of all pictures in a page."""
_MOST_IN_LOAD = 400
"""Points of the provider's load."""
_LONGEST_PAUSE_S = 3600
"""Of the provider's load: between a run and an attack that was added to it there may be weeks."""
_COLOURS = 64
P = ParamSpec("P")


def write_page(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of runs and sweeps, whose complete cells count as runs, and return its path.

    Args:
        paths: run folders and folders of sweeps, at least one.
        out: the file; by default ``report.html`` in the first folder.

    Raises:
        ConfigError: a folder is neither, or has no results yet; or ``out`` is a folder.
    """
    file = out or paths[0] / "report.html"
    if file.is_dir():
        raise ConfigError(f"{file}: is a folder; name a file, such as {file / 'report.html'}")
    runs = _labelled(paths)
    sections = {label: _section(run, _BUDGET // len(runs)) for label, run in runs.items()}
    data = {
        "runs": [section["data"] for section in sections.values()],
        "comparison": tables.comparison(runs) if len(runs) > 1 else None,
        "colours": [to_hex(mpl.colormaps["cividis"](share)) for share in np.linspace(0, 1, _COLOURS)],
    }
    environment = templates("sim.report.page", html=True)
    # Users stay in their order, and a number that JSON lacks is an error here and not in the browser.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False, "separators": (",", ":")}
    environment.filters |= {"thousands": "{:,.0f}".format, "shell": shlex.join}
    asked = {
        "without_pauses": without_pauses,
        "data_uri": data_uri,
        "summary": summary,
        "tables": tables,
        "verdict_counts": verdict_counts,
    }
    asked |= {"verdicts_in_words": verdicts_in_words}
    environment.globals |= asked | {"most_in_load": _MOST_IN_LOAD}
    chart = _comparison_chart(runs) if len(runs) > 1 else None
    page = environment.get_template("report.html.j2").render(
        sections=sections, title=_title(runs), chart=chart, data=data
    )
    write_atomically(file, page)
    return file


def renew_page(folder: Path) -> None:
    """Write the page of a run or a sweep again where it lies in its folder, unless it compares it with others."""
    page = folder / "report.html"
    if page.is_file() and f"<title>{_title(_labelled([folder]))} - veilsim</title>" in page.read_text():
        write_page([folder])


def _title(runs: Mapping[str, Run]) -> str:
    return f"{len(runs)} runs compared" if len(runs) > 1 else next(iter(runs.values())).experiment.name


def _labelled(paths: Sequence[Path]) -> dict[str, Run]:
    """Return all runs, each once, by the shortest end of their paths that tells them apart."""
    runs: dict[Path, Run] = {}
    for path in paths:
        found = load(path)
        cells = [run for run in found.cells.values() if run.has_table] if isinstance(found, Sweep) else [found]
        if not cells:
            raise ConfigError(f"{path}: no cell of this sweep has results yet")
        runs |= {run.path: run for run in cells}
    for run in runs.values():
        _ = run.table  # says what is missing before anything is drawn
    parts = 1
    while len({path.parts[-parts:] for path in runs}) < len(runs):
        parts += 1
    return {"/".join(path.parts[-parts:]): run for path, run in runs.items()}


def _section(run: Run, budget: int) -> dict[str, Any]:
    """Return what the template needs of a run; ``data`` is for the page's script, ``budget`` characters of pictures."""
    boxes: list[Box] = []
    pictures: dict[str, Pictures] = {}
    measures: dict[str, list[dict[str, Any]]] = {}
    users = [Subject.of(run.experiment, user) for user in range(run.experiment.user_count)]
    for subject in dict.fromkeys([*users, CONTROL]):
        if (result := run.folder.attack(subject)) is not None:
            boxes += boxes_of(run.experiment, subject, result)
            pictures[subject.name] = pictures_of(result)
            # Of the pictures alone: those of all images, of many users, would be much at once.
            count = len(result.pictures["plain"])
            measures[subject.name] = [
                {
                    "label": estimate_title(name),
                    "psnr": [f"{value:.1f}" for value in measured.psnr[:count].tolist()],
                    "ssim": [f"{value:.2f}" for value in measured.ssim[:count].tolist()],
                }
                for name, measured in {"protected": result.protected, **result.estimates}.items()
            ]
    sprites, (table, common) = fit(pictures, budget), tables.users_table(run.table)
    shown = {name: {"sprite": uri, "rows": measures[name]} for name, uri in sprites.by_subject.items()}
    data = {
        "users": table,
        "extremes": _extremes(run, measures),
        "strips": {"common": sprites.common, "rows": sprites.names, "count": sprites.count, "subjects": shown},
        "studies": [
            {"table": tables.plain_table(study), "heat": tables.heat_map(study) if name == "transfer" else None}
            for name, study in run.studies.items()
        ],
    }
    found = {"common": common, "figures": _figures(run, boxes), "pictures": pictures, "sprites": sprites}
    return {"run": run, "data": data, **found}


def _extremes(run: Run, measures: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return whose images are given away most and least, in words, and which of their rows of pictures say it best."""
    found = list[dict[str, Any]]()
    for name, words in summary.extremes_in_words(run.table).items():
        subject = Subject.of(run.experiment, Subject.named(name).user).name
        if subject in measures:
            labels = [measured["label"] for measured in measures[subject]]
            rows = [0, labels.index(estimate_title(best_attack_on(run.table, name)))]
            found.append({"name": name, "subject": subject, "rows": rows, "words": words})
    return found


def _figures(run: Run, boxes: list[Box]) -> dict[str, Any]:
    """Return figures as data URIs, by name; of curves, panel by panel, so that each can be read on a phone."""
    users = range(run.experiment.user_count)
    curves = {f"user {user}": published.curve for user in users if (published := run.folder.user(user)) is not None}
    figures: dict[str, Any] = {"boxes": _svg(draw_psnr_boxes, boxes), "curves": _panels(curves, PANELS)}
    if points := trade_offs(measured_users(run.table)):
        figures["trade_off"] = _svg(draw_trade_off, points, HIDDEN)
    if averages := run.folder.rounds():
        figures["rounds"] = _panels({"average": averages}, ROUND_PANELS)
    if len(run.provider_load):
        figures["load"] = _provider_load(without_pauses(run.provider_load))
    return figures


def _panels(curves: dict[str, list[dict[str, float]]], panels: Sequence[Panel]) -> list[tuple[str, str]]:
    return [(panel.title, _svg(draw_learning_curves, curves, [panel])) for panel in panels]


def without_pauses(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a provider's load with nothing between two requests but an hour, where there was more.

    >>> without_pauses(pd.DataFrame({"second": [10, 20, 90_000, 90_001]}))["second"].tolist()
    [10, 20, 3620, 3621]
    """
    pauses = rows["second"].diff().fillna(0).astype("int64")
    return rows.assign(second=rows["second"] - (pauses - _LONGEST_PAUSE_S).clip(lower=0).cumsum())


def _provider_load(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Draw what the provider was asked for each second; of long runs, means over several seconds."""
    asked = rows.groupby("second")[["requests", "bytes"]].sum()
    asked = asked.reindex(range(asked.index.min(), asked.index.max() + 1), fill_value=0)
    width = -(-len(asked) // _MOST_IN_LOAD)
    unit, seconds = ("minutes", 60) if len(asked) > 600 else ("seconds", 1)
    x = f"{unit} since the first request"
    points = [
        {x: place * width / seconds, "requests": requests, "mb": sent / 1e6}
        for place, requests, sent in asked.groupby(np.arange(len(asked)) // width).mean().itertuples()
    ]
    panels = [Panel("requests", "requests a second", x=x), Panel("mb", "MB a second", x=x)]
    return _panels({"provider": points}, panels)


def _comparison_chart(runs: Mapping[str, Run]) -> str:
    found = {label: tables.numbers(run.table) for label, run in runs.items()}
    median, known = "a run's median user", {label: of for label, of in found.items() if "gap" in of}
    return _svg(draw_trade_off, [TradeOff(label, of["gap"], of["gain"], median) for label, of in known.items()], HIDDEN)


def _svg(draw: Callable[Concatenate[TextIO, P], None], *args: P.args, **kwargs: P.kwargs) -> str:
    """Return what ``draw`` draws as a data URI."""
    text = io.StringIO()
    draw(text, *args, **kwargs)
    return data_uri("image/svg+xml", text.getvalue().encode())
