"""Users of every kind of protection in one run."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from flwr.app import RecordDict

import roles.provider.user_classifiers
import roles.user.encrypted_training
from roles.common.exchange import PSI, Classify
from roles.common.weights import load
from sim.config.experiment import Experiment
from sim.exchange.messages import JOB, decode_request, split
from sim.report.figures.run import draw_run
from tests.sim import made_up_run
from tests.sim.in_memory_grid import InMemoryGrid
from tests.sim.in_process_run import Whole, run_in, table_of, whole_run

pytestmark = pytest.mark.usefixtures("without_figures")

SETTINGS: list[dict[str, Any]] = [
    {"alpha": 0.3, "width": 3},
    {"protection": {"kind": "plain"}},
    {"protection": {"kind": "tanaka"}},
    {"protection": {"kind": "pixel"}},
    {"protection": {"kind": "pixel", "key": "per_image", "shuffle": True}},
    {"protection": {"kind": "gan"}},
]


@pytest.fixture
def mixed(small: Experiment) -> Experiment:
    users = {"count": 7, "partition": {"kind": "all"}, "images": 30, "validation_images": 20, "settings": SETTINGS}
    classifier = {"crop_padding": 0, "training": {"epochs": 2, "lr": 0.01, "batch_size": 256}}
    return Experiment.model_validate(small.model_dump() | {"users": users, "classifier": classifier})


@pytest.fixture
def short_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three requests to fit an epoch."""
    monkeypatch.setattr(roles.user.encrypted_training, "FIT_IMAGES", 10)
    monkeypatch.setattr(roles.provider.user_classifiers, "FIT_IMAGES", 10)


def classifiers_asked(grid: InMemoryGrid) -> set[int]:
    """Return whose classifiers were asked for labels."""
    asked: set[int] = set()
    for message in grid.of_type("query.classify"):
        numbered = RecordDict({key: record for key, record in message.content.items() if key != JOB})
        requests = (decode_request("query.classify", content) for content in split(numbered).values())
        asked |= {request.user for request in requests if isinstance(request, Classify)}
    return asked


@pytest.mark.with_figures
def test_users_of_every_kind_of_protection_share_a_run(mixed: Experiment, tmp_path: Path) -> None:
    run, grid = run_in(tmp_path / "run", mixed)
    table = table_of(run)
    assert (table["failure"].fillna("") == "").all()
    assert list(table["setting"][:7]) == [
        "alpha 0.3, width 3",
        "plain",
        "tanaka",
        "pixel",
        "pixel, key per_image, shuffle",
        "gan",
        "alpha 0.3, width 3",
    ]
    assert (table["images"][:7] == 30).all()
    # The two users of one setting have networks of their own, of the width that it says.
    thetas = [load(run.path / "users" / f"user-000{user}" / "theta.safetensors")[0] for user in range(7)]
    assert thetas[0]["head.weight"].shape[1] == 3
    assert not torch.equal(thetas[0]["head.weight"], thetas[6]["head.weight"])
    assert [len(theta) for theta in thetas[1:5]] == [0, 0, 0, 0]
    # The GAN-based scheme's network is published as the paper's is, and no epoch of it is selected by a loss.
    assert thetas[5].keys() == thetas[6].keys()
    assert table.loc["user-0005", "selected_epoch"] == mixed.user.training.epochs
    # Plain images are themselves, and psi is as good on them as it is; FR-Attack is for pixels.
    plain = table.loc["user-0001"]
    assert plain["protected_ssim"] == pytest.approx(1)
    assert plain["accuracy"] == plain["plain_accuracy"]
    assert plain["queries"] == 0
    assert list(table["fr_attack_psnr"].notna()) == [False, False, False, True, True, False, False, False]
    # Where all images share a key, a few known pairs give every image back.
    assert list(table["key_attack_ssim"].fillna(0) > 0.99) == [False, False, True, True, False, False, False, False]
    assert list(table["verdict"][2:4]) == ["recovered", "recovered"]
    # In each of psi's two epochs a request to fit all 30 images and one to validate 20.
    for user in ("user-0002", "user-0003", "user-0004"):
        assert (table.loc[user, "queries"], table.loc[user, "queried_images"]) == (4, 100)
        assert table.loc[user, "protected_ssim"] < 0.5
    # Their images are classified by classifiers of their own, all others' by psi.
    assert classifiers_asked(grid) == {PSI, 2, 3, 4}
    summary = (run.path / "summary.md").read_text()
    assert "Images under pixel and tanaka encryption are classified by a classifier" in summary


def test_a_vit_serves_a_user_with_a_network_and_one_with_block_wise_encryption(
    small: Experiment, tmp_path: Path
) -> None:
    settings = [{"alpha": 0.3}, {"protection": {"kind": "block"}}]
    training = {"epochs": 2, "optimiser": "adam", "lr": 0.001, "weight_decay": 0, "schedule": "one_cycle"}
    changes = {
        "users": {
            "count": 2,
            "partition": {"kind": "all"},
            "images": 30,
            "validation_images": 20,
            "settings": settings,
        },
        "classifier": {"name": "vit", "crop_padding": 0, "training": training},
    }
    run, grid = run_in(tmp_path / "run", Experiment.model_validate(small.model_dump() | changes))
    table = table_of(run)
    assert (table["failure"].fillna("") == "").all()
    assert list(table["setting"][:2]) == ["alpha 0.3", "block"]
    assert classifiers_asked(grid) == {PSI, 1}
    block = table.loc["user-0001"]
    assert block["protected_ssim"] < 0.5
    assert block["key_attack_ssim"] > 0.99
    assert block["verdict"] == "recovered"


def test_users_of_one_network_and_several_alphas_are_drawn_over_alpha(tmp_path: Path) -> None:
    settings = [{"alpha": 0.3}, {"alpha": 0.1}, {"alpha": 0.3, "width": 3}]
    experiment = made_up_run.experiment_of(3, users={"count": 3, "settings": settings})
    run = made_up_run.make(tmp_path / "run", experiment)
    draw_run(run, experiment, pd.read_parquet(run.path / "table.parquet"), [0])
    drawn = {path.name for path in (run.path / "figures").glob("strips-over-alpha-*.png")}
    assert drawn == {"strips-over-alpha-relu2_2-width-64.png"}


SHARES = (0.1, 0.25, 0.35, 0.5, 0.9)


@pytest.fixture(scope="module")
def known() -> dict[str, Whole]:
    return {}


@pytest.mark.usefixtures("short_requests")
@pytest.mark.parametrize("share", SHARES)
def test_a_run_of_all_kinds_killed_at_any_message_resumes_to_the_same_table(
    mixed: Experiment, tmp_path_factory: pytest.TempPathFactory, known: dict[str, Whole], share: float
) -> None:
    if not known:
        known["run"] = whole_run(tmp_path_factory.mktemp("run"), mixed, SHARES)
    whole = known["run"]
    run, _ = run_in(whole.killed[share], mixed)
    pd.testing.assert_frame_equal(table_of(run), table_of(whole.run), check_dtype=False)
