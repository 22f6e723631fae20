"""What the table of a run says of a user in one word."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.weights import load, save
from roles.evaluator.measures import ssim
from roles.evaluator.results import Seen
from roles.evaluator.seen import as_seen
from sim.report.summary import findings
from sim.report.table import seen_through_users, table_of, verdict_of
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
        ((8, 0.0), (20.0, 0.55), PLAIN_GUESS, "partial"),  # less than half of what the guess lacks
        ((8, 0.0), (20.0, 0.65), PLAIN_GUESS, "recovered"),
        ((18, 0.65), (20.0, 0.70), PLAIN_GUESS, "visible"),
        ((8, 0.0), (14.0, 0.55), GOOD_GUESS, "hidden"),  # less than the guess is nothing, however much it resembles
        ((8, 0.0), (12.5, 0.12), WRONG_GUESS, "hidden"),  # where labels are wrong, the mean of all images is the guess
        ((12, 0.55), (20.0, 0.70), GOOD_GUESS, "partial"),  # what one bit beyond the label may tell
        ((12, 0.55), (20.0, 0.82), GOOD_GUESS, "recovered"),
        ((20, 0.82), (20.0, 0.80), GOOD_GUESS, "visible"),
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


SHARES = {"protected_visible": 0.0, "itn_strong_recovered": 0.0, "exposed": 0.5}
HIDDEN_ROW = row((8, 0.0), (13.5, 0.22), PLAIN_GUESS)


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        (SHARES | {"seen_ssim": 0.2, "shown": 0.05, "exposed": 0.05}, "hidden"),
        ({"seen_ssim": 0.7}, "visible"),  # a move or other colours hide it from PSNR and SSIM, and not from a person
        ({"moved_ssim": 0.7}, "visible"),  # as runs of earlier versions measured it
        ({"seen_ssim": 0.3}, "partial"),
        ({"shown": 0.2}, "partial"),
        (SHARES | {"protected_visible": 0.5}, "visible"),
        (SHARES | {"itn_strong_recovered": 0.5}, "recovered"),
        (SHARES | {"itn_strong_recovered": 0.4, "exposed": 0.4}, "partial"),
        (SHARES | {"exposed": 0.06}, "partial"),  # a median says nothing of six images in a hundred
    ],
)
def test_what_a_person_sees_and_the_images_that_leak_most_have_a_say(more: dict[str, float], verdict: str) -> None:
    assert verdict_of(pd.concat([HIDDEN_ROW, pd.Series(more)])) == verdict


@pytest.mark.parametrize(
    "disguise",
    [
        lambda x: torch.roll(x, (1, -2), (2, 3)),
        lambda x: 255 - x,
        lambda x: (x.float() * torch.tensor([1.0, 0.3, 0.7]).view(3, 1, 1)).to(torch.uint8),
    ],
    ids=["moved", "inverted", "tinted"],
)
def test_photographs_that_are_moved_inverted_or_tinted_are_visible_and_the_summary_says_why(
    tmp_path: Path, disguise: Callable[[Tensor], Tensor]
) -> None:
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(4))
    experiment = run.experiment()
    assert "say otherwise" not in "\n".join(findings(table_of(run, experiment), experiment))
    coarse = torch.rand(made_up_run.IMAGES, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    plain = F.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)
    for user in (1, 3):
        result = run.attack(Subject("user", user))
        assert result is not None
        alike = ssim(disguise(plain), plain)
        seen = as_seen(disguise(plain), plain, torch.zeros(len(plain), dtype=torch.int64), alike)
        run.keep_attack(Subject("user", user), replace(result, seen=seen))
    table = table_of(run, experiment)
    assert table["verdict"].tolist()[:4] == ["hidden", "visible", "visible", "visible"]
    assert seen_through_users(table)["subject"].tolist() == ["user-0001", "user-0003"]
    assert table["protected_visible"].tolist()[:4] == [0, 1, 1, 1]
    (said,) = (line for line in findings(table, experiment) if "say otherwise" in line)
    assert said.startswith("- 2 of 4 users are visible though PSNR and SSIM, ")
    assert seen_through_users(table.drop(columns=["seen_ssim", "shown"])).empty  # of an earlier version


def test_an_image_is_given_away_that_is_visible_or_that_any_attack_recovers(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(1))
    subject, result = Subject("user", 0), made_up_run.attack_of(0)
    few = {name: replace(made_up_run.measured(13, 0.15), ssim=torch.zeros(12)) for name in made_up_run.ITNS}
    few["paper"].ssim[3], few["strong"].ssim[3:5] = 0.9, 0.9
    shown = torch.zeros(12)
    shown[11] = 0.6
    seen = Seen(torch.zeros(12), shown, 0, 0)
    run.keep_attack(subject, replace(result, estimates=few, seen=seen))
    row = table_of(run, run.experiment()).iloc[0]
    assert row["itn_paper_recovered"] == pytest.approx(1 / 12)
    assert row["itn_strong_recovered"] == pytest.approx(2 / 12)
    assert row["protected_visible"] == pytest.approx(1 / 12)
    assert row["exposed"] == pytest.approx(3 / 12)
    assert row["verdict"] == "partial"


def test_a_run_of_an_earlier_version_is_judged_by_the_pictures_that_it_kept(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(1))
    path = run.attack_path(Subject("user", 0))
    tensors, metadata = load(path)
    plain = tensors["picture/plain"]
    old = {name: tensor for name, tensor in tensors.items() if not name.startswith("seen/")}
    save(path, old | {"picture/protected": 255 - plain}, metadata)
    row = table_of(run, run.experiment()).iloc[0]
    assert (row["verdict"], row["protected_visible"]) == ("visible", 1)
    assert row["exposed"] == made_up_run.PICTURES / made_up_run.IMAGES
    # What attacks recover of images that are not among the pictures is given away as well.
    last = replace(made_up_run.measured(13, 0.15), ssim=torch.tensor([0.0] * 6 + [0.9] * 6))
    kept = run.attack(Subject("user", 0))
    assert kept is not None
    run.keep_attack(Subject("user", 0), replace(kept, estimates={"paper": last, "strong": last}))
    assert table_of(run, run.experiment()).iloc[0]["exposed"] == 1


def test_an_attack_that_was_not_made_has_no_part_in_a_verdict() -> None:
    assert verdict_of(pd.concat([HIDDEN_ROW, pd.Series({"fr_attack_psnr": None, "fr_attack_ssim": None})])) == "hidden"
