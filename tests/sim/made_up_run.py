"""Run folders with made-up results, written by the methods that write real ones, in a fraction of a real one's time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from roles.common.naming import user_name
from roles.evaluator.results import AttackResult, Measured, Seen
from sim.config.experiment import Experiment
from sim.report.table import table_of
from sim.report.text import write_table
from sim.run.folder import Publication, RunFolder
from sim.run.progress import Status
from sim.run.subject import CONTROL, Subject

ITNS = ("paper", "strong")
IMAGES, PICTURES = 12, 6
PLAIN = torch.randint(256, (PICTURES, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def experiment_of(count: int, **more: Any) -> Experiment:
    content: dict[str, Any] = {
        "name": "made-up",
        "users": {"count": count},
        "user": {"features": {"weights": "random"}},
        "attack": {"itns": [{"name": name, "training": {"epochs": 1}} for name in ITNS], "pictures": PICTURES},
        "runtime": {"precision": "fp32"},
    }
    return Experiment.model_validate(content | more)


def measured(psnr: float, ssim: float, accuracy: float | None = 0.5) -> Measured:
    """The first image has ``psnr`` and ``ssim``, each other 0.5 dB and 0.01 more than the one before."""
    steps = torch.arange(IMAGES, dtype=torch.float32)
    return Measured(psnr + steps / 2, ssim + steps / 100, None, accuracy)


def attack_of(user: int, protected_ssim: float = 0.1, strong_ssim: float = 0.6) -> AttackResult:
    generator = torch.Generator().manual_seed(user + 1)

    def noise() -> torch.Tensor:
        return torch.randint(256, PLAIN.shape, generator=generator, dtype=torch.uint8)

    return AttackResult(
        protected=measured(8 + user / 1000, protected_ssim, 0.7 - user / 10_000),
        seen=Seen(measured(8, protected_ssim).ssim, torch.zeros(IMAGES), 0, 0),
        estimates={"paper": measured(14, 0.3, 0.4), "strong": measured(20 + user / 1000, strong_ssim, 0.6)},
        baselines={"mean_image": measured(11, 0.1, None), "class_mean": measured(13, 0.2, None)},
        curves={},
        pictures={"plain": PLAIN, "protected": noise(), "paper": noise(), "strong": noise(), "class_mean": PLAIN // 2},
    )


def keep_training(run: RunFolder, user: int) -> None:
    facts = {"images": 100.0 + user, "steps": 40.0, "selected-epoch": 2.0, "queries": 48.0, "queried-images": 1800.0}
    facts |= {"sent-bytes": 23e6 + user, "received-bytes": 15e6}
    curve = [{"epoch": 1.0, "train_loss": 2.0 + user}, {"epoch": 2.0, "train_loss": 1.0, "validation_accuracy": 0.5}]
    run.keep_user(user, {}, Publication(facts, curve))


def start(path: Path, experiment: Experiment) -> RunFolder:
    """Make a run whose classifier has been trained and whose users have not."""
    run = RunFolder.create(path, experiment)
    psi = {
        "digest": "0" * 64,
        "test_accuracy": 0.8,
        "plain_accuracy": 0.8,
        "chance": 0.1,
        "reused": False,
        "seconds": 9.0,
    }
    run.note({"psi": psi, "seconds": 120.0, "command": ["run", "configs/made up.yaml", "seed=3"]})
    return run


def finish(run: RunFolder) -> RunFolder:
    write_table(run.path, table_of(run, run.experiment()))
    Status("complete").write(run.path)
    return run


def make(path: Path, experiment: Experiment, failed: dict[int, str] | None = None) -> RunFolder:
    """Make a complete run; the first user is hidden, the second partly, the third visible, the others are recovered."""
    run, failed = start(path, experiment), failed or {}
    ssims = {0: (0.1, 0.1), 1: (0.1, 0.35), 2: (0.6, 0.6)}
    attacked: set[str] = set()
    for user in range(experiment.user_count):
        if user in failed:
            run.keep_failure(user_name(user), failed[user])
            continue
        keep_training(run, user)
        subject = Subject.of(experiment, user)
        if subject not in attacked:
            protected, strong = ssims.get(user, (0.1, 0.6))
            result = attack_of(user, protected, strong)
            if user == 0:
                hidden = {"paper": measured(13, 0.15, 0.4), "strong": measured(13.5, 0.15, 0.4)}
                result = replace(result, estimates=hidden)
            run.keep_attack(subject, result)
            attacked.add(subject)
    run.keep_attack(CONTROL, attack_of(-1, 0.6, 0.85))
    return finish(run)
