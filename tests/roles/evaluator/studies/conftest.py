"""What the tests of studies share: what an evaluator has, and what each study has found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from roles.common.config.attack import AttackConfig, ItnConfig
from roles.common.data import ImageStore
from roles.common.exchange import other_classifier
from roles.evaluator import study as module
from roles.evaluator.attacker import Attacker
from roles.evaluator.itn import Pairs, train_itn
from roles.evaluator.results import Findings
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import (
    STUDIES,
    Provider,
    Scaled,
    Training,
    factor_of,
    findings,
    protection,
)


@pytest.fixture
def context(small_itn: ItnConfig, attacker_with: Callable[[AttackConfig], Attacker]) -> StudyContext:
    training = small_itn.training.model_copy(update={"epochs": 8})
    attack = AttackConfig(
        itns=(small_itn.model_copy(update={"training": training}),), pairs=200, test_images=20, pictures=2, flip=False
    )
    return StudyContext(
        replace(attacker_with(attack), judge=other_classifier(0)),
        protection=protection,
        network=lambda user, theta: Scaled(factor_of(theta)),
        others=["resnet20", "resnet20"],
        keyed=lambda user: False,
        state={},
        hijacked=lambda user: "pairs",
    )


@pytest.fixture
def short(context: StudyContext) -> StudyContext:
    """Where it does not matter how good the networks get: trainings of two epochs on 48 images."""
    config = context.attacker.config
    itn = config.itns[0].model_copy(update={"training": config.itns[0].training.model_copy(update={"epochs": 2})})
    attack = config.model_copy(update={"itns": (itn,), "pairs": 48})
    return replace(context, attacker=replace(context.attacker, config=attack))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    done: list[Training] = []

    def noted(
        config: ItnConfig, pairs: Pairs, *arguments: Any, **options: Any
    ) -> tuple[nn.Module, list[dict[str, float]]]:
        done.append(Training(pairs.plain, pairs.validation_plain))
        return train_itn(config, pairs, *arguments, **options)

    monkeypatch.setattr(module, "train_itn", noted)
    return done


@pytest.fixture(scope="session")
def known() -> dict[str, Findings]:
    return {}


@pytest.fixture
def found(context: StudyContext, store: ImageStore, known: dict[str, Findings]) -> Callable[[str], Findings]:
    """Return a function of a study to all its rows about two users of one theta and one that inverts; to be read."""

    def rows_of(kind: str) -> Findings:
        if kind not in known:
            parts = findings(STUDIES[kind], context, Provider(store, [0.5, 0.5, -1.0]))
            known[kind] = [row for rows in parts.values() for row in rows]
        return known[kind]

    return rows_of
