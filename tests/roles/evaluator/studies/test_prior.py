from dataclasses import replace
from typing import Any

import pytest
import torch

from roles.common.config.user import PixelConfig, UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import drive
from roles.common.protection import protection_of
from roles.evaluator import generator as module
from roles.evaluator.results import Findings
from roles.evaluator.studies import Prior
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import USERS, Provider, Scaled, findings

ENOUGH: dict[str, Any] = {"leaves": 300, "generator_steps": 120, "latent": 16, "starts": 2, "steps": 50, "lr": 0.2}


def by_prior(rows: Findings) -> dict[str, float]:
    return {str(row["prior"]): float(row["ssim"]) for row in rows}


def test_what_hardly_protects_is_read_beyond_its_class_by_one_and_beyond_the_mean_image_by_the_other(
    context: StudyContext, store: ImageStore
) -> None:
    study = Prior(kind="prior", images=10, **ENOUGH)
    leaves, generator = drive(study.work("0", USERS, context), Provider(store, [0.9, 0.5, -1.0]))
    assert float(leaves["gain_psnr"]) > 1.5
    # In a training of seconds on 200 images, the generator draws digits no better than their class tells.
    assert float(generator["psnr"]) > float(generator["mean_image_psnr"]) + 3


def test_a_key_is_attacked_by_synthetic_images_alone(context: StudyContext, store: ImageStore) -> None:
    config = UserConfig(protection=PixelConfig(kind="pixel"))
    keyed = replace(
        context,
        protection=lambda user, theta: protection_of(config, user, 0, {}, context.attacker.compute),
        network=lambda user, theta: None,
        keyed=lambda user: True,
    )
    study = Prior(kind="prior", images=5, leaves=36)
    assert list(by_prior(drive(study.work("0", USERS, keyed), Provider(store, [0.5])))) == ["dead leaves"]


def test_one_generator_serves_all_users_of_a_process(
    context: StudyContext, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, fit = list[str](), module.fit

    def counted(*arguments: Any, **options: Any) -> Any:
        trained.append(options["name"])
        return fit(*arguments, **options)

    monkeypatch.setattr(module, "fit", counted)
    module._trained.cache_clear()
    study = Prior(kind="prior", images=5, leaves=36, latent=3, generator_steps=4, starts=2, steps=3)
    findings(study, context, Provider(store, [0.5, 0.8, -1.0]))
    # As for every part of a run: another attacker, of the same config and seed.
    other = replace(context, attacker=replace(context.attacker, progress=lambda *_: None), state={})
    drive(study.work("0", USERS, other), Provider(store, [0.5, 0.8, -1.0]))
    assert trained == ["the generator"]
    drive(study.model_copy(update={"latent": 5}).work("0", USERS, replace(other, state={})), Provider(store, [0.5]))
    assert len(trained) == 2


def test_the_estimate_of_an_image_does_not_depend_on_what_else_is_searched_for(
    context: StudyContext, store: ImageStore
) -> None:
    study = Prior(kind="prior", latent=3, generator_steps=4, starts=3, steps=5)
    protected = store.images("test")[:4]
    all_at_once = study._search(Scaled(0.9), protected, context.attacker)
    alone = study._search(Scaled(0.9), protected[2:3], context.attacker)
    assert int((all_at_once[2:3].int() - alone.int()).abs().max()) <= 1
    assert not torch.equal(all_at_once[0], all_at_once[2])


def test_more_starts_end_no_further_from_the_protected_image(context: StudyContext, store: ImageStore) -> None:
    protected = store.images("test")[:6]

    def distance(starts: int) -> torch.Tensor:
        study = Prior(kind="prior", latent=3, generator_steps=30, starts=starts, steps=10, unlikely=0)
        estimates = study._search(Scaled(1.0), protected, context.attacker)
        return (estimates.float() - protected.float()).square().mean(dim=(1, 2, 3))

    one, several = distance(1), distance(4)
    assert bool((several <= one + 1).all())
    assert bool((several < one - 1).any())
