"""Texts that tell whether they are whole: of a config that is cut off, the rest would be another experiment."""

import hashlib
import re
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
    seal = re.search(rb"%b([0-9a-f]{64})\n?" % re.escape(_SEAL.encode()), content)
    if seal is None:
        raise UnreadableFile(f"{path}: cut off, so that what is left is another experiment; restore it from a copy")
    if seal.end() < len(content) or seal[1].decode() != hashlib.sha256(content[: seal.start()]).hexdigest():
        told = "changed by hand since the run began, which would go on as another"
        raise UnreadableFile(f"{path}: {told}; 'veilsim run {path}' begins what it says now")
