"""Pictures, as many as a page has room for."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from sim.report.page.write import write_page
from sim.report.sprites import fit
from sim.run.folder import RunFolder
from sim.run.subject import Subject
from tests.sim import made_up_run
from tests.sim.report.page.parsed import Page


def sprite(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_strips_hold_the_very_pictures_of_the_run(page: Page, run: RunFolder) -> None:
    strips = page.data["runs"][0]["strips"]
    assert list(strips["subjects"]) == [*(f"user-{user:04d}" for user in range(4)), "control-blur"]
    result = run.attack(Subject("user", 3))
    assert result is not None
    third = sprite(strips["subjects"]["user-0003"]["sprite"])[64:96, 32:64]  # rows: protected, paper, strong
    assert (third == result.pictures["strong"][1].permute(1, 2, 0).numpy()).all()
    assert (sprite(strips["common"])[:32, 64:96] == made_up_run.PLAIN[2].permute(1, 2, 0).numpy()).all()
    rows = strips["subjects"]["user-0003"]["rows"]
    assert [row["label"] for row in rows] == ["protected", "ITN paper", "ITN strong"]
    assert rows[1]["psnr"] == ["14.0", "14.5", "15.0", "15.5", "16.0", "16.5"]


def pictures_of(subjects: int) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    plain = random.integers(256, size=(6, 16, 16, 3), dtype=np.uint8)
    return {
        str(s): {"plain": plain, "protected": random.integers(256, size=plain.shape, dtype=np.uint8)}
        for s in range(subjects)
    }


def test_a_tighter_budget_costs_pictures_then_exactness_then_subjects() -> None:
    pictures = pictures_of(8)
    whole = fit(pictures, 10**6)
    assert (whole.count, whole.lossless, len(whole.by_subject)) == (6, True, 8)
    # Noise: a picture of 16 pixels a side is about 1,050 characters of PNG.
    fewer = fit(pictures, 8 * 5000)
    assert (fewer.count, fewer.lossless, len(fewer.by_subject)) == (4, True, 8)
    lossy = fit(pictures, 8 * 1500)
    assert (lossy.lossless, len(lossy.by_subject)) == (False, 8)
    assert lossy.count < 6 and sprite(lossy.common).shape == (16, 16 * lossy.count, 3)
    some = fit(pictures, 1000)
    assert (some.count, some.lossless, list(some.by_subject)) == (1, False, ["0", "4"])
    assert fit(pictures, 10).by_subject == {}


def test_a_hundred_pictures_of_a_subject_are_the_most_however_many_a_run_keeps() -> None:
    pictures = {"0": {"plain": np.zeros((101, 4, 4, 3), np.uint8), "protected": np.zeros((101, 4, 4, 3), np.uint8)}}
    assert fit(pictures, 10**6).count == 100


def test_no_budget_is_exceeded() -> None:
    pictures = pictures_of(8)
    for budget in (500, 2_000, 20_000, 40_000, 60_000):
        assert sum(map(len, fit(pictures, budget).by_subject.values())) <= budget


def test_users_of_one_theta_share_its_pictures(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path, made_up_run.experiment_of(2, strategy={"name": "fedavg"}))
    strips = Page(write_page([run.path])).data["runs"][0]["strips"]
    assert list(strips["subjects"]) == ["shared", "control-blur"]
