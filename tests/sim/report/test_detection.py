"""How well users' checks tell a hijack, from their scores."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.report.detection import roc_of
from sim.report.figures.roc import draw_roc

SCORES = st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=1, max_size=8)


@given(SCORES, SCORES)
def test_the_area_is_the_share_of_pairs_in_which_the_hijacked_is_the_more_suspicious(
    hijacked: list[float], honest: list[float]
) -> None:
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in hijacked for b in honest]
    assert roc_of(hijacked, honest).area == pytest.approx(sum(wins) / len(wins))
    assert roc_of(hijacked, honest).area == pytest.approx(1 - roc_of(honest, hijacked).area)


def test_alarms_are_counted_at_the_lowest_threshold_with_few_false_ones() -> None:
    honest = [number / 100 for number in range(100)]
    roc = roc_of([0.5, 0.925, 0.955, 2.0], honest)
    assert roc.alarms_at(0.05) == 0.5
    assert roc.alarms_at(0.08) == 0.75
    assert roc.alarms_at(0) == 0.25
    assert roc.alarms_at(1) == 1


def test_a_picture_has_a_line_for_each_score(tmp_path: Path) -> None:
    roc = roc_of([1.0, 0.5], [0.5, 0.0])
    draw_roc(tmp_path / "roc", {"fsha": (roc.false_alarms, roc.alarms), "pairs": ([0, 0, 1], [0, 1, 1])})
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".pdf"}
