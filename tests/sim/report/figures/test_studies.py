"""Pictures of studies: what their values are read against."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from roles.evaluator.studies.collusion import Collusion
from roles.evaluator.studies.curious import Curious
from roles.evaluator.studies.inversion import Inversion
from roles.evaluator.studies.retrieval import Retrieval
from roles.evaluator.studies.utility import Utility
from roles.evaluator.study import HeatMap, Lines, Reference
from sim.report.figures.studies import draw_study
from sim.report.studies import report_studies
from tests.sim import made_up_run
from tests.sim.report.figures.drawings import assert_drawn

USERS = ["user-0000", "user-0001"]


def words_in(figure: Figure) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in figure.axes[0].texts]


def levels_in(figure: Figure) -> list[list[float]]:
    """The heights of all lines but that at nought and those that stand for series."""
    lines = [list(line.get_ydata()) for line in figure.axes[0].lines[1:] if line.get_zorder() == 1.5]
    return [[float(value) for value in line] for line in lines]


def test_a_reference_is_a_level_at_each_place_of_the_highest_of_its_columns_and_is_named_at_its_end(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    table = pd.DataFrame({"user": USERS, "ssim": [0.5, 0.6], "one": [0.1, 0.2], "other": [0.3, 0.1]})
    references = (Reference("guess", ("one", "other", "unknown")), Reference("unknown", ("unknown",)))
    draw_study(tmp_path / "study", Lines("user", "ssim", "", "SSIM", references=references), table.convert_dtypes())
    assert_drawn(tmp_path / "study")
    assert levels_in(drawn["study"]) == [[0.3, 0.3, 0.2, 0.2]]
    assert words_in(drawn["study"]) == ["guess"]


def test_a_reference_of_many_rows_is_their_median_and_leaves_out_what_is_not_known(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    table = pd.DataFrame({"x": [1, 1, 1, 2], "y": 0.5, "guess": [0.1, 0.2, 0.9, None]})
    form = Lines("x", "y", "", "SSIM", references=(Reference("guess", ("guess",)),))
    draw_study(tmp_path / "study", form, table.convert_dtypes())
    assert levels_in(drawn["study"]) == [[0.2, 0.2]]


@pytest.mark.parametrize("study", [Collusion, Curious, Inversion])
def test_estimates_are_read_against_the_trivial_guess_the_protected_image_and_the_itn_of_the_run(
    tmp_path: Path, drawn: dict[str, Figure], study: type[Collusion | Curious | Inversion]
) -> None:
    rows = {"victim": USERS, "user": USERS, "coalition": [1, 2], "known_pairs": [0, 0], "ssim": [0.5, 0.6]}
    rows |= {"protected_ssim": [0.05, 0.15], "class_mean_ssim": [0.2, 0.2], "mean_image_ssim": [0.1, 0.1]}
    draw_study(tmp_path / "study", study.figure, pd.DataFrame(rows | {"itn_ssim": [0.8, 0.9]}))
    assert words_in(drawn["study"]) == ["trivial guess", "protected image", "ITN of the run"]
    assert levels_in(drawn["study"]) == [[0.2] * 4, [0.05, 0.05, 0.15, 0.15], [0.8, 0.8, 0.9, 0.9]]
    draw_study(tmp_path / "older", study.figure, pd.DataFrame(rows).drop(columns=["protected_ssim"]))
    assert words_in(drawn["older"]) == ["trivial guess"]


def test_the_itn_of_the_run_is_measured_on_the_images_of_the_study(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    studies = [{"kind": "curious", "images": 3}, {"kind": "retrieval"}]
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(2, studies=studies))
    for user in (0, 1):
        run.keep_findings("curious", str(user), [0, 1], [{"user": user, "ssim": 0.7, "class_mean_ssim": 0.2}])
    report_studies(run, run.experiment())
    # By its last ITN, the first user's images have an SSIM of 0.15, 0.16, ..., the second's of 0.35, 0.36, ...
    _, itn = levels_in(drawn["study-curious"])
    assert itn == pytest.approx([0.16, 0.16, 0.36, 0.36])
    assert list(pd.read_csv(run.path / "studies" / "curious.csv")) == list(Curious.columns)


def test_images_that_are_found_are_read_against_chance_in_percent(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    rows = [{"user": name, "by": by, "at_1": 0.5, "chance_at_1": 0.001} for name in USERS for by in ("plain", "ITN")]
    draw_study(tmp_path / "study", Retrieval.figure, pd.DataFrame(rows))
    figure = drawn["study"]
    assert words_in(figure) == ["chance"] and levels_in(figure) == [[0.001] * 4]
    assert figure.axes[0].yaxis.get_major_formatter()(0.4) == "40%"
    bottom, top = figure.axes[0].get_ylim()
    assert bottom < 0 and 1 < top < 1.1


def test_accuracy_at_a_classifier_is_read_against_its_own_on_plain_images(
    tmp_path: Path, drawn: dict[str, Figure]
) -> None:
    plain = {"psi": 0.9, "other 0": 0.8}
    rows = [{"user": u, "classifier": c, "accuracy": 0.5, "plain_accuracy": a} for u in USERS for c, a in plain.items()]
    draw_study(tmp_path / "study", Utility.figure, pd.DataFrame(rows))
    assert words_in(drawn["study"]) == ["plain, psi", "plain, other 0"]
    assert levels_in(drawn["study"]) == [[0.9] * 4, [0.8] * 4]


def test_series_differ_without_colour(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    rows = [{"x": x, "y": x / 10, "by": by} for x in (1, 2) for by in ("a", "b", "c")]
    draw_study(tmp_path / "study", Lines("x", "y", "by", "share"), pd.DataFrame(rows))
    (ax,) = drawn["study"].axes
    assert len({line.get_linestyle() for line in ax.lines[1:]}) == 3
    assert len({tuple(marks.get_paths()[0].vertices.ravel()) for marks in ax.collections}) == 3


def test_a_heat_map_frames_the_users_that_stand_on_both_axes(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    rows = [{"attacker": a, "victim": v, "gain_ssim": 0.1} for a in USERS for v in [*USERS, "user-0002"]]
    draw_study(tmp_path / "map", HeatMap("victim", "attacker", "gain_ssim", "SSIM gain"), pd.DataFrame(rows))
    ax = drawn["map"].axes[0]
    assert {patch.get_xy() for patch in ax.patches if isinstance(patch, Rectangle)} == {(-0.5, -0.5), (0.5, 0.5)}
    assert ax.get_xlabel() == "victim (framed: the same user)"
