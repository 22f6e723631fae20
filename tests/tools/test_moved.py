"""docs/tools/moved.py: what psi, L_feat, PSNR and SSIM make of photographs that are moved."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from roles.common.weights import cpu_state, save
from roles.provider.classifiers import Classifier
from tests.sim import made_up_run


@pytest.fixture
def script(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("moved")


def test_a_moved_image_is_black_where_nothing_is_left(script: ModuleType) -> None:
    image = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=torch.uint8).view(1, 1, 3, 3)
    assert script.moved(image, 1, 2).tolist() == [[[[0, 0, 0], [0, 0, 1], [0, 0, 4]]]]
    assert torch.equal(script.moved(image, 0, 0), image)


def test_the_table_has_a_row_a_move_and_unmoved_images_lose_nothing(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "MOVES", ((0, 0), (2, 1)))
    experiment = made_up_run.experiment_of(1, data={"name": "digits", "size": 16})
    run = made_up_run.start(tmp_path / "run", experiment)
    torch.manual_seed(0)
    save(run.path / "provider" / "psi.safetensors", cpu_state(Classifier("resnet20", 10)))
    _, _, *rows = script.table(run.path, run.experiment()).splitlines()
    unmoved, moved = (row.strip("| ").split(" | ") for row in rows)
    assert (unmoved[0], *unmoved[2:]) == ("0, 0", "0.00", "0.00", "100.0", "1.00")
    assert moved[0] == "2, 1"
    assert float(moved[3]) > 0 and float(moved[4]) < 20 and float(moved[5]) < 1
