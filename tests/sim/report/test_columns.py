"""What is known of the columns of a table, also of one that lies on a disk."""

import pandas as pd
import pytest

from sim.report import columns
from sim.report.columns import attacks_in, columns_in, columns_in_words, possible_columns


def test_columns_stand_in_one_order_whatever_attacks_there_are() -> None:
    keys = [column.key for column in possible_columns(["itn_a", "itn_b"])]
    assert keys[:3] == ["subject", "setting", "protection"]
    of_attacks = keys[keys.index("mean_image_ssim") + 1 : keys.index("verdict")]
    # Measure by measure of inverse networks, attack by attack of those that train none.
    assert of_attacks[:4] == ["itn_a_psnr", "itn_b_psnr", "itn_a_ssim", "itn_b_ssim"]
    assert of_attacks[19:23] == ["itn_b_recovered", "fr_attack_psnr", "fr_attack_ssim", "fr_attack_ssim_low"]
    assert keys[-1] == "failure"
    assert len(set(keys)) == len(keys)


def test_every_column_has_a_meaning_of_its_attack_and_a_title() -> None:
    named = {column.key: column for column in possible_columns(["itn_a"])}
    assert all(column.meaning and column.label and column.kind for column in named.values())
    assert (named["itn_a_psnr"].group, named["fr_attack_psnr"].group) == ("ITN a", "FR-Attack")
    assert named["itn_a_ssim"].meaning == "median SSIM of the inverse network's estimates"
    assert named["key_attack_ssim"].meaning.startswith("median SSIM of what ten known pairs make of encryption under")


def test_a_new_attack_has_its_columns_by_its_record_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(columns.CIPHER_TITLES, "outlines", "outlines of blocks")
    table = pd.DataFrame({"subject": ["user-0000"], "outlines_psnr": [9.0]})
    assert attacks_in(table) == ["outlines"]
    assert columns_in(table)[1].group == "outlines of blocks"
    assert columns_in(table)[1].meaning == "median PSNR of what outlines of blocks makes of protected images"


def test_an_inverse_network_may_have_a_name_that_ends_like_a_column() -> None:
    table = pd.DataFrame([{"itn_a_psnr": 9.0, "itn_a_ssim": 0.1, "itn_a_ssim_psnr": 8.0, "itn_a_ssim_ssim": 0.2}])
    assert attacks_in(table) == ["itn_a", "itn_a_ssim"]
    assert [column.group for column in columns_in(table)] == ["ITN a", "ITN a", "ITN a_ssim", "ITN a_ssim"]


def test_in_the_table_of_a_sweep_what_is_no_column_of_a_run_is_an_axis() -> None:
    table = pd.DataFrame({"seed": ["0"], "subject": ["user-0000"], "itn_strong_psnr": [20.0]})
    lines = columns_in_words(table).splitlines()
    assert lines[0] == "# Columns"
    assert "| `seed` | what the run has of this axis of the sweep |" in lines
    assert "| `itn_strong_psnr` | median PSNR of the inverse network's estimates |" in lines
