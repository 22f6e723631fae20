"""Several runs on one page."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sim.config.errors import ConfigError
from sim.report.page.tables import differences, numbers
from sim.report.page.write import write_page
from sim.run.folder import RunFolder
from sim.run.subject import Subject
from sim.run.sweep import SweepFolder, load_cells
from tests.sim import made_up_run
from tests.sim.report.page.parsed import Page, column


def test_several_runs_are_compared_by_what_differs(run: RunFolder, tmp_path: Path) -> None:
    other = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(4, seed=7))
    page = Page(write_page([run.path, other.path, run.path], tmp_path / "both.html"))
    table = page.data["comparison"]
    assert column(table, "run") == [f"{run.path.parent.name}/run", f"{tmp_path.name}/run"]
    assert column(table, "seed") == [0, 7]
    assert column(table, "users.count") == [5, 4]
    assert not {"name", "user.alpha"} & {column["key"] for column in table["columns"]}
    assert column(table, "recovered") == [0.2, 0.25]
    assert column(table, "failed") == [0.2, 0.0]
    assert len(page.data["runs"]) == 2


def test_runs_compared_have_the_marks_that_their_users_have_in_their_own_charts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[tuple[float, float]]] = []
    monkeypatch.setattr(
        "sim.report.page.write.draw_trade_off",
        lambda to, points, _: drawn.append([(p.accuracy, p.gain) for p in points]),
    )
    better = {"class_mean": 0.1, "mean_image": 0.25}, {"class_mean": 0.2, "mean_image": 0.1}
    for number, guesses in enumerate(better):
        run = made_up_run.start(tmp_path / str(number), made_up_run.experiment_of(1))
        baselines = {name: made_up_run.measured(12, ssim, None) for name, ssim in guesses.items()}
        made_up_run.keep_training(run, 0)
        run.keep_attack(Subject("user", 0), replace(made_up_run.attack_of(0), baselines=baselines))
        made_up_run.finish(run)
    write_page([tmp_path / "0", tmp_path / "1"])
    first, second, compared = drawn
    assert compared == [*first, *second]


def test_the_numbers_of_a_run_are_medians_over_its_users() -> None:
    measures = {
        "plain_accuracy": 0.8,
        "class_mean_ssim": 0.2,
        "mean_image_ssim": 0.1,
        "protected_psnr": 9.0,
        "protected_ssim": 0.15,
    }
    rows = [
        {
            "accuracy": 0.7,
            "itn_a_psnr": 9.0,
            "itn_a_ssim": 0.3,
            "itn_b_psnr": 9.0,
            "itn_b_ssim": 0.5,
            "verdict": "recovered",
        },
        {
            "accuracy": 0.5,
            "itn_a_psnr": 9.0,
            "itn_a_ssim": 0.4,
            "itn_b_psnr": 9.0,
            "itn_b_ssim": 0.1,
            "verdict": "partial",
        },
        {
            "accuracy": 0.6,
            "itn_a_psnr": 9.0,
            "itn_a_ssim": 0.6,
            "itn_b_psnr": 9.0,
            "itn_b_ssim": 0.7,
            "verdict": "recovered",
        },
    ]
    users = [{"subject": f"user-{number:04d}", **measures, **row} for number, row in enumerate(rows)]
    users[0] |= {"mean_image_ssim": 0.25}
    table = pd.DataFrame([*users, {"subject": "user-0003"}, {"subject": "control-blur", "accuracy": 0.1}])
    found = numbers(table)
    assert (found["users"], found["accuracy"]) == (3, 0.6)
    assert found["gap"] == pytest.approx(-20)
    assert found["ssim"] == 0.5  # of 0.5, 0.4 and 0.7
    assert found["gain"] == pytest.approx(0.25)  # of 0.25, 0.2 and 0.5
    shares = {"hidden": 0, "partial": 0.25, "recovered": 0.5, "visible": 0, "failed": 0.25}
    assert {name: found[name] for name in shares} == shares


def test_configs_differ_in_the_keys_whose_values_do() -> None:
    experiments = {"a": made_up_run.experiment_of(2), "b": made_up_run.experiment_of(2, user={"alpha": 0.5}, seed=1)}
    found = differences(experiments)
    assert list(found["a"]) == ["seed", "user.alpha"]
    assert found["b"] == {"seed": 1, "user.alpha": 0.5}


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    config = tmp_path / "sweep.yaml"
    base = made_up_run.experiment_of(2).model_dump(mode="json")
    config.write_text(yaml.safe_dump(base | {"sweep": {"user.alpha": [0.1, 0.2, 0.3]}}))
    return SweepFolder.create(tmp_path / "out", "made-up", load_cells(config))


def test_the_complete_cells_of_a_sweep_are_runs(sweep: SweepFolder, tmp_path: Path) -> None:
    for number, cell in enumerate(sweep.runs()[:2]):
        made = made_up_run.make(tmp_path / str(number), cell.experiment())
        made.path.rename(tmp_path / "made")
        cell.path.rename(tmp_path / f"empty-{number}")
        (tmp_path / "made").rename(cell.path)
    table = Page(write_page([sweep.path])).data["comparison"]
    assert column(table, "run") == ["alpha=0.1", "alpha=0.2"]
    assert column(table, "user.alpha") == [0.1, 0.2]


def test_a_sweep_of_which_nothing_is_done_is_one_line(sweep: SweepFolder) -> None:
    with pytest.raises(ConfigError, match=r"no cell of this sweep has results yet$"):
        write_page([sweep.path])
