"""docs/tools/studies.py: the blocks of STUDIES.md are what run folders say."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sim.run.folder import RunFolder
from sim.run.sweep import SweepFolder, load_cells
from tests.sim import made_up_run

SUMMARY = """# made-up

|  | acc. |
|---|---|
| user 0 | 70.0 |

- 1 of 2 users: hidden.
- inversion: Nothing is left to be said.
"""


@pytest.fixture
def page(tool: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the script on a folder, and return what it has made of a page with the blocks that are named."""
    script, path = tool("studies"), tmp_path / "STUDIES.md"
    monkeypatch.setattr(script, "PAGE", path)
    monkeypatch.setattr(script, "PICTURES", tmp_path / "studies")

    def written(folder: Path, *names: str) -> str:
        path.write_text("\n".join(f"<!-- begin {name} -->\nold\n<!-- end {name} -->" for name in names))
        script.main([folder])
        return path.read_text()

    return written


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Two users that one study was about."""
    experiment = made_up_run.experiment_of(2, studies=[{"kind": "inversion"}])
    run = made_up_run.start(tmp_path / "run", experiment)
    for user in range(2):
        made_up_run.keep_training(run, user)
        row: dict[str, str | int | float] = {
            "user": user,
            "distance": 0.25,
            "psnr": 20.0,
            "ssim": 0.5,
            "gain_ssim": 0.25,
        }
        run.keep_findings("inversion", str(user), [0, 1], [row])
    (run.path / "summary.md").write_text(SUMMARY)
    (run.path / "figures").mkdir()
    (run.path / "figures" / "study-inversion.png").write_bytes(b"picture")
    return run


def test_the_block_of_a_run_is_its_table_and_what_is_said_but_of_studies(
    run: RunFolder, page: Callable[..., str]
) -> None:
    text = page(run.path, "made-up")
    table = "|  | acc. |\n|---|---|\n| user 0 | 70.0 |"
    assert text == f"<!-- begin made-up -->\n{table}\n\n- 1 of 2 users: hidden.\n<!-- end made-up -->"


def test_the_block_of_a_study_has_its_conclusion_its_table_and_its_picture(
    run: RunFolder, page: Callable[..., str], tmp_path: Path
) -> None:
    said, table, picture = page(run.path, "made-up/inversion").split("\n\n")
    assert "Descent through h_theta reaches SSIM 0.50" in said
    header, _, first, second = table.splitlines()
    assert header.startswith("| user | distance | psnr | ssim |")
    assert first.startswith("| user-0000 | 0.25 | 20 | 0.5 |") and second.startswith("| user-0001 | 0.25 | 20 | 0.5 |")
    assert picture.startswith("![study-inversion, made-up](studies/made-up-study-inversion.png)")
    assert (tmp_path / "studies" / "made-up-study-inversion.png").read_bytes() == b"picture"


def test_the_blocks_of_a_sweep_are_its_table_and_those_of_its_cells(page: Callable[..., str], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("name: swept\nsweep: {seed: [0, 1]}\n")
    sweep = SweepFolder.create(tmp_path / "swept", "swept", load_cells(config))
    for seed, run in enumerate(sweep.runs()):
        (run.path / "summary.md").write_text(f"| seed {seed} |\n- seed {seed} is said\n")
    (sweep.path / "summary.md").write_text("# swept\n\n| both |\n\n**labels**: right.\n\n| cell |\n\n`page`\n")
    text = page(sweep.path, "swept", "swept/seed=1")
    assert text.splitlines() == [
        "<!-- begin swept -->",
        "| both |",
        "",
        "**labels**: right.",
        "",
        "| cell |",
        "<!-- end swept -->",
        "<!-- begin swept/seed=1 -->",
        "| seed 1 |",
        "",
        "- seed 1 is said",
        "<!-- end swept/seed=1 -->",
    ]
