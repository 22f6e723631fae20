"""What a ladder of attacks adds to a run's table, summary and page."""

from pathlib import Path
from typing import Any

import pytest

import sim
from roles.evaluator.results import Row
from sim.report.page.write import write_page
from sim.report.results import Run
from sim.report.studies import beyond_verdicts
from sim.report.summary import control_of, headline, summary_of
from sim.report.table import best_attack, best_attack_on, best_of, table_of
from sim.run.folder import RunFolder
from tests.sim import made_up_run

RUNGS = [{"pairs": 10, "width": 2}, {"width": 4}]


def rung(number: int, ssim: float, recovered: float) -> Row:
    """Of the class mean, SSIM is 0.25 in these runs (median), and of the better guess at every image up to 0.31."""
    row: Row = {"rung": number, "psnr": 15.0, "ssim": ssim, "recovered": recovered, "gain_ssim": ssim - 0.25}
    return row | {"recognised": 0.9, "retrieved": 0.4}


def laddered(path: Path, ladders: dict[str, list[Row]]) -> RunFolder:
    run = made_up_run.make(path, made_up_run.experiment_of(4, studies=[{"kind": "ladder", "rungs": RUNGS}]))
    for whose, rows in ladders.items():
        for row in rows:
            user: Any = int(whose) if whose.isdecimal() else whose
            run.keep_findings("ladder", f"{whose}-{row['rung']}", run.published(), [{"user": user, **row}])
    return made_up_run.finish(run)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Users 0 and 1 have whole ladders; of that of user 3, the top is missing."""
    ladders = {
        "0": [rung(1, 0.2, 0.0), rung(2, 0.7, 0.9)],
        "1": [rung(1, 0.31, 0.01), rung(2, 0.3, 0.01)],
        "3": [rung(1, 0.3, 0.0)],
        "control-blur": [rung(1, 0.9, 1.0), rung(2, 0.95, 1.0)],
    }
    return laddered(tmp_path / "run", ladders)


def test_the_best_rung_is_one_more_attack_and_has_its_say_in_the_verdict(run: RunFolder) -> None:
    table = table_of(run, run.experiment()).set_index("subject", drop=False)
    assert table["ladder_ssim"].tolist()[:2] == [0.7, 0.31]
    assert table["ladder_rung"].tolist()[:2] == [2, 1]
    # Without its ladder the first user was hidden, and the second partly so.
    assert table["verdict"].tolist()[:4] == ["recovered", "partial", "visible", "recovered"]
    assert table["ladder"].tolist()[:2] == ["still rising", "plateau"]
    assert table["ladder"].isna().tolist() == [False, False, True, False, False]
    assert table.loc["user-0000", "exposed"] == 0.9
    assert table.loc["control-blur", "ladder_ssim"] == 0.95
    first = table.iloc[0]
    assert best_attack(first) == "ladder"
    assert best_attack_on(table, "user-0000") == "paper"  # there are no pictures of a rung
    assert best_of(table, "ssim").iloc[0] == 0.7
    control = control_of(table)
    assert control is not None and control.itn == "strong"


def test_a_top_rung_that_trained_badly_is_no_plateau_and_is_told_apart_from_one_that_rises(tmp_path: Path) -> None:
    run = laddered(tmp_path / "run", {"0": [rung(1, 0.6, 0.9), rung(2, 0.2, 0.1)]})
    table = table_of(run, run.experiment())
    assert table["ladder"][0] == "top rung fell behind"
    assert table["ladder_ssim"][0] == 0.6
    assert "The attacks on user 0 have come to no plateau" in headline(table, run.facts())


def test_a_ladder_of_some_users_has_its_say_about_these(tmp_path: Path) -> None:
    study = {"kind": "ladder", "rungs": RUNGS, "users": [0]}
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(4, studies=[study]))
    for row in (rung(1, 0.2, 0.0), rung(2, 0.7, 0.9)):
        run.keep_findings("ladder", f"0-{row['rung']}", [0], [{"user": 0, **row}])
    table = table_of(run, run.experiment())
    assert table["verdict"][0] == "recovered"
    assert table["ladder"].isna().tolist()[1:4] == [True] * 3


def test_a_study_that_gets_more_of_a_hidden_user_than_its_verdict_knows_is_said(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(4, studies=[{"kind": "inversion"}]))
    table = table_of(run, run.experiment())
    hidden = [number for number, verdict in enumerate(table["verdict"]) if verdict == "hidden"]
    published = run.published()

    def said(gain: float) -> list[str]:
        for user in published:
            run.keep_findings("inversion", str(user), published, [{"user": user, "gain_ssim": gain, "gain_psnr": 0.5}])
        return beyond_verdicts(run, run.experiment(), table)

    assert hidden
    assert said(0.04) == []
    (line,) = said(0.2)
    assert line.startswith(
        f"- **inversion gets more than verdicts know**, of {len(hidden)} hidden users; the most, +0.20"
    )


def test_a_verdict_is_given_with_a_word_on_whether_a_larger_budget_may_get_more(run: RunFolder) -> None:
    experiment, table = run.experiment(), table_of(run, run.experiment())
    assert (
        "The attacks on users 0 and 3 have come to no plateau: a larger or better used budget may get more."
        in headline(table, run.facts())
    )
    summary = summary_of(run, experiment, table, [0, 1, 2, 3], [])
    assert "| recovered, still rising |" in summary
    assert "| partial |" in summary
    assert "90.0% are recognised by a classifier" not in summary  # the run itself asked nobody but psi
    assert "- Nobody but psi was asked what estimates show: the run has no other_classifiers." in summary


def test_a_page_and_a_notebook_show_the_ladder_beside_the_verdict(run: RunFolder) -> None:
    page = write_page([run.path]).read_text()
    assert '"key":"ladder"' in page and '"still rising"' in page and '"plateau"' in page
    found = sim.load(run.path)
    assert isinstance(found, Run)
    keys = list(found.short)
    assert keys.index("ladder") == keys.index("verdict") + 1
    assert found.short["best_attack"][0] == "ladder"
    assert "still rising" in found._repr_html_()


def test_a_run_whose_ladder_has_no_finished_part_has_no_column_of_it(tmp_path: Path) -> None:
    run = laddered(tmp_path / "run", {})
    assert not [column for column in table_of(run, run.experiment()) if column.startswith("ladder")]
