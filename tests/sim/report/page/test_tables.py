"""Tables of users and of studies."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sim.report.page.tables import heat_map, plain_table, users_table
from sim.run.folder import RunFolder
from tests.sim import made_up_run
from tests.sim.report.page.parsed import Page, column


def test_the_table_of_users_has_every_user_and_says_once_what_all_have_in_common(page: Page, run: RunFolder) -> None:
    table, common = users_table(pd.read_parquet(run.path / "table.parquet"))
    assert page.data["runs"][0]["users"] == table
    assert common == {"protection": "network", "phi": "relu2_2", "plain accuracy": "80.0%"}
    assert column(table, "subject") == [f"user-{user:04d}" for user in range(5)]
    assert column(table, "verdict") == ["hidden", "partial", "visible", "recovered", None]
    assert column(table, "alpha") == [0.005, 0.05, 0.005, 0.05, 0.005]
    assert column(table, "sent_bytes")[1] == 23_000_001


def test_the_control_is_no_user_and_its_verdict_is_whether_it_works(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(1))
    table = pd.read_parquet(run.path / "table.parquet")

    def said(table: pd.DataFrame) -> Any:
        made = users_table(table)[0]
        return made["control"] and made["control"][[column["key"] for column in made["columns"]].index("verdict")]

    assert said(table) == "works"
    weak = table.assign(**{f"itn_{itn}_ssim": 0.7 for itn in made_up_run.ITNS})
    assert said(weak) == "too weak"
    assert said(table[:1]) is None


def test_what_is_asked_for_first_is_shown_at_once_with_intervals_and_the_rest_when_asked_for(page: Page) -> None:
    table = page.data["runs"][0]["users"]
    first = [column["key"] for column in table["columns"] if not column["more"]]
    assert first == [
        *("subject", "setting", "accuracy", "verdict", "exposed", "best_attack", "best_ssim", "best_recovered"),
        *("best_accuracy", "protected_visible", "shown", "failure"),
    ]
    assert column(table, "best_attack")[:2] == ["ITN paper", "ITN strong"]
    assert column(table, "best_ssim")[3] == [0.65, 0.62, 0.69]
    assert column(table, "accuracy")[0] == [0.7, 0.390622, 0.86188]
    assert {"sent_bytes", "itn_strong_psnr"} <= {column["key"] for column in table["columns"] if column["more"]}


def test_those_whose_images_are_given_away_most_and_least_are_shown_first(page: Page) -> None:
    most, least = page.data["runs"][0]["extremes"]
    assert (most["name"], least["name"]) == ("user-0002", "user-0000")
    assert most["words"] == "user 2, given away most: visible, accuracy 70.0%, 100% of the images given away"
    assert [page.data["runs"][0]["strips"]["subjects"]["user-0002"]["rows"][row]["label"] for row in most["rows"]] == [
        "protected",
        "ITN strong",
    ]


def test_what_some_users_have_no_value_of_is_not_the_same_for_all() -> None:
    rows = [{"subject": "user-0000", "alpha": 0.1, "phi": "relu1_2"}, {"subject": "user-0001", "phi": "relu1_2"}]
    table, common = users_table(pd.DataFrame([*rows, {"subject": "control-blur"}]))
    assert common == {"phi": "relu1_2"}
    assert column(table, "alpha") == [0.1, None]


def test_columns_are_grouped_by_what_was_measured(page: Page) -> None:
    columns = [column for column in page.data["runs"][0]["users"]["columns"] if column["more"]]
    groups = [group for group, _ in itertools.groupby(column["group"] for column in columns) if group]
    assert groups == ["protected", "class mean", "mean image", "ITN paper", "ITN strong", "training", "traffic"]
    strong = [(column["label"], column["kind"]) for column in columns if column["group"] == "ITN strong"]
    shares = [("acc. (%)", "percent"), ("recovered (%)", "percent")]
    assert strong == [("PSNR", "db"), ("SSIM", "ssim"), ("worst 1%", "db"), *shares]
    assert [column["key"] for column in columns][:2] == ["alpha", "width"]
    assert all(column["meaning"] for column in page.data["runs"][0]["users"]["columns"])


def test_an_image_recovered_exactly_keeps_its_infinite_psnr() -> None:
    table = pd.DataFrame({"subject": ["user-0000", "user-0001"], "itn_a_psnr": [np.inf, np.nan]})
    assert column(users_table(table)[0], "itn_a_psnr") == ["Infinity", None]


def test_of_a_long_study_the_first_rows_are_shown_and_the_rest_is_told(page: Page) -> None:
    pooling, transfer = page.data["runs"][0]["studies"]
    assert len(pooling["table"]["rows"]) == 200
    assert "The first 200 of 300 rows; all are in studies/pooling.parquet." in page.text
    assert len(transfer["table"]["rows"]) == 16


def test_any_table_of_a_study_can_be_shown() -> None:
    study = pd.DataFrame({"when": pd.to_datetime(["2026-01-01"]), "many": [[1, 2]], "ok": [True], 3: [7]})
    table = plain_table(study)
    assert [column["label"] for column in table["columns"]] == ["when", "many", "ok", "3"]
    assert table["rows"] == [["2026-01-01 00:00:00", "[1, 2]", "True", 7]]


def test_transfer_is_a_matrix_of_attackers_and_victims(page: Page) -> None:
    pooling, transfer = page.data["runs"][0]["studies"]
    assert pooling["heat"] is None
    heat = transfer["heat"]
    assert heat["attackers"] == heat["victims"] == [f"user-{user:04d}" for user in range(4)]
    assert heat["values"][3] == [0.3, 0.2, 0.1, 0.0]


def test_a_pair_without_a_value_is_left_open_and_one_with_two_has_their_median() -> None:
    rows = [("a", "b", 0.1), ("a", "b", 0.3), ("b", "a", 0.5)]
    heat = heat_map(pd.DataFrame(rows, columns=["attacker", "victim", "gain_ssim"]))
    assert heat is not None and heat["victims"] == ["a", "b"]
    assert heat["values"] == [[None, 0.2], [0.5, None]]


def test_a_study_of_other_columns_is_no_matrix() -> None:
    assert heat_map(pd.DataFrame({"attacker": ["a"], "victim": ["b"], "gain_psnr": [1.0]})) is None
