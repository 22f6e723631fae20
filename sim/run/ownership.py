"""Who runs a run: one process at a time, and none that outlives whoever started it."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sim.config.errors import ConfigError


@contextmanager
def claim(run: Path, part: str) -> Iterator[None]:
    """Hold one ``part`` of a run folder, ``launcher`` or ``server``, until the block or the process ends.

    Raises:
        ConfigError: another process holds it.
    """
    lock = run / "state" / f"{part}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{run}: another process is working on this run; wait for it or stop it") from error
        yield


def is_of_a_beginning(path: Path) -> bool:
    """Return whether a file or folder may be what a beginning of a run has left that came no further."""
    if path.name == "state" and path.is_dir():
        return all(inside.name == "launcher.lock" for inside in path.iterdir())
    return path.suffix == ".partial" or path.name == "run.json"


def watch_owner(owner: int) -> None:
    """End this process when the process ``owner`` is gone; 0 watches nobody.

    ``veilsim run`` ends what it started, but cannot when it is killed itself.
    """
    if not owner:
        return

    def watch() -> None:
        while True:
            try:
                os.kill(owner, 0)
            except ProcessLookupError:
                os._exit(1)
            time.sleep(1)

    threading.Thread(target=watch, daemon=True, name="watch-owner").start()
