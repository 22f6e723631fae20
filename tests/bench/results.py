"""What one way of the exchange was measured to do on a CPU, and the table that compares them."""

import statistics
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Result:
    """One way, once."""

    steps_per_s: float
    cpu_s_per_step: float
    bytes_per_step: float = 0.0
    request_p50_ms: float | None = None
    request_p95_ms: float | None = None
    peak_mb: dict[str, float] | None = None
    digests: dict[str, str] | None = None
    """Of each user's published theta."""


def table_of(point: str, results: dict[str, list[Result]]) -> Table:
    """Return medians, the spread of the throughput, and its ratio to the limit."""
    table = Table(title=f"{point}: medians of {len(next(iter(results.values())))}")
    for column in (
        "",
        "steps/s",
        "spread",
        "of limit",
        "CPU s/step",
        "kB/step",
        "request p50/p95 ms",
        "peak MB",
        "theta",
    ):
        table.add_column(column, justify="left" if column in ("", "peak MB", "theta") else "right")
    limit = statistics.median(r.steps_per_s for r in results["limit"]) if "limit" in results else None
    expected = results["limit"][0].digests if "limit" in results else None
    for way, found in results.items():
        rates = [result.steps_per_s for result in found]
        median, first = statistics.median(rates), found[0]
        timed = first.request_p50_ms is not None
        peaks: dict[str, float] = {}
        for result in found:
            for kind, value in (result.peak_mb or {}).items():
                peaks[kind] = max(peaks.get(kind, 0.0), value)
        same = "-" if first.digests is None or expected is None else "same" if first.digests == expected else "differs"
        table.add_row(
            way,
            f"{median:.2f}",
            f"{min(rates):.2f}-{max(rates):.2f}",
            "-" if limit is None else f"{median / limit:.2f}",
            f"{statistics.median(result.cpu_s_per_step for result in found):.3f}",
            f"{statistics.median(result.bytes_per_step for result in found) / 1000:.0f}",
            f"{statistics.median(r.request_p50_ms or 0 for r in found):.0f}/"
            f"{statistics.median(r.request_p95_ms or 0 for r in found):.0f}"
            if timed
            else "-",
            ", ".join(f"{kind} {value:.0f}" for kind, value in sorted(peaks.items())),
            same,
        )
    return table
