import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sim.report.figures.curves import Panel, draw_learning_curves
from tests.sim.report.figures.drawings import assert_drawn, rows_of


def lines_of(figure: Figure) -> list[list[list[float]]]:
    """The points of each line, panel by panel, without those that only a legend shows."""
    lines = [line.get_xydata().tolist() for ax in figure.axes for line in ax.lines]
    return [line for line in lines if line]


@pytest.mark.parametrize("users", [0, 1, 9, 17])
def test_learning_curves_are_written_as_png_and_pdf(tmp_path: Path, users: int) -> None:
    curves = {f"user {user}": rows_of(user, 3) for user in range(users)}
    draw_learning_curves(tmp_path / "curves", curves, [Panel("loss", "training loss", log=True)])
    assert_drawn(tmp_path / "curves")


def test_rows_without_a_usable_value_are_left_out_of_the_curves(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    rows = [
        {"epoch": 1.0, "loss": 0.5},
        {"epoch": 2.0},
        {"loss": 0.4},
        {"epoch": 3.0, "loss": math.nan},
        {"epoch": 4.0, "loss": -0.25},
    ]
    panels = [Panel("loss", "loss"), Panel("loss", "log loss", log=True), Panel("accuracy", "never measured")]
    draw_learning_curves(tmp_path / "curves", {"user 0": rows}, panels)
    assert lines_of(drawn["curves"]) == [[[1.0, 0.5], [4.0, -0.25]], [[1.0, 0.5]]]
    assert_drawn(tmp_path / "curves")


def test_the_median_of_many_curves_is_over_the_users_with_a_value_at_the_epoch(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    # Losses of epoch 0 are 1 to 17; users 0 to 2 go on to epoch 1, where theirs are 0.5, 1, 1.5.
    curves = {str(user): rows_of(user, 2 if user < 3 else 1) for user in range(17)}
    draw_learning_curves(tmp_path / "curves", curves, [Panel("loss", "loss")])
    lines = lines_of(drawn["curves"])
    assert len(lines) == 18
    assert lines[-1] == [[0, 9.0], [1, 1.0]]


def test_shares_are_in_percent(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    rows = [{"epoch": float(epoch), "accuracy": epoch / 4} for epoch in range(4)]
    draw_learning_curves(tmp_path / "curves", {"user 0": rows}, [Panel("accuracy", "accuracy", share=True)])
    drawn["curves"].draw_without_rendering()
    assert "60%" in [label.get_text() for label in drawn["curves"].axes[0].get_yticklabels()]


def test_up_to_eight_users_differ_in_grey_as_well_and_of_more_the_median_is_the_thick_line(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    for users in (8, 9):
        curves = {f"user {user}": rows_of(user, 3) for user in range(users)}
        draw_learning_curves(tmp_path / f"curves-{users}", curves, [Panel("loss", "loss")])
    few, many = ([line for line in drawn[f"curves-{n}"].axes[0].lines if len(line.get_xdata())] for n in (8, 9))
    assert len({(line.get_marker(), line.get_linestyle()) for line in few}) == len(few) == 8
    assert len(many) == 10
    assert many[-1].get_linewidth() > 2 * max(line.get_linewidth() for line in many[:-1])


def test_learning_curves_without_panels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        draw_learning_curves(tmp_path / "curves", {}, [])
