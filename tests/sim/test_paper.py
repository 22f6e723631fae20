"""docs/paper.py: the pieces of Table I become one table."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.sim import made_up_run

ROOT = Path(__file__).parents[2]
TRAINING = {"epochs": 5}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder with the scripts and an empty page of their own."""
    folder = tmp_path / "docs"
    (folder / "results").mkdir(parents=True)
    for name in ("paper.py", "pages.py"):
        shutil.copyfile(ROOT / "docs" / name, folder / name)
    blocks = ("table-1", "attacks-resnet20")
    (folder / "PAPER.md").write_text("\n".join(f"<!-- begin {name} -->\n<!-- end {name} -->" for name in blocks))
    return folder


def piece(folder: Path, settings: list[dict[str, Any]], **more: Any) -> Path:
    users = {"count": len(settings), "settings": settings}
    user = {"width": 16, "training": TRAINING, "features": {"weights": "random"}}
    classifier = {"training": {"epochs": 24}}
    experiment = made_up_run.experiment_of(0, users=users, user=user, classifier=classifier, **more)
    return made_up_run.make(folder, experiment).path


def write(docs: Path, *runs: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows that are kept and the lines of Table I."""
    subprocess.run([sys.executable, docs / "paper.py", *runs], check=True)
    page = (docs / "PAPER.md").read_text().partition("<!-- end table-1")[0]
    return pd.read_csv(docs / "results" / "paper.csv"), [line for line in page.splitlines() if line.startswith("| ")]


def test_pieces_given_one_by_one_are_one_table_and_a_row_given_again_takes_its_own_place(
    docs: Path, tmp_path: Path
) -> None:
    networks = piece(tmp_path / "networks", [{"protection": {"kind": "plain"}}, {"alpha": 0.005}])
    keys = piece(tmp_path / "keys", [{"protection": {"kind": "tanaka"}}, {"alpha": 0.1, "width": 8}, {"alpha": 0.005}])
    write(docs, networks)
    rows, table = write(docs, keys, networks)
    again = "proposed, alpha 0.005, relu2_2"  # in both pieces, as another user
    methods = ["plain", again, "proposed, alpha 0.1, relu2_2, width 8", "Tanaka"]
    assert list(rows["method"].value_counts()[[*methods, "control: blur"]]) == [1, 2, 1, 1, 1]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table[2:]] == methods
    (line,) = (line for line in table if again in line)
    # Paper, gap; ours of two users, gap to 80% of plain images; VGG16-BN has not been run.
    ours = ["69.98 (69.98 to 69.99)", "-10.02 (-10.02 to -10.01)", "2"]
    assert line.split(" | ")[1:] == ["91.72", "+0.49", *ours, "91.94", "-0.29", "-", "-", "0 |"]


def test_another_seed_is_a_repetition_and_another_budget_another_column(docs: Path, tmp_path: Path) -> None:
    first = piece(tmp_path / "first", [{"alpha": 0.01}])
    second = piece(tmp_path / "second", [{"alpha": 0.01}], seed=1)
    content = yaml.safe_load((first / "config.yaml").read_text())
    content["classifier"]["training"]["epochs"] = content["user"]["training"]["epochs"] = 200
    content["user"]["width"] = 64
    full = tmp_path / "full"
    shutil.copytree(first, full)
    (full / "config.yaml").write_text(yaml.safe_dump(content))
    _, table = write(docs, first, second, full)
    header, (row,) = table[0].split(" | "), table[2:]
    assert header[3:9] == ["ours, CPU", "gap", "n", "ours, full", "gap", "n"]
    assert row.split(" | ")[5] == "2" and row.split(" | ")[8] == "1"
