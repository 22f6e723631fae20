"""What the tests of configs share: a file of a small one."""

from pathlib import Path

import pytest

from tests.sim.config.small import SMALL


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path
