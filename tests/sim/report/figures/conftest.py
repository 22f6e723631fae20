"""What the tests of figures share: the figures as they were written."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sim.report.figures import style


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Figures as they were written, by the names of their files."""
    figures: dict[str, Figure] = {}

    def keep(figure: Figure, to: Path) -> None:
        figures[to.stem] = figure
        save(figure, to)

    save = style.save_figure
    monkeypatch.setattr(style, "save_figure", keep)
    return figures
