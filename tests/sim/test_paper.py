"""docs/paper.py: the pieces of Table I become one table."""

import importlib
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from sim.figures import Box, whiskers
from sim.runs import RunFolder
from tests.sim import made_up_run

ROOT = Path(__file__).parents[2]
TRAINING = {"epochs": 5}


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with an empty page of its own."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    script = importlib.import_module("paper")
    page = tmp_path / "PAPER.md"
    blocks = ("table-1", "attacks-resnet20-CPU", "holds-resnet20-CPU")
    page.write_text("\n".join(f"<!-- begin {name} -->\n<!-- end {name} -->" for name in blocks))
    own = {"PAGE": page, "PICTURES": tmp_path / "pictures"}
    own |= {"ROWS": tmp_path / "paper.csv", "BOXES": tmp_path / "paper_psnr.csv"}
    for name, path in own.items():
        monkeypatch.setattr(script, name, path)
    return script


PLAIN, TANAKA = {"protection": {"kind": "plain"}}, {"protection": {"kind": "tanaka"}}


def piece(folder: Path, settings: list[dict[str, Any]], **more: Any) -> Path:
    users = {"count": len(settings), "settings": settings}
    user = {"width": 16, "training": TRAINING, "features": {"weights": "imagenet"}}
    classifier = {"training": {"epochs": 24}}
    experiment = made_up_run.experiment_of(0, users=users, user=user, classifier=classifier, **more)
    return made_up_run.make(folder, experiment).path


def write(docs: ModuleType, *runs: Path) -> tuple[pd.DataFrame, dict[str, list[list[str]]]]:
    """Return the rows that are kept, and the cells of each table of the page."""
    docs.main(runs)
    tables: dict[str, list[list[str]]] = {}
    for block in docs.PAGE.read_text().split("<!-- begin ")[1:]:
        lines = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("| ")]
        tables[block.split()[0]] = [lines[0], *lines[2:]] if lines else []
    return pd.read_csv(docs.ROWS), tables


def test_pieces_given_one_by_one_are_one_table_and_a_row_given_again_takes_its_own_place(
    docs: ModuleType, tmp_path: Path
) -> None:
    keys = piece(tmp_path / "keys", [TANAKA, PLAIN])
    networks = piece(tmp_path / "networks", [PLAIN, {"alpha": 0.005}])
    more = piece(tmp_path / "more", [{"alpha": 0.1, "width": 8}, PLAIN, {"alpha": 0.005}])
    write(docs, keys)
    rows, tables = write(docs, networks, more, networks)
    again = "proposed, alpha 0.005, relu2_2"  # in two pieces, as another user: a repetition, which plain images are not
    methods = ["plain", again, "proposed, alpha 0.1, relu2_2, width 8", "Tanaka"]
    assert list(rows["method"].value_counts()[[*methods, "control: blur"]]) == [1, 2, 1, 1, 1]
    assert [cells[0] for cells in tables["table-1"][1:]] == methods
    # Paper, gap; ours of two users, gap to 80% of plain images; VGG16-BN has not been run.
    ours = ["69.98 (69.98 to 69.99)", "-10.02 (-10.02 to -10.01)", "2"]
    assert tables["table-1"][2] == [again, "91.72", "+0.49", *ours, "91.94", "-0.29", "-", "-", "0"]
    assert [cells[0] for cells in tables["attacks-resnet20-CPU"][1:]] == [*methods, "control: blur"]


def test_a_setting_holds_if_both_accuracy_and_what_can_be_had_say_so(docs: ModuleType, tmp_path: Path) -> None:
    run = piece(tmp_path / "run", [{"alpha": 0.005}, {"alpha": 0.1}])  # made up: the first user's images are hidden
    _, tables = write(docs, run)
    assert [cells[-1] for cells in tables["holds-resnet20-CPU"][1:]] == ["no", "no"]
    table = pd.read_parquet(run / "table.parquet")
    table.assign(accuracy=0.79).to_parquet(run / "table.parquet")
    _, tables = write(docs, run)
    assert tables["holds-resnet20-CPU"][1:] == [
        ["proposed, alpha 0.005, relu2_2", "-1.00", "+0.5", "-0.05", "yes"],
        ["proposed, alpha 0.1, relu2_2", "-1.00", "+7.0", "+0.15", "no"],
    ]


def test_another_seed_is_a_repetition_another_budget_another_column_another_schedule_another_method(
    docs: ModuleType, tmp_path: Path
) -> None:
    first = piece(tmp_path / "first", [{"alpha": 0.01}, {"alpha": 0.01, "training": {"schedule": "one_cycle"}}])
    second = piece(tmp_path / "second", [{"alpha": 0.01}], seed=1)
    content = yaml.safe_load((second / "config.yaml").read_text())
    content["classifier"]["training"]["epochs"] = content["user"]["training"]["epochs"] = 200
    content["user"]["width"] = 64
    full = tmp_path / "full"
    shutil.copytree(second, full)
    (full / "config.yaml").write_text(yaml.safe_dump(content))
    _, tables = write(docs, first, second, full)
    header, usual, other = tables["table-1"]
    assert header[3:9] == ["ours, CPU", "gap", "n", "ours, full", "gap", "n"]
    assert (usual[5], usual[8]) == ("2", "1")
    assert (other[0], other[5], other[8]) == ("proposed, alpha 0.01, relu2_2, schedule one_cycle", "1", "0")


def test_the_boxes_of_fig_7_outlive_the_runs_they_were_taken_from(
    docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[Box]] = []
    monkeypatch.setattr(docs, "draw_psnr_boxes", lambda _, boxes: drawn.append(boxes))
    keys = piece(tmp_path / "keys", [TANAKA])
    write(docs, keys)
    estimates = RunFolder.open(keys).attack("user-0000").estimates["paper"].psnr
    shutil.rmtree(keys)
    write(docs, piece(tmp_path / "networks", [{"alpha": 0.1}, {"alpha": 0.1}, {"alpha": 0.1, "width": 8}]))
    labels = {box.label for box in drawn[-1]}
    assert labels == {"alpha 0.1, relu2_2", "Tanaka", "control: blur"}  # one of two repetitions, no other recipe
    (kept,) = [box for box in drawn[-1] if (box.label, box.group) == ("Tanaka", "ITN (paper)")]
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    assert torch.allclose(kept.values.double().quantile(at), estimates.double().quantile(at), atol=1e-3)
    assert whiskers(kept.values) == pytest.approx(whiskers(estimates), abs=1e-3)
