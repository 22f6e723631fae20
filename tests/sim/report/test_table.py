"""What the table of a run says of a user in one word."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from sim.report.summary import findings
from sim.report.table import moved_users, table_of, verdict_of
from sim.run.subject import Subject
from tests.sim import made_up_run

PLAIN_GUESS = (13.0, 0.2)  # the class mean's PSNR and SSIM on images that differ, such as photographs
WRONG_GUESS = (11.0, 0.05)  # of the wrong class
GOOD_GUESS = (16.0, 0.6)  # and on images that are alike, such as digits


def row(protected: tuple[float, float], estimate: tuple[float, float], guess: tuple[float, float]) -> "pd.Series[Any]":
    of = {"protected": protected, "itn_strong": estimate, "class_mean": guess, "mean_image": (12.0, 0.1)}
    pairs = {name: {f"{name}_psnr": psnr, f"{name}_ssim": ssim} for name, (psnr, ssim) in of.items()}
    return pd.concat([pd.Series(pair) for pair in pairs.values()])


@pytest.mark.parametrize(
    ("protected", "estimate", "guess", "verdict"),
    [
        ((8, 0.0), (13.5, 0.22), PLAIN_GUESS, "hidden"),
        ((8, 0.0), (14.5, 0.22), PLAIN_GUESS, "partial"),
        ((8, 0.0), (12.0, 0.30), PLAIN_GUESS, "partial"),
        ((8, 0.3), (13.5, 0.22), PLAIN_GUESS, "partial"),  # the protected image shows more than any attack makes of it
        ((8, 0.0), (20.0, 0.55), PLAIN_GUESS, "recovered"),
        ((18, 0.55), (20.0, 0.70), PLAIN_GUESS, "visible"),
        ((8, 0.0), (14.0, 0.55), GOOD_GUESS, "hidden"),  # less than the guess is nothing, however much it resembles
        ((8, 0.0), (12.5, 0.12), WRONG_GUESS, "hidden"),  # where labels are wrong, the mean of all images is the guess
        ((12, 0.55), (20.0, 0.80), GOOD_GUESS, "recovered"),
        ((20, 0.70), (20.0, 0.80), GOOD_GUESS, "visible"),
    ],
)
def test_a_verdict_is_about_what_is_had_beyond_a_trivial_guess(
    protected: tuple[float, float], estimate: tuple[float, float], guess: tuple[float, float], verdict: str
) -> None:
    assert verdict_of(row(protected, estimate, guess)) == verdict


def test_beside_medians_the_table_has_what_the_images_that_fare_worst_are_recovered_with(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(4))
    row = table_of(run, run.experiment()).iloc[3]
    # Twelve images from 20 dB and SSIM 0.6 up, in steps of 0.5 and 0.01, for a guess that is 13 dB and 0.2 up.
    assert row["itn_strong_psnr"] == pytest.approx(22.5, abs=0.3)
    assert row["itn_strong_psnr_worst1"] == pytest.approx(20.003 + 0.99 * 5.5)
    assert row["itn_strong_recovered"] == 1
    assert row["itn_paper_recovered"] == 0
    assert row["itn_strong_ssim_low"] <= row["itn_strong_ssim"] <= row["itn_strong_ssim_high"]


def test_users_who_hide_nothing_but_move_their_images_are_found_and_the_summary_says_so(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(4))  # protected pictures are noise
    experiment = run.experiment()
    assert moved_users(table_of(run, experiment)).empty
    assert "move their images" not in "\n".join(findings(table_of(run, experiment), experiment))
    for user, way in ((1, (0, 1)), (2, (0, 0)), (3, (-2, 1))):
        result = run.attack(Subject("user", user))
        assert result is not None
        moved = torch.roll(result.pictures["plain"], way, (2, 3))
        run.keep_attack(Subject("user", user), replace(result, pictures=result.pictures | {"protected": moved}))
    table = table_of(run, experiment)
    found = [["user-0001", 0, 1], ["user-0003", -2, 1]]
    assert moved_users(table)[["subject", "moved_down", "moved_right"]].to_numpy().tolist() == found
    (said,) = (line for line in findings(table, experiment) if "move their images" in line)
    assert said.startswith("- 2 of 4 users move their images by a few pixels: moved back, the protected pictures that ")
    assert "have a median SSIM of 1.00 (1.00 to 1.00) with plain ones." in said
    assert moved_users(table.drop(columns=["moved_ssim", "moved_down", "moved_right"])).empty  # of an earlier version


def test_an_attack_that_was_not_made_has_no_part_in_a_verdict() -> None:
    hidden = row((8, 0.0), (13.5, 0.22), PLAIN_GUESS)
    assert verdict_of(pd.concat([hidden, pd.Series({"fr_attack_psnr": None, "fr_attack_ssim": None})])) == "hidden"
