"""Users of every kind of protection in one run."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import roles.provider.pupils
import roles.user.lessons
from roles.common.weights import load
from sim.config import Experiment
from tests.sim.in_process_run import (
    KilledError,
    killed_after,
    run_in,
    table_of,
)

pytestmark = pytest.mark.usefixtures("without_figures")

SETTINGS: list[dict[str, Any]] = [
    {"alpha": 0.3, "width": 3},
    {"protection": {"kind": "plain"}},
    {"protection": {"kind": "tanaka"}},
    {"protection": {"kind": "pixel"}},
    {"protection": {"kind": "pixel", "key": "per_image", "shuffle": True}},
]


@pytest.fixture
def mixed(small: Experiment) -> Experiment:
    users = {"count": 6, "partition": {"kind": "all"}, "images": 30, "validation_images": 20, "settings": SETTINGS}
    classifier = {"crop_padding": 0, "training": {"epochs": 2, "lr": 0.01, "batch_size": 256}}
    return Experiment.model_validate(small.model_dump() | {"users": users, "classifier": classifier})


@pytest.fixture
def short_lessons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three lessons an epoch."""
    monkeypatch.setattr(roles.user.lessons, "LESSON_IMAGES", 10)
    monkeypatch.setattr(roles.provider.pupils, "LESSON_IMAGES", 10)


@pytest.mark.with_figures
def test_users_of_every_kind_of_protection_share_a_run(mixed: Experiment, tmp_path: Path) -> None:
    run, _ = run_in(tmp_path / "run", mixed)
    table = table_of(run)
    assert (table["failure"].fillna("") == "").all()
    assert list(table["setting"][:6]) == [
        "alpha 0.3, width 3",
        "plain",
        "tanaka",
        "pixel",
        "pixel, key per_image, shuffle",
        "alpha 0.3, width 3",
    ]
    assert (table["images"][:6] == 30).all()
    # The two users of one setting have networks of their own, of the width that it says.
    thetas = [load(run.path / "users" / f"user-000{user}" / "theta.safetensors")[0] for user in range(6)]
    assert thetas[0]["head.weight"].shape[1] == 3
    assert not torch.equal(thetas[0]["head.weight"], thetas[5]["head.weight"])
    assert [len(theta) for theta in thetas[1:5]] == [0, 0, 0, 0]
    # Plain images are themselves, and psi is as good on them as it is; FR-Attack is for pixels.
    plain = table.loc["user-0001"]
    assert plain["protected_ssim"] == pytest.approx(1)
    assert plain["accuracy"] == plain["plain_accuracy"]
    assert plain["queries"] == 0
    assert list(table["fr_attack_psnr"].notna()) == [False, False, False, True, True, False, False]
    # Where all images share a key, a few known pairs give every image back.
    assert list(table["key_attack_ssim"].fillna(0) > 0.99) == [False, False, True, True, False, False, False]
    assert list(table["verdict"][2:4]) == ["recovered", "recovered"]
    # In each of psi's two epochs a lesson of all 30 images and an exam of 20.
    for user in ("user-0002", "user-0003", "user-0004"):
        assert (table.loc[user, "queries"], table.loc[user, "queried_images"]) == (4, 100)
        assert table.loc[user, "protected_ssim"] < 0.5
    summary = (run.path / "summary.md").read_text()
    assert "Images under pixel and tanaka encryption are classified by a classifier" in summary


@pytest.mark.with_figures
def test_users_of_one_network_and_several_alphas_are_drawn_over_alpha(small: Experiment, tmp_path: Path) -> None:
    settings = [{"alpha": 0.3}, {"alpha": 0.1}, {"alpha": 0.3, "width": 3}]
    users = small.users.model_dump() | {"count": 3, "partition": {"kind": "iid"}, "images": 24, "settings": settings}
    run, _ = run_in(tmp_path / "run", Experiment.model_validate(small.model_dump() | {"users": users}))
    drawn = {path.name for path in (run.path / "figures").glob("strips-over-alpha-*.png")}
    assert drawn == {"strips-over-alpha-relu1_2-width-2.png"}


@pytest.fixture(scope="module")
def whole_run() -> list[Any]:
    """The table of a run that was not killed and how many replies it took, once there was one."""
    return []


@pytest.mark.usefixtures("short_lessons")
@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.9])
def test_a_run_of_all_kinds_killed_at_any_message_resumes_to_the_same_table(
    mixed: Experiment, tmp_path: Path, whole_run: list[Any], share: float
) -> None:
    if not whole_run:
        run, grid = run_in(tmp_path / "whole", mixed)
        whole_run += table_of(run), len(grid.replies)
    table, replies = whole_run
    with pytest.raises(KilledError):
        run_in(tmp_path / "run", mixed, killed_after(round(share * replies)))
    pd.testing.assert_frame_equal(table_of(run_in(tmp_path / "run", mixed)[0]), table, check_dtype=False)
