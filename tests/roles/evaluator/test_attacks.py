"""Which attacks that train no network apply to which protection, and that they find what their algebra promises."""

from collections.abc import Callable

import pytest
import torch

from roles.common.config.attack import AttackConfig, ItnConfig
from roles.common.config.user import (
    BlockConfig,
    GanConfig,
    NetworkConfig,
    PixelConfig,
    PlainConfig,
    Protection,
    TanakaConfig,
    UserConfig,
    has_key,
)
from roles.common.data import ImageStore
from roles.common.exchange import Answer, Classify, Predictions, Request, drive
from roles.common.protection import encryption_of, image_numbers
from roles.evaluator.attack import evaluate_protection
from roles.evaluator.attacker import Attacker
from roles.evaluator.attacks import CIPHER_ATTACKS

TANAKA, BLOCK, ONE_KEY = TanakaConfig(kind="tanaka"), BlockConfig(kind="block"), PixelConfig(kind="pixel", shuffle=True)
KEY_EACH = PixelConfig(kind="pixel", key="per_image")
APPLY: list[tuple[Protection | None, list[str]]] = [
    (None, []),
    (NetworkConfig(), []),
    (PlainConfig(kind="plain"), []),
    (GanConfig(kind="gan"), []),
    (TANAKA, ["key_attack"]),
    (BLOCK, ["key_attack"]),
    (ONE_KEY, ["fr_attack", "key_attack"]),
    (KEY_EACH, ["fr_attack"]),
]


def zeros(request: Request) -> Answer:
    assert isinstance(request, Classify)
    return Predictions(torch.zeros(len(request.images), dtype=torch.int64))


def test_attacks_have_names_and_titles_of_their_own() -> None:
    assert {attack.name: attack.title for attack in CIPHER_ATTACKS} == {
        "fr_attack": "FR-Attack",
        "key_attack": "known pairs",
    }


@pytest.mark.parametrize(("protection", "names"), APPLY, ids=str)
def test_an_attack_applies_to_the_encryption_that_it_is_on(protection: Protection | None, names: list[str]) -> None:
    assert [attack.name for attack in CIPHER_ATTACKS if attack.applies_to(protection)] == names
    assert has_key(protection) == bool(names)


@pytest.mark.parametrize("protection", [TANAKA, BLOCK, ONE_KEY, KEY_EACH], ids=str)
def test_an_evaluation_runs_what_applies_and_ten_known_pairs_tell_a_shared_key(
    protection: TanakaConfig | BlockConfig | PixelConfig,
    store: ImageStore,
    small_itn: ItnConfig,
    attacker_with: Callable[[AttackConfig], Attacker],
) -> None:
    encryption = encryption_of(UserConfig(protection=protection), 0, 0)
    attacker = attacker_with(AttackConfig(itns=(small_itn,), pairs=36, test_images=10, pictures=10))
    work = evaluate_protection(
        lambda images, split, positions: encryption.protect(images, image_numbers(split, positions)),
        protection,
        attacker,
        {},
    )
    result = drive(work, zeros)
    names = [attack.name for attack in CIPHER_ATTACKS if attack.applies_to(protection)]
    assert list(result.estimates) == ["small", *names]
    assert list(result.curves) == ["small"]
    if "key_attack" in names:
        assert torch.equal(result.pictures["key_attack"], store.images("test")[:10])
    if "fr_attack" in names:
        assert int(result.pictures["fr_attack"].max()) <= 127
