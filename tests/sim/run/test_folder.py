"""What a run folder keeps is what it gives back, and nothing of it is written where it does not belong."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch

from roles.common.weights import save
from roles.evaluator.results import AttackResult, Measured, Seen
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.exchange.messages import encode_tensors
from sim.run import folder
from sim.run.folder import Publication, RunFolder, part_name
from sim.run.machine import node_folder
from sim.run.subject import CONTROL, Subject


@pytest.fixture
def run(experiment: Experiment, tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", experiment)


def test_of_two_runs_that_begin_in_one_folder_at_once_one_is_refused(experiment: Experiment, tmp_path: Path) -> None:
    both = Barrier(2)

    def begin(seed: int) -> RunFolder | str:
        both.wait()
        try:
            return RunFolder.create(tmp_path / "new", experiment.model_copy(update={"seed": seed}))
        except ConfigError as error:
            return str(error)

    for _ in range(20):
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(begin, (1, 2)))
        (winner,) = (seed for seed, one in enumerate(found, 1) if isinstance(one, RunFolder))
        assert RunFolder.open(tmp_path / "new").experiment().seed == winner
        (refusal,) = (one for one in found if isinstance(one, str))
        assert refusal.startswith(f"{tmp_path / 'new'}: ") and "\n" not in refusal
        shutil.rmtree(tmp_path / "new")


def test_users_that_have_published_are_told_in_order(run: RunFolder) -> None:
    assert run.published() == []
    for user in (11, 2):
        run.keep_user(user, {}, Publication({"steps": 4.0}, [{"epoch": 1.0}]))
    (run.path / "users" / "user-0005").mkdir()  # killed before it had published
    assert run.published() == [2, 11]
    assert run.user(11) == Publication({"steps": 4.0}, [{"epoch": 1.0}])
    assert run.user(5) is None


def test_the_state_of_a_users_training_is_forgotten_and_that_of_others_stays(run: RunFolder) -> None:
    for name in ("user-0000", "user-0001", "provider"):
        save(node_folder(run.path, name) / "round-0001.safetensors", {"weight": torch.zeros(2)})
    run.forget_training(0)
    run.forget_training(7)
    assert {path.name for path in (run.path / "state").iterdir() if path.is_dir()} == {"user-0001", "provider"}


def test_seconds_are_counted_over_all_attempts_and_noted_in_between(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [50.0]
    monkeypatch.setattr(folder.time, "monotonic", lambda: now[0])
    for expected in (10.0, 20.0):
        with run.timing("seconds") as note:
            now[0] += 4
            note()
            assert run.facts()["seconds"] == expected - 6
            now[0] += 6
        assert run.facts()["seconds"] == expected


def test_a_failed_part_of_a_study_is_forgotten_and_other_failures_stay(run: RunFolder) -> None:
    run.keep_failure("user-0001", "no more disk")
    run.keep_failure(part_name("collusion", "7-1"), "out of memory")
    assert run.failures() == ["study-collusion-7-1", "user-0001"]
    assert run.failure(part_name("collusion", "7-1")) == "out of memory"
    run.forget_failed_parts()
    assert run.failures() == ["user-0001"]
    run.forget_failure("user-0001")
    run.forget_failure("user-0002")
    assert (run.failures(), run.failure("user-0001")) == ([], "")


def test_findings_are_those_among_the_users_that_have_published_now(run: RunFolder) -> None:
    run.keep_findings("transfer", "0", [0, 1], [{"ssim": 0.5}])
    assert run.findings("transfer", "0", [0, 1]) == [{"ssim": 0.5}]
    assert run.findings("transfer", "0", [0, 1, 2]) is None
    assert run.findings("transfer", "1", [0, 1]) is None


def test_a_finished_round_takes_the_place_of_the_one_before(run: RunFolder) -> None:
    assert (run.finished_rounds(), len(run.round_arrays())) == (0, 0)
    for number in (1, 2, 2):  # the second was killed before it could be noted elsewhere, and is done again
        run.keep_round(number, encode_tensors({"weight": torch.full((2,), float(number))}), {"validation_loss": 1.0})
    assert run.finished_rounds() == 2
    assert run.rounds() == [{"round": number, "validation_loss": 1.0} for number in (1, 2)]
    assert len(list((run.path / "state").glob("arrays-*"))) == 1


def measured(value: float, lpips: float | None = None, accuracy: float | None = None) -> Measured:
    return Measured(torch.full((3,), value), torch.full((3,), value / 100), lpips and torch.full((3,), lpips), accuracy)


def test_what_an_evaluator_found_is_read_as_it_was_kept(run: RunFolder) -> None:
    result = AttackResult(
        protected=measured(8, lpips=0.5, accuracy=0.75),
        seen=Seen(torch.full((3,), 0.25), torch.full((3,), 0.5), -2, 1),
        estimates={"paper": measured(20, accuracy=0.5)},
        baselines={"class_mean": measured(12)},
        curves={"paper": [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25, "validation_loss": 0.5}]},
        pictures={name: torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2) for name in ("plain", "protected")},
    )
    run.keep_attack(Subject("user", 3), result)
    found = run.attack(Subject("user", 3))
    assert found is not None
    assert (run.path / "attacks" / "user-0003" / "measures.safetensors").is_file()
    for kept, read in ((result.protected, found.protected), (result.estimates["paper"], found.estimates["paper"])):
        assert torch.equal(kept.psnr, read.psnr)
        assert torch.equal(kept.ssim, read.ssim)
        assert kept.accuracy == read.accuracy
    assert found.protected.lpips is not None
    assert found.seen is not None and result.seen is not None
    assert torch.equal(found.seen.ssim, result.seen.ssim)
    assert torch.equal(found.seen.shown, result.seen.shown)
    assert (found.seen.down, found.seen.right) == (-2, 1)
    assert found.baselines["class_mean"].accuracy is None
    assert found.curves == result.curves
    assert torch.equal(found.pictures["plain"], result.pictures["plain"])
    assert run.attack(CONTROL) is None


def test_measures_that_an_earlier_version_kept_are_read(run: RunFolder) -> None:
    tensors = {
        "protected/psnr": torch.tensor([8.0, 9.0]),
        "protected/ssim": torch.tensor([0.1, 0.2]),
        "itn/strong/psnr": torch.tensor([20.0, 21.0]),
        "itn/strong/ssim": torch.tensor([0.6, 0.7]),
        **{f"picture/{name}": torch.zeros((1, 3, 8, 8), dtype=torch.uint8) for name in ("plain", "protected")},
    }
    metrics = {"metrics": {"itn/strong": 0.5}, "curve/strong": {"epoch": [1.0, 2.0], "loss": [0.5, float("nan")]}}
    path = run.path / "attacks" / "control-blur" / "measures.safetensors"
    save(path, tensors, {"metrics": json.dumps(metrics)})
    found = run.attack(CONTROL)
    assert found is not None
    assert found.protected.psnr.tolist() == [8.0, 9.0]
    assert found.estimates["strong"].accuracy == 0.5
    assert found.curves == {"strong": [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0}]}
    assert list(found.pictures) == ["plain", "protected"]
    assert found.seen is None


def result_of(pictures: int = 1, **estimates: float) -> AttackResult:
    return AttackResult(
        protected=measured(sum(estimates.values())),
        seen=None,
        estimates={name: measured(value) for name, value in estimates.items()},
        baselines={"mean_image": measured(5)},
        curves={name: [{"epoch": 1.0, "step": value}] for name, value in estimates.items()},
        pictures={
            name: torch.full((1, 3, 2, 2), pictures, dtype=torch.uint8) for name in ("plain", "protected", *estimates)
        },
    )


def test_a_later_attack_is_kept_beside_those_that_were_known_of_which_nothing_changes(run: RunFolder) -> None:
    run.add_attack(CONTROL, result_of(paper=10))
    run.add_attack(CONTROL, result_of(paper=11, wide=20))
    found = run.attack(CONTROL)
    assert found is not None
    assert sorted(run.attacks_on(CONTROL)) == ["paper", "wide"]
    psnrs = {name: estimate.psnr.tolist() for name, estimate in found.estimates.items()}
    assert psnrs == {"paper": [10.0] * 3, "wide": [20.0] * 3}
    assert found.protected.psnr.tolist() == [10.0] * 3
    assert {name: rows[0]["step"] for name, rows in found.curves.items()} == {"paper": 10, "wide": 20}
    assert set(found.pictures) == {"plain", "protected", "paper", "wide"}


def test_a_later_attack_on_other_images_is_not_put_beside_what_is_known(run: RunFolder) -> None:
    run.add_attack(CONTROL, result_of(paper=10))
    with pytest.raises(ValueError, match="test images are not the 3 that earlier attacks were measured on"):
        run.add_attack(CONTROL, result_of(wide=20, pictures=2))
    assert run.attacks_on(CONTROL) == ["paper"]


def test_what_is_missing_are_the_inverse_networks_that_attack_somebody(run: RunFolder, experiment: Experiment) -> None:
    itns = [{"name": "all", "training": {"epochs": 1}}, {"name": "one", "users": [1], "training": {"epochs": 1}}]
    some = Experiment.model_validate(experiment.model_dump() | {"attack": {"itns": itns}})
    run.keep_attack(CONTROL, result_of(all=10))
    subjects = (Subject("user", 0), Subject("user", 1), Subject("shared"), CONTROL)
    missing = {subject.name: run.missing_itns(subject, some) for subject in subjects}
    assert missing == {
        "user-0000": ["all"],
        "user-0001": ["all", "one"],
        "shared": ["all", "one"],
        "control-blur": ["one"],
    }
