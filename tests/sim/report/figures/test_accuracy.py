import itertools
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from sim.report.figures.accuracy import draw_accuracy
from tests.sim.report.figures.drawings import assert_drawn

LINES = {"width 16": [(0.1, 40.0), (0.005, 85.0), (0.005, 84.0), (0.0, 86.0)], "width 64": [(0.01, 80.0)]}


def texts_of(figure: Figure) -> list[list[str]]:
    return [[text.get_text() for text in ax.texts] for ax in figure.axes]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_layer_has_a_small_diagram_of_its_own(tmp_path: Path, drawn: dict[str, Figure], layers: int) -> None:
    panels = {f"relu{layer}_2": LINES if layer else {"": [(0.02, 70.0)]} for layer in range(layers)}
    draw_accuracy(tmp_path / "accuracy", panels, 86.5)
    assert_drawn(tmp_path / "accuracy")
    figure = drawn["accuracy"]
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(panels)
    assert len({ax.get_ylim() for ax in figure.axes}) == len({ax.get_xlim() for ax in figure.axes}) == 1
    assert figure.get_figwidth() == 3.5


def test_lines_and_plain_images_are_named_where_they_end_in_percent_and_without_a_legend(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    draw_accuracy(tmp_path / "accuracy", {"relu1_2": LINES, "relu2_2": {"": [(0.02, 70.0)], "width 8": []}}, 86.5)
    figure = drawn["accuracy"]
    assert texts_of(figure) == [["plain 86.5%", "width 16", "width 64"], ["plain 86.5%"]]
    assert not figure.legends
    assert figure.axes[0].yaxis.get_major_formatter()(40) == "40%"
    ends = [tuple(map(float, note.xy)) for note in figure.axes[0].texts[1:]]
    assert ends == [(0.1, 40.0), (0.01, 80.0)]


def test_accuracy_is_drawn_without_alpha_0_and_through_the_mean_of_users_of_one_alpha(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    draw_accuracy(tmp_path / "accuracy", {"relu1_2": LINES}, 86.5)
    _, line, other = drawn["accuracy"].axes[0].lines[:3]
    assert line.get_xydata().tolist() == [[0.005, 84.5], [0.1, 40.0]]
    assert line.get_linestyle() != other.get_linestyle()  # in grey as well


def test_the_labels_of_many_lines_do_not_cover_each_other(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    lines = {f"width {n}": [(0.1, 40.0), (0.2, 30.0 + n / 10)] for n in range(40)}
    draw_accuracy(tmp_path / "accuracy", {"relu1_2": lines}, 86.0)
    figure = drawn["accuracy"]
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(box.x1 <= figure.bbox.width for box in boxes)


def test_alphas_that_lie_close_share_the_axis_without_their_names_touching(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    alphas = [0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1]
    line = {"": [(alpha, 50.0) for alpha in alphas]}
    draw_accuracy(tmp_path / "accuracy", {"relu1_2": line, "relu2_2": line}, 86.0)
    drawn["accuracy"].draw_without_rendering()
    for ax in drawn["accuracy"].axes:
        assert ax.get_xticks().tolist() == alphas
        names = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
        assert len(names) >= 3
        assert not any(one.overlaps(other) for one, other in itertools.combinations(names, 2))
