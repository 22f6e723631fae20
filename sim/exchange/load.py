"""What users and evaluators ask of the provider, counted second by second."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping

MOST_ROWS = 5000


class ProviderLoad:
    """Requests to the provider by the second in which they reached it; may be told of them from any thread.

    At :data:`MOST_ROWS` seconds with a request, neighbours are put together: two, then four, and so on.

    Args:
        rows: what was counted before.
        clock: seconds since the epoch.
    """

    def __init__(self, rows: Iterable[Mapping[str, int]] = (), clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._width = 1
        self._counts: dict[int, list[int]] = {}
        self.add(rows)

    def count(self, images: int, size: int) -> None:
        """Count a request with so many images and bytes."""
        with self._lock:
            self._add(int(self._clock()), [1, images, size])

    def add(self, rows: Iterable[Mapping[str, int]]) -> None:
        """Add what was counted elsewhere."""
        with self._lock:
            for row in rows:
                self._widen(row["width"])
                self._add(row["second"], [row["requests"], row["images"], row["bytes"]])

    def rows(self) -> list[dict[str, int]]:
        """Return what was counted, in order.

        A row is ``second`` (since the epoch, the first that it covers), ``width`` (how many it covers), ``requests``,
        ``images`` in them, and ``bytes`` of their arrays. Seconds without a request have none.
        """
        with self._lock:
            return [
                {"second": second, "width": self._width, "requests": requests, "images": images, "bytes": size}
                for second, (requests, images, size) in sorted(self._counts.items())
            ]

    def _add(self, second: int, count: list[int]) -> None:
        second -= second % self._width
        self._counts[second] = [a + b for a, b in zip(self._counts.get(second, (0, 0, 0)), count, strict=True)]
        if len(self._counts) >= MOST_ROWS:
            self._widen(2 * self._width)

    def _widen(self, width: int) -> None:
        if width > self._width:
            counts, self._counts, self._width = self._counts, {}, width
            for second, count in counts.items():
                self._add(second, count)
