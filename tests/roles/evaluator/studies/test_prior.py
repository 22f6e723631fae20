from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from roles.common.config.data import Split
from roles.common.config.user import PixelConfig, UserConfig
from roles.common.data import ImageStore
from roles.common.exchange import drive
from roles.common.images import to_bitmap, to_unit
from roles.common.protection import protection_of
from roles.evaluator import generator as module
from roles.evaluator.generator import Generator
from roles.evaluator.results import Findings
from roles.evaluator.studies import Prior, prior
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import USERS, Provider, Scaled, Training, distinct, findings


def by_prior(rows: Findings) -> dict[str, float]:
    return {str(row["prior"]): float(row["ssim"]) for row in rows}


def test_an_image_that_the_generator_can_draw_is_found(
    context: StudyContext, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        planted = Generator(latent=8, side=store.side).eval().requires_grad_(False)
        z = torch.randn(6, 8)
    # With its initial weights alone, it draws nearly the same whatever z is.
    planted.begin.weight *= 5
    planted.finish.weight *= 10
    monkeypatch.setattr(prior, "trained_generator", lambda *_: planted)
    h = Scaled(0.9)

    def distance(images: torch.Tensor) -> torch.Tensor:
        return (h(images) - h(planted(z))).square().mean(dim=(1, 2, 3))

    study = Prior(kind="prior", latent=8, starts=4, steps=60, unlikely=0)
    found = study._search(h, to_bitmap(h(planted(z))), context.attacker)
    assert bool((distance(to_unit(found)) < 0.05 * distance(planted(torch.zeros_like(z)))).all())


def test_who_knows_dead_leaves_alone_has_seen_no_image_of_the_stores(
    short: StudyContext, store: ImageStore, trainings: list[Training]
) -> None:
    study = Prior(kind="prior", images=5, leaves=36)
    drive(study.work("0", USERS, replace(short, network=lambda user, theta: None)), Provider(store, [0.9, 0.5, -1.0]))
    (training,) = trainings
    assert (len(training.plain), len(training.validation)) == (36, 4)
    drawn = distinct(training.plain) | distinct(training.validation)
    assert len(drawn) == 40
    for split in get_args(Split):
        assert not drawn & distinct(store.images(split))


def test_a_key_is_attacked_by_synthetic_images_alone(short: StudyContext, store: ImageStore) -> None:
    config = UserConfig(protection=PixelConfig(kind="pixel"))
    keyed = replace(
        short,
        protection=lambda user, theta: protection_of(config, user, 0, {}, short.attacker.compute),
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
