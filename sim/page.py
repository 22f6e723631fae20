"""A run, or several compared, as one HTML file that holds everything within itself and asks no network for anything."""

import base64
import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from roles.evaluator.attack import Measured
from sim.config import ConfigError
from sim.evaluator_node import BLUR
from sim.figures import Box, Panel, draw_learning_curves, draw_psnr_boxes
from sim.nodes import user_name
from sim.page_strips import Pictures, fit
from sim.page_tables import (
    MOST_IN_HEAT_MAP,
    MOST_ROWS,
    VERDICTS,
    comparison,
    heat_map,
    numbers,
    plain_table,
    users_table,
)
from sim.progress import write_atomically
from sim.result_table import HIDDEN, measured_users
from sim.results import Run, Sweep, load
from sim.run_figures import PANELS, ROUND_PANELS, boxes_of, estimate_title, trade_offs
from sim.runs import subject_of
from sim.summary import control_of, findings, introduction
from sim.trade_off_figures import TradeOff, draw_trade_off

_BUDGET = 9_000_000
"""Characters of all pictures in a page."""
_LOAD_POINTS = 400
_COLOURS = 64


@dataclass(frozen=True)
class Figure:
    """A picture in the page: a data URI, what it shows in words, and what is said below it."""

    source: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Study:
    """What one study of a run found."""

    name: str
    conclusion: str
    rows: int
    picture: Figure | None
    heat_map: dict[str, Any] | None
    table: dict[str, Any]


@dataclass(frozen=True)
class Section:
    """What the page says and shows of one run; ``data`` is for its script."""

    label: str
    run: Run
    headline: str
    introduction: str
    findings: list[str]
    numbers: dict[str, float]
    verdicts: dict[str, int]
    control: str
    common: dict[str, str]
    figures: list[Figure]
    provider_load: Figure | None
    studies: list[Study]
    pictures: str
    config: str
    command: str
    environment: dict[str, str]
    data: dict[str, Any]


