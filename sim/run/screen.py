"""Shows whoever waits for a run what it does: a line that changes in a terminal, a line now and then elsewhere."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sim.run.progress import Status
from sim.run.progress_line import WIDTH, ProgressLine

_INTERVAL_S = 0.25
_LOG_INTERVAL_S = 30
"""Outside a terminal; what is new to do is told at once."""


def is_screen(console: Console) -> bool:
    """Return whether a console is a terminal in which a line can be drawn anew."""
    return console.is_terminal and not console.is_dumb_terminal


class Screen:
    """Tells what a run does while the context lasts, from a thread of its own.

    Args:
        console: where.
        run: the run's folder.
    """

    def __init__(self, console: Console, run: Path) -> None:
        self._console, self._run, self._line = console, run, ProgressLine(run)
        self._live = Live(console=console, auto_refresh=False, transient=True) if is_screen(console) else None
        self._ended, self._thread = threading.Event(), threading.Thread(target=self._tell, daemon=True)
        self._instead = ""
        self._told: tuple[str, float] = ("", 0.0)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._live is not None:
            self._live.stop()

    def say(self, doing: str) -> None:
        """Tell this from now on, instead of what the run's status says."""
        self._instead = doing

    def _tell(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            # Files of a run come and go.
            with suppress(OSError):
                self._show(Status.read(self._run))

    def _show(self, status: Status) -> None:
        if self._instead:
            status = Status("ending", self._instead)
        elif status.phase in ("complete", "failed"):
            return
        if self._live is not None:
            line = self._line.of(status, min(WIDTH, self._console.width))
            self._live.update(Text(line, no_wrap=True, overflow="crop"), refresh=True)
            return
        doing, now = status.doing or status.phase, time.monotonic()
        if doing != self._told[0] or now - self._told[1] >= _LOG_INTERVAL_S:
            self._told = (doing, now)
            self._console.print(self._line.of(status), markup=False, soft_wrap=True)
