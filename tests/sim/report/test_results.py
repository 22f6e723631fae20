"""What ``sim.load`` gives to a notebook."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import sim
from roles.common.config.attack import ItnConfig
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.report.results import Run, Sweep
from sim.report.write import write_report
from sim.run.folder import RunFolder
from sim.run.subject import Subject
from sim.run.sweep import SweepFolder, load_cells
from tests.sim import made_up_run
from tests.sim.in_process_run import run_in

TRAINED = {
    "name": "trained",
    "data": {"size": 8},
    "classifier": {"crop_padding": 0, "training": {"epochs": 0.2, "lr": 0.01, "batch_size": 256}},
    "users": {"count": 2, "images": 24, "settings": [{}, {"protection": {"kind": "pixel"}}], "validation_images": 20},
    "user": {"width": 2, "depth": 2, "flip": False, "features": {"layer": "relu1_2"}, "training": {"epochs": 1}},
    "attack": {
        "itns": [{"name": "mine", "width": 1, "depth": 2, "training": {"epochs": 1}, "mirrors": "image"}],
        **{"pairs": 8, "test_images": 6, "pictures": 2, "blur_sigma": 0.5},
    },
    "runtime": {"exchange": "relay", "evaluators": 1, "workers": 1, "precision": "fp32"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Four users; the last has failed."""
    path = tmp_path_factory.mktemp("results") / "run"
    return made_up_run.make(path, made_up_run.experiment_of(4), failed={3: "no more disk"})


@pytest.fixture
def run(folder: RunFolder) -> Run:
    found = sim.load(folder.path)
    assert isinstance(found, Run)
    return found


def test_the_package_is_imported_in_an_instant() -> None:
    heavy = "{'torch', 'pandas', 'flwr', 'ray', 'matplotlib'}"
    code = f"import sys, sim; print({heavy} & set(sys.modules), sim.load.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set() sim.report.results\n"


def test_the_package_has_nothing_else_to_offer() -> None:
    with pytest.raises(AttributeError, match="module 'sim' has no attribute 'laod'"):
        _ = sim.laod


def test_a_folder_may_be_a_text(folder: RunFolder) -> None:
    assert sim.load(str(folder.path)).path == folder.path.resolve()


def test_a_run_says_in_words_what_became_of_its_users(run: Run) -> None:
    said = repr(run).splitlines()
    assert said[0].startswith(
        "made-up: User 0 is hidden from these attacks; the images of user 2 can be made out as they"
    )
    assert said[1] == f"1 hidden, 1 partial, 1 visible ({run.path})"
    assert run.experiment.name == "made-up"
    assert run.facts["psi"]["plain_accuracy"] == 0.8


def test_a_notebook_shows_a_run_with_headline_verdicts_and_the_strips_of_two_users(run: Run) -> None:
    page = run._repr_html_()
    assert "User 0 is hidden from these attacks;" in page
    assert page.count("<td>visible</td>") == page.count("<td>works</td>") == 1
    assert "NA&gt;" not in page
    assert page.count("data:image/png;base64,") == 2
    assert "user 2, given away most: visible" in page and "user 0, given away least: hidden" in page


def test_a_run_without_results_says_so_in_a_notebook_as_well(tmp_path: Path) -> None:
    started = sim.load(made_up_run.start(tmp_path / "run", made_up_run.experiment_of(1)).path)
    assert repr(started) == f"made-up: no results yet ({tmp_path / 'run'})"
    assert isinstance(started, Run)
    assert started._repr_html_() == f"<p>{started!r}</p>"


def test_what_matters_of_the_table_fits_into_a_few_columns(run: Run) -> None:
    assert list(run.short) == [
        *("subject", "accuracy", "verdict", "exposed", "best_attack", "best_ssim", "best_recovered", "best_accuracy"),
        *("protected_visible", "shown"),
    ]
    assert run.short["best_attack"].tolist()[:2] == ["ITN paper", "ITN strong"]
    assert run.short["best_ssim"][1] == run.table["itn_strong_ssim"][1]


