"""Attackers of noisy protections have h_theta and how much noise there is, and not the user's secret."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from roles.common.data import ImageStore
from roles.common.exchange import drive
from roles.common.protection import Noisy
from roles.common.weights import State
from roles.evaluator import study as module
from roles.evaluator.itn import Pairs, train_itn
from roles.evaluator.nearest import distances, equal, hits
from roles.evaluator.results import Findings
from roles.evaluator.studies import Collusion, Membership, Pretrained, Retrieval
from roles.evaluator.study import Study, StudyContext
from tests.roles.evaluator.studies.known_users import USERS, Provider, protection

FACTORS = [0.5, 0.6, -1.0]


def noise_of(user: int) -> float:
    return 0.1 * (user + 1)


def noisy(user: int, theta: State) -> Noisy:
    return Noisy(protection(user, theta), noise_of(user), secret=user)


def public(user: int, images: Tensor) -> Tensor:
    return protection(user, {"factor": torch.tensor(FACTORS[user])})(images, "train", torch.arange(len(images)))


@pytest.fixture
def short(context: StudyContext) -> StudyContext:
    """It does not matter how good the networks get: one epoch on 48 images."""
    config = context.attacker.config
    itn = config.itns[0].model_copy(update={"training": config.itns[0].training.model_copy(update={"epochs": 1})})
    attack = config.model_copy(update={"itns": (itn,), "pairs": 48})
    return replace(context, attacker=replace(context.attacker, config=attack), protection=noisy)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Pairs, Tensor]]:
    """The pairs of every training, and the noise that each is given."""
    given: list[tuple[Pairs, Tensor]] = []

    def train(config: Any, pairs: Pairs, *arguments: Any, noise: Any, **options: Any) -> Any:
        given.append((pairs, torch.as_tensor(noise).expand(len(pairs.plain))))
        return train_itn(config, pairs, *arguments, noise=noise, **options)

    monkeypatch.setattr(module, "train_itn", train)
    return given


def rows_of(study: Study, part: str, context: StudyContext, store: ImageStore) -> Findings:
    return drive(study.work(part, USERS, replace(context, state={})), Provider(store, FACTORS))


def test_candidates_are_put_through_the_public_network_without_the_users_noise(
    short: StudyContext, store: ImageStore
) -> None:
    loud = replace(short, protection=lambda user, theta: Noisy(protection(user, theta), 2.0, secret=3))
    rows = rows_of(Retrieval(kind="retrieval", candidates=200), "0", loud, store)
    (found,) = [row["at_1"] for row in rows if row["by"] == "h_theta of candidates"]
    plain, ids = short.test_images(200)
    protected = loud.protection(0, {"factor": torch.tensor(FACTORS[0])})(plain, "test", ids)
    assert found == hits(distances(protected, public(0, plain)), equal(plain), 1)
    assert float(found) < 1


def test_an_outsider_tells_members_by_the_network_alone(short: StudyContext, store: ImageStore) -> None:
    study, silent = Membership(kind="membership", images=20), replace(short, protection=protection)
    assert rows_of(study, "1", short, store) == rows_of(study, "1", silent, store)


def test_a_coalition_trains_on_noise_of_its_own_and_what_has_leaked_is_as_it_is(
    short: StudyContext, store: ImageStore, noted: list[tuple[Pairs, Tensor]]
) -> None:
    study = Collusion(kind="collusion", users=(2,), coalitions=(2,), known_pairs=(0, 20), images=20)
    rows_of(study, "2-2", short, store)
    (pairs, noise), (with_leaked, noise_with_leaked) = noted
    for user in (0, 1):
        own = noise == torch.tensor(noise_of(user))
        assert torch.equal(pairs.protected[own], public(user, pairs.plain[own]))
        assert own.sum() == 48  # half of the pool, and half of it once more
    pool = len(pairs.plain) // 2
    assert torch.equal(noise_with_leaked[:pool], noise[:pool])
    assert not noise_with_leaked[pool:].any()
    leaked = with_leaked.plain[pool:]
    assert not torch.equal(with_leaked.protected[pool:], public(2, leaked))
    assert len(with_leaked.validation_plain) == 2


def test_what_other_users_teach_has_the_noise_of_each(
    short: StudyContext, store: ImageStore, noted: list[tuple[Pairs, Tensor]]
) -> None:
    rows_of(Pretrained(kind="pretrained", users=(2,), known_pairs=(6,), images=20), "2", short, store)
    (pairs, noise), *after = noted
    for user in (0, 1):
        own = noise == torch.tensor(noise_of(user))
        assert torch.equal(pairs.protected[own], public(user, pairs.plain[own]))
        assert own.sum() == 24
    assert not any(later.any() for _, later in after)
