"""Files that are written whole or not at all, and what is said of one that cannot be read."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class UnreadableFile(ValueError):
    """A file that is missing, cut off or damaged; the message is one line that names it."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, which takes the place of ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` so that ``path`` holds either the old content or the whole new one."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFile: it is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UnreadableFile(f"{path}: damaged, it is not the JSON that was written ({error})") from error


def is_local(name: str) -> bool:
    """Return whether a name is that of a file or folder here, as a person writes it, whether it is there or not."""
    return name.startswith((".", "/", "~")) or Path(name).exists()


def absolute(name: str) -> Path:
    """Return the path that a person's name for a file or folder means.

    Raises:
        FileNotFoundError: it begins with the home of somebody who has none here.
    """
    try:
        return Path(name).expanduser().resolve()
    except RuntimeError as error:
        raise FileNotFoundError(f"{name}: nobody of that name has a home here") from error


def writing_of(path: Path) -> tuple[int, int]:
    """Return what tells one writing of a file from the next; zeros where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns
