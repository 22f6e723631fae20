"""Texts that tell whether they are whole: of a config that is cut off, the rest would be another experiment."""

import hashlib
from pathlib import Path

from roles.common.files import UnreadableFile, write_atomically

_SEAL = "# sha256 of the above: "


def write_sealed(path: Path, text: str) -> None:
    """Write a text with a last line, a comment of YAML, that fits nothing else."""
    write_atomically(path, f"{text}{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n")


def check_sealed(path: Path) -> None:
    """Check that a text is as :func:`write_sealed` has written it.

    Raises:
        UnreadableFile: it is cut off, or changed.
    """
    content = path.read_bytes()
    text, found, seal = content.rpartition(_SEAL.encode())
    told = seal.decode(errors="replace").strip()
    if not found or len(told) != len(hashlib.sha256().hexdigest()):
        raise UnreadableFile(f"{path}: cut off: what is left is another experiment; restore it from a copy")
    if told != hashlib.sha256(text).hexdigest():
        raise UnreadableFile(
            f"{path}: changed by hand since the run began, which would go on as another; 'veilsim run {path}' begins "
            "what it says now"
        )
