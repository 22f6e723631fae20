"""What is drawn, and whether it was."""

from pathlib import Path

import torch


def assert_drawn(path: Path) -> None:
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pdf = path.with_suffix(".pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and pdf.rstrip().endswith(b"%%EOF")
    # Neither partial files nor folders of them.
    assert {file.name for file in path.parent.iterdir()} == {f"{path.stem}.png", f"{path.stem}.pdf"}


def noise(count: int, side: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def rows_of(user: int, epochs: int) -> list[dict[str, float]]:
    return [{"epoch": epoch, "loss": (1 + user) / (1 + epoch)} for epoch in range(epochs)]
