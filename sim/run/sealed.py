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
    text, _, seal = content.rpartition(_SEAL.encode())
    if seal.decode(errors="replace").strip() != hashlib.sha256(text).hexdigest():
        told = "cut off, or changed by hand, so that the run would go on as another"
        raise UnreadableFile(f"{path}: {told}; 'veilsim run {path}' runs what it says anew")
