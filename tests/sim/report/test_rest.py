"""Whether a training had come to rest when it ended: what the table says of it."""

import pandas as pd
import pytest

from sim.report.rest import at_the_end, moving_users


def curve(accuracies: list[float], passing: list[float] | None = None) -> list[dict[str, float]]:
    rows = [{"validation_accuracy": accuracy} for accuracy in accuracies]
    for row, value in zip(rows, passing or [], strict=False):
        row["validation_passes_through"] = value
    return rows


def table_of(*curves: list[dict[str, float]]) -> pd.DataFrame:
    return pd.DataFrame([at_the_end(rows, len(rows)) for rows in curves]).convert_dtypes()


def moving(*curves: list[dict[str, float]]) -> list[int]:
    return moving_users(table_of(*curves)).index.tolist()


def test_what_passes_through_is_that_of_the_epoch_that_was_selected() -> None:
    rows = curve([0.1, 0.2, 0.3], [0.9, 0.5, 0.1])
    assert at_the_end(rows, 2)["passes_through"] == 0.5
    assert at_the_end(rows, 0)["passes_through"] == 0.1


@pytest.mark.parametrize(("epochs", "since"), [(2, 1), (3, 2), (4, 2), (6, 4), (9, 6), (200, 133)])
def test_a_change_is_counted_from_two_thirds_of_the_epochs_on(epochs: int, since: int) -> None:
    rows = curve([float(epoch) for epoch in range(1, epochs + 1)])
    assert at_the_end(rows, epochs)["late_accuracy"] == epochs - since


def test_a_training_that_stays_where_it_is_has_come_to_rest() -> None:
    assert moving(curve([0.1, 0.86, 0.87], [0.9, 0.05, 0.04])) == []


def test_one_whose_accuracy_or_regime_changes_in_its_last_third_is_moving_whichever_way() -> None:
    still, up, down = curve([0.1, 0.8, 0.8], [0.5] * 3), curve([0.1, 0.2, 0.8], [0.5] * 3), curve([0.9, 0.9, 0.1])
    clearing, hiding = curve([0.8] * 3, [0.1, 0.1, 0.9]), curve([0.8] * 3, [0.9, 0.9, 0.2])
    assert moving(still, up, down, clearing, hiding) == [1, 2, 3, 4]


def test_one_of_a_single_epoch_has_shown_nothing_but_movement() -> None:
    assert moving(curve([0.8], [0.9])) == [0]
    assert moving(curve([0.8], [0.9]), curve([0.8] * 3, [0.9] * 3)) == [0]


def test_curves_that_do_not_say_what_passes_through_are_judged_by_accuracy() -> None:
    assert moving(curve([0.1, 0.8, 0.8]), curve([0.1, 0.2, 0.8])) == [1]


def test_whoever_has_no_curve_is_not_said_to_move() -> None:
    assert moving([], curve([0.1, 0.2, 0.8], [0.9] * 3)) == [1]
    assert moving([]) == []