def write_page(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of runs and sweeps, whose complete cells count as runs.

    Args:
        paths: run folders and folders of sweeps, at least one.
        out: the file; by default ``report.html`` in the first folder.

    Returns:
        the file.

    Raises:
        ConfigError: a folder is neither, or has no results yet; or ``out`` is a folder.
    """
    file = out or paths[0] / "report.html"
    if file.is_dir():
        raise ConfigError(f"{file}: is a folder; name a file, such as {file / 'report.html'}")
    runs = _labelled(_runs(paths))
    sections = [_section(label, run, _BUDGET // len(runs)) for label, run in runs.items()]
    several = len(sections) > 1
    data = {
        "runs": [section.data for section in sections],
        "comparison": comparison(runs) if several else None,
        "colours": [to_hex(mpl.colormaps["cividis"](share)) for share in np.linspace(0, 1, _COLOURS)],
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sim"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Users stay in their order, and a number that JSON lacks is an error here and not in the browser.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False, "separators": (",", ":")}
    page = environment.get_template("report.html.j2").render(
        title=sections[0].run.experiment.name if not several else f"{len(sections)} runs compared",
        sections=sections,
        chart=_comparison_chart(sections) if several else None,
        data=data,
        verdict_names=VERDICTS,
        most_rows=MOST_ROWS,
        most_in_heat_map=MOST_IN_HEAT_MAP,
    )
    write_atomically(file, page)
    return file


def _runs(paths: Sequence[Path]) -> list[Run]:
    runs: list[Run] = []
    for path in paths:
        found = load(path)
        cells = [run for run in found.cells.values() if run.has_table] if isinstance(found, Sweep) else [found]
        if not cells:
            raise ConfigError(f"{path}: no cell of this sweep has results yet")
        runs += cells
    for run in runs:
        _ = run.table  # says what is missing before anything is drawn
    return runs


def _labelled(runs: Sequence[Run]) -> dict[str, Run]:
    """Return runs by the shortest end of their paths that tells them apart; one that is given twice counts once."""
    distinct = list({run.path: run for run in runs}.values())
    parts = 1
    while len({run.path.parts[-parts:] for run in distinct}) < len(distinct):
        parts += 1
    return {"/".join(run.path.parts[-parts:]): run for run in distinct}


def _section(label: str, run: Run, budget: int) -> Section:
    experiment, table = run.experiment, run.table
    boxes, shown = _attacked(run)
    users, common = users_table(table)
    control = control_of(table)
    counted = table[table["subject"] != BLUR].get("verdict", pd.Series(dtype=str)).value_counts()
    verdicts = {verdict: int(counted[verdict]) for verdict in VERDICTS if verdict in counted}
    strips, pictures = _strips(shown, budget)
    studies = _studies(run)
    facts = run.facts
    command = list(facts.get("command", []))
    return Section(
        label=label,
        run=run,
        headline=_headline(verdicts, experiment.user_count, control is not None and control[3]),
        introduction=" ".join(introduction(facts, experiment)),
        findings=[line.removeprefix("- ") for line in findings(table, experiment)],
        numbers=numbers(table),
        verdicts=verdicts,
        control="missing" if control is None else "works" if control[3] else "too weak",
        common=common,
        figures=_figures(run, boxes),
        provider_load=_provider_load(run.provider_load),
        studies=studies,
        pictures=pictures,
        config=(run.path / "config.yaml").read_text(),
        # In another Flower app's process it would be Flower's own command.
        command=shlex.join(["veilsim", *command]) if command[:1] == ["run"] else "veilsim run config.yaml",
        environment=_environment(facts),
        data={
            "users": users,
            "strips": strips,
            "studies": [{"table": study.table, "heat": study.heat_map} for study in studies],
        },
    )


def _headline(verdicts: Mapping[str, int], users: int, control_works: bool) -> str:
    """Say in a sentence whether anything was hidden, and whether that means anything.

    >>> _headline({"recovered": 3, "visible": 1}, 4, True)
    'None of 4 users is hidden.'
    >>> _headline({"hidden": 1}, 4, False)
    '1 of 4 users: hidden from these attacks, which also fail on the positive control, so that it means nothing.'
    """
    hidden = verdicts.get("hidden", 0)
    if not hidden:
        return f"None of {users:,} users is hidden." if users > 1 else "The user is not hidden."
    doubt = "" if control_works else ", which also fail on the positive control, so that it means nothing"
    return f"{hidden:,} of {users:,} users: hidden from these attacks{doubt}."


def _environment(facts: Mapping[str, Any]) -> dict[str, str]:
    hardware = {"processor": facts.get("processor"), "CPUs": facts.get("cpus"), "GPU": facts.get("gpu")}
    times = {
        "time": facts.get("seconds"),
        "time, classifier": facts.get("psi", {}).get("seconds"),
        "time, users": facts.get("users_seconds"),
        "time, attacks": facts.get("attacks_seconds"),
    }
    versions = {name: facts.get(name) for name in ("veilsim", "python")} | facts.get("packages", {})
    return {
        **{name: str(value) for name, value in hardware.items() if value is not None},
        "platform": str(facts.get("platform", "")),
        **{name: f"{value:,.0f} s" for name, value in times.items() if value},
        "psi (SHA-256)": str(facts.get("psi", {}).get("digest", "")),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items() if number),
    }


# ---- pictures and figures ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """The pictures of one attacked subject, and what is said below them."""

    pictures: Pictures
    rows: list[dict[str, Any]]


def _attacked(run: Run) -> tuple[list[Box], dict[str, Shown]]:
    """Return the boxes of all that was attacked, and by subject the pictures; measures of other images are let go."""
    users = [subject_of(run.experiment, user) for user in range(run.experiment.user_count)]
    known = {path.parent.name for path in run.path.glob("attacks/*/measures.safetensors")}
    boxes: list[Box] = []
    shown: dict[str, Shown] = {}
    for subject in dict.fromkeys([*users, BLUR]):
        if subject in known:
            result = run.attack(subject)
            boxes += boxes_of(run.experiment, subject, result)
            measured = {"protected": result.protected, **result.estimates}
            pictures = {name: result.pictures[name].permute(0, 2, 3, 1).numpy() for name in ("plain", *measured)}
            rows = [_strip_row(name, measures, len(pictures["plain"])) for name, measures in measured.items()]
            shown[subject] = Shown(pictures, rows)
    return boxes, shown


def _strip_row(name: str, measured: Measured, count: int) -> dict[str, Any]:
    return {
        "label": name if name == "protected" else estimate_title(name),
        "psnr": [f"{value:.1f}" for value in measured.psnr[:count].tolist()],
        "ssim": [f"{value:.2f}" for value in measured.ssim[:count].tolist()],
    }


def _strips(shown: Mapping[str, Shown], budget: int) -> tuple[dict[str, Any], str]:
    """Return the image strips for the page's script, and a sentence on what is left out."""
    if not shown:
        return {"subjects": {}}, "There are no pictures: nobody was attacked."
    sprites = fit({subject: of.pictures for subject, of in shown.items()}, budget)
    there = len(next(iter(shown.values())).pictures["plain"])
    subjects = {subject: {"sprite": uri, "rows": shown[subject].rows} for subject, uri in sprites.by_subject.items()}
    said = [
        f"{sprites.count} of the {there} test images that the run kept" if sprites.count < there else "",
        f"{len(subjects)} of {len(shown)} subjects" if len(subjects) < len(shown) else "",
        "" if sprites.lossless else "pictures compressed with loss (measures are those of the exact ones)",
    ]
    left_out = "; ".join(filter(None, said))
    return {"plain": sprites.plain, "count": sprites.count, "subjects": subjects}, (
        f"For this page to stay small, it holds {left_out}." if left_out else ""
    )


def _svg(draw: Callable[[TextIO], None]) -> str:
    text = io.StringIO()
    draw(text)
    return _data_uri("image/svg+xml", text.getvalue().encode())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _figures(run: Run, boxes: list[Box]) -> list[Figure]:
    curves: dict[str, list[dict[str, float]]] = {user_name(n): [] for n in range(run.experiment.user_count)}
    for row in run.curves.to_dict("records"):
        curves[row.pop("user")].append({str(key): float(value) for key, value in row.items()})
    named = {f"user {number}": rows for number, rows in enumerate(curves.values()) if rows}
    measured = measured_users(run.table)
    figures = [
        Figure(
            _svg(lambda to: draw_psnr_boxes(to, boxes)),
            "Box plots of the PSNR of protected images, of each attack's estimates and of the class mean, by user.",
            "PSNR against the plain test images, as in the paper's Fig. 7: quartiles and median, whiskers within 1.5 "
            "interquartile ranges.",
        )
    ]
    if not measured.empty:
        points = trade_offs(measured)
        figures.append(
            Figure(
                _svg(lambda to: draw_trade_off(to, points, HIDDEN)),
                "Scatter plot of accuracy lost against what can be seen, a mark a user.",
                "What protection costs against what can be seen; only in the grey corner do both hold.",
            )
        )
    figures.append(
        Figure(
            _svg(lambda to: draw_learning_curves(to, named, PANELS)),
            "Learning curves: training loss, validation feature loss, objective and accuracy against the epoch.",
            "Learning curves of the users.",
        )
    )
    if not run.rounds.empty:
        averages = [{str(key): float(value) for key, value in row.items()} for row in run.rounds.to_dict("records")]
        figures.append(
            Figure(
                _svg(lambda to: draw_learning_curves(to, {"average": averages}, ROUND_PANELS)),
                "Loss and accuracy of the average on validation images against the round.",
                "How the average of each round does on validation images.",
            )
        )
    return figures


def _provider_load(rows: pd.DataFrame) -> Figure | None:
    """Draw what the provider was asked for each second; of long runs, means over several seconds."""
    if rows.empty:
        return None
    by_second = rows.groupby("second").sum()
    seconds = pd.RangeIndex(by_second.index.min(), by_second.index.max() + 1)
    filled = by_second.reindex(seconds, fill_value=0).reset_index(drop=True)
    width = -(-len(filled) // _LOAD_POINTS)
    means = filled.groupby(filled.index // width).mean()
    long = len(filled) > 600
    x = "minutes since the first request" if long else "seconds since the first request"
    points = [
        {x: number * width / (60 if long else 1), "requests": float(requests), "mb": float(sent) / 1e6}
        for number, (requests, sent) in enumerate(means[["requests", "bytes"]].to_numpy())
    ]
    panels = [Panel("requests", "requests a second", x=x), Panel("mb", "MB a second", x=x)]
    total = f"{int(rows['requests'].sum()):,} requests, {int(rows['images'].sum()):,} images, "
    total += f"{rows['bytes'].sum() / 1e6:,.0f} MB in {len(filled):,} s"
    return Figure(
        _svg(lambda to: draw_learning_curves(to, {"provider": points}, panels)),
        "Requests and megabytes a second at the provider, over the time of the run.",
        f"Load of the provider: {total}" + (f"; means over {width} s." if width > 1 else "."),
    )


def _comparison_chart(sections: Sequence[Section]) -> Figure:
    points = [
        TradeOff(s.label, s.numbers["gap"], s.numbers["gain"], "a run's median user")
        for s in sections
        if "gap" in s.numbers
    ]
    return Figure(
        _svg(lambda to: draw_trade_off(to, points, HIDDEN)),
        "Scatter plot of accuracy lost against what can be seen, a mark a run.",
        "What protection costs the median user of each run against what can be seen.",
    )


def _studies(run: Run) -> list[Study]:
    studies: list[Study] = []
    for name, table in run.studies.items():
        heat = heat_map(table) if name == "transfer" else None
        file = run.path / "figures" / f"study-{name}.png"
        picture = None
        if heat is None and file.is_file():
            picture = Figure(_data_uri("image/png", file.read_bytes()), f"Figure of the study {name}.", "")
        studies.append(Study(name, run.conclusions.get(name, ""), len(table), picture, heat, plain_table(table)))
    return studies