def test_the_table_has_a_row_a_user_and_one_for_the_control(run: Run) -> None:
    assert list(run.table["subject"]) == ["user-0000", "user-0001", "user-0002", "user-0003", "control-blur"]
    assert list(run.table["verdict"][:3]) == ["hidden", "partial", "visible"]
    assert run.table["failure"][3] == "no more disk"


def test_curves_have_a_row_a_user_and_epoch(run: Run) -> None:
    assert list(run.curves["user"]) == ["user-0000", "user-0000", "user-0001", "user-0001", "user-0002", "user-0002"]
    second = run.curves[run.curves["user"] == "user-0001"]
    assert list(second["epoch"]) == [1, 2]
    assert list(second["train_loss"]) == [3, 1]
    assert np.isnan(second["validation_accuracy"].iloc[0]) and second["validation_accuracy"].iloc[1] == 0.5


def test_measures_have_a_row_a_test_image_and_agree_with_the_table(run: Run) -> None:
    measures = run.measures("user-0001")
    assert list(measures.columns) == [
        f"{what}_{measure}"
        for what in ("protected", "itn_paper", "itn_strong", "class_mean", "mean_image")
        for measure in ("psnr", "ssim")
    ]
    assert measures.index.name == "image" and len(measures) == made_up_run.IMAGES
    # 8.001, 8.501, ...
    assert measures["protected_psnr"][3] == pytest.approx(9.501)
    row = run.table.set_index("subject").loc["user-0001"]
    # The lower of the two in the middle, as PyTorch's median has it.
    assert sorted(measures["itn_strong_psnr"])[5] == pytest.approx(row["itn_strong_psnr"])


def test_pictures_are_images_as_numpy_and_matplotlib_have_them(run: Run) -> None:
    pictures = run.pictures("user-0000")
    assert list(pictures) == ["plain", "protected", "paper", "strong", "class_mean"]
    assert {images.shape for images in pictures.values()} == {(made_up_run.PICTURES, 32, 32, 3)}
    assert pictures["plain"].dtype == np.uint8
    assert pictures["plain"][2, 5, 7, 1] == made_up_run.PLAIN[2, 1, 5, 7].item()


def test_a_figure_that_cannot_be_drawn_is_an_error_and_costs_no_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made_up_run.make(tmp_path, made_up_run.experiment_of(1))

    def full_disk(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("sim.report.write.draw_run", full_disk)
    with pytest.raises(OSError, match="disk full"):
        write_report(run, run.experiment())
    assert "1 of 1 users: hidden" in (tmp_path / "summary.md").read_text()


def test_users_of_one_theta_have_its_measures(tmp_path: Path) -> None:
    experiment = made_up_run.experiment_of(2, strategy={"name": "fedavg"})
    run = sim.load(made_up_run.make(tmp_path, experiment).path)
    assert isinstance(run, Run)
    pd.testing.assert_frame_equal(run.measures("user-0000"), run.measures("user-0001"))
    pd.testing.assert_frame_equal(run.measures("user-0000"), run.measures("shared"))


def test_a_subject_that_was_not_attacked_is_one_line_that_says_who_was(run: Run) -> None:
    with pytest.raises(
        ConfigError, match=r"no attack on 'user-0003': there are control-blur, user-0000, user-0001, us"
    ):
        run.measures("user-0003")
    with pytest.raises(ConfigError, match=r"no attack on 'nobody'"):
        run.pictures("nobody")


def test_a_user_may_be_named_by_its_number(run: Run) -> None:
    pd.testing.assert_frame_equal(run.measures(1), run.measures("user-0001"))
    assert (run.pictures(1)["strong"] == run.pictures("user-0001")["strong"]).all()
    with pytest.raises(ConfigError, match=r"no attack on 'user-0003'"):
        run.attack_result(3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real run of two users, of whom the second encrypts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sim.report.write.draw_run", lambda run, experiment, table, shown: None)
        folder, _ = run_in(tmp_path_factory.mktemp("trained") / "run", Experiment.model_validate(TRAINED))
    found = sim.load(folder.path)
    assert isinstance(found, Run)
    return found


@pytest.mark.parametrize("user", [0, 1])
def test_an_inverse_network_of_the_run_gives_the_same_estimates_again_bit_for_bit(trained: Run, user: int) -> None:
    own, kept = trained.measures(user), trained.pictures(user)["mine"]
    for itn in ("mine", trained.experiment.attack.itns[0]):
        measures, estimates = trained.attack(user, itn)
        assert (estimates.shape, estimates.dtype) == ((6, 8, 8, 3), np.uint8)
        assert (estimates[: len(kept)] == kept).all()
        assert measures.index.name == "image"
        assert (measures.to_numpy() == own[["itn_mine_psnr", "itn_mine_ssim"]].to_numpy()).all()


def test_what_a_user_has_published_is_attacked_by_any_inverse_network(trained: Run) -> None:
    other = trained.experiment.attack.itns[0].model_dump() | {"name": "other", "width": 2}
    measures, estimates = trained.attack(0, ItnConfig.model_validate(other))
    assert list(measures.columns) == ["psnr", "ssim"] and len(measures) == len(estimates) == 6
    assert (estimates != trained.attack(0, "mine")[1]).any()


def test_an_attack_that_cannot_be_made_again_says_why(trained: Run, run: Run) -> None:
    with pytest.raises(ConfigError, match=r"no inverse network 'paper': its config has mine$"):
        trained.attack(0, "paper")
    with pytest.raises(ValueError, match=r"user-0003.theta\.safetensors"):
        run.attack(3, "paper")


def test_studies_and_the_providers_load_are_empty_where_there_are_none(run: Run) -> None:
    assert run.studies == {}
    assert list(run.provider_load.columns) == ["second", "width", "requests", "images", "bytes"]
    assert run.provider_load.empty


def test_studies_and_the_providers_load_are_read_by_name(tmp_path: Path) -> None:
    path = made_up_run.start(tmp_path, made_up_run.experiment_of(1)).path
    (path / "studies").mkdir()
    pd.DataFrame({"users": [1, 2]}).to_parquet(path / "studies" / "pooling.parquet")
    (path / "provider").mkdir()
    rows = [{"second": 1_764_000_000, "width": 1, "requests": 3, "images": 96, "bytes": 1_000_000}]
    (path / "provider" / "load.json").write_text(json.dumps(rows))
    run = sim.load(path)
    assert isinstance(run, Run)
    assert list(run.studies) == ["pooling"] and list(run.studies["pooling"]["users"]) == [1, 2]
    assert run.provider_load.to_dict("records") == rows


def test_a_run_without_a_table_says_how_to_go_on(tmp_path: Path) -> None:
    run = sim.load(made_up_run.start(tmp_path, made_up_run.experiment_of(1)).path)
    assert isinstance(run, Run) and not run.has_table
    with pytest.raises(ConfigError, match=r"no results yet \(phase starting\); go on: veilsim run --resume "):
        _ = run.table
    assert run.curves.empty


def test_a_folder_that_is_neither_a_run_nor_a_sweep_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError) as caught:
            sim.load(path)
        assert str(caught.value) == f"{path}: neither a run folder (config.yaml) nor that of a sweep (sweep.json)"


def test_a_sweep_has_its_cells_by_name_and_one_table_with_the_axes_in_front(tmp_path: Path) -> None:
    config = tmp_path / "sweep.yaml"
    base = made_up_run.experiment_of(2).model_dump(mode="json")
    config.write_text(yaml.safe_dump(base | {"sweep": {"user.alpha": [0.1, 0.2]}}))
    folder = SweepFolder.create(tmp_path / "out", "made-up", load_cells(config))
    first = folder.runs()[0]
    made_up_run.start(tmp_path / "other", first.experiment())
    first.note(json.loads((tmp_path / "other" / "run.json").read_text()))
    first.keep_attack(Subject("user", 0), made_up_run.attack_of(0))
    made_up_run.keep_training(first, 0)
    made_up_run.finish(first)

    sweep = sim.load(folder.path)
    assert isinstance(sweep, Sweep)
    assert repr(sweep) == f"Sweep(2 cells, {sweep.path})"
    assert list(sweep.cells) == ["alpha=0.1", "alpha=0.2"]
    assert [run.has_table for run in sweep.cells.values()] == [True, False]
    assert list(sweep.table.columns[:2]) == ["user.alpha", "subject"]
    assert list(sweep.table["user.alpha"]) == ["0.1", "0.1"]
