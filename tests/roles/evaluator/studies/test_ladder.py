"""The ladder of attacks: what a rung is, and when a ladder has come to its plateau."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from roles.common.data import ImageStore
from roles.common.exchange import Published, drive
from roles.common.transform import apply_network
from roles.evaluator import attacker as module
from roles.evaluator.controls import BLUR, blur
from roles.evaluator.itn import train_itn
from roles.evaluator.measures import ssim
from roles.evaluator.results import Row
from roles.evaluator.studies import Ladder
from roles.evaluator.studies.ladder import PLATEAU, climbs
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import USERS, Provider, protection


def ladder_of(*rungs: dict[str, Any]) -> Ladder:
    return Ladder.model_validate({"kind": "ladder", "rungs": rungs})


@pytest.mark.parametrize(
    "above",
    [{"pairs": 99, "steps": 2}, {"pairs": 100, "steps": 1}, {"steps": 2, "width": 8}, {"pairs": 100, "steps": 2}],
)
def test_a_rung_below_the_one_before_it_or_the_same_is_an_error(above: dict[str, Any]) -> None:
    lowest = {"pairs": 100, "steps": 2, "width": 16}
    with pytest.raises(ValidationError, match="must rise"):
        ladder_of(lowest, {"width": 16, **above})
    with pytest.raises(ValidationError, match="must rise"):
        ladder_of({"width": 4}, {"pairs": 100_000, "width": 4})  # from all pairs back to some
    assert ladder_of(lowest, {"steps": 2, "width": 16}).rungs[1].pairs is None
    with pytest.raises(ValidationError):
        ladder_of(lowest)


def test_every_rung_of_every_user_and_of_the_control_is_a_part() -> None:
    assert ladder_of({"width": 2}, {"width": 4}).parts([0, 7], 0) == [
        *("0-1", "0-2", "7-1", "7-2", "control-blur-1", "control-blur-2")
    ]


def test_fewer_pairs_take_as_many_steps_and_a_factor_takes_a_multiple_of_those_over_all_pairs(
    context: StudyContext, store: ImageStore
) -> None:
    study = ladder_of(
        {"pairs": 20, "steps": 0.125, "width": 2},
        {"pairs": 5000, "steps": 0.125, "width": 2},
        {"steps": 0.25, "width": 3},
    )
    provider, parts = Provider(store, [0.5, 0.5, -1.0]), ("0-1", "0-2", "0-3")
    rows = [drive(study.work(part, USERS, replace(context, state={})), provider)[0] for part in parts]
    # 200 pairs in batches of 16 are 13 steps an epoch, of which the recipe has 8.
    assert [row["steps"] for row in rows] == [13, 13, 26]
    assert [row["pairs"] for row in rows] == [20, 200, 200]
    assert [row["width"] for row in rows] == [2, 2, 3]


def test_a_rung_of_the_configs_own_budget_is_the_inverse_network_of_the_run(
    context: StudyContext, store: ImageStore
) -> None:
    recipe = context.itn.training.model_copy(update={"epochs": 1})
    itn = context.itn.model_copy(update={"training": recipe})
    short = context.attacker.config.model_copy(update={"itns": (itn,)})
    context = replace(context, attacker=replace(context.attacker, config=short))
    study = ladder_of({"width": 2}, {"width": context.itn.width})
    (row,) = drive(study.work("0-2", USERS, context), Provider(store, [-1.0, 0.5, 0.5]))
    protect = protection(0, {"factor": torch.tensor(-1.0)})
    network, curve = context.attacker.inverse_network(context.itn, protect)
    plain, positions = context.attacker.test_images
    estimates = apply_network(network, protect(plain, "test", positions), context.attacker.compute)
    assert row["ssim"] == ssim(estimates, plain).median().item()
    assert row["validation_loss"] == min(one["validation_loss"] for one in curve)
    guesses = torch.stack([ssim(guess, plain) for guess in context.attacker.guesses(len(plain)).values()]).amax(0)
    enough = torch.maximum(torch.tensor(0.5), (1 + guesses) / 2)
    assert row["recovered"] == (ssim(estimates, plain) >= enough).double().mean().item()


def test_the_control_is_blurred_images_and_asks_nobody_for_a_theta(short: StudyContext, store: ImageStore) -> None:
    provider = Provider(store, [0.5, 0.5, -1.0])
    study = ladder_of({"steps": 0.1, "width": 2}, {"width": 3})
    (row,) = drive(study.work(f"{BLUR}-1", USERS, short), provider)
    assert row["user"] == BLUR
    plain, _ = short.attacker.test_images
    assert row["protected_ssim"] == ssim(blur(plain, short.attacker.config.blur_sigma), plain).median().item()
    assert not any(isinstance(request, Published) for request in provider.requests)


def test_pairs_under_a_key_are_not_mirrored(
    short: StudyContext, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flips: list[bool] = []

    def noted(*arguments: Any, flip: bool, **options: Any) -> Any:
        flips.append(flip)
        return train_itn(*arguments, flip=flip, **options)

    monkeypatch.setattr(module, "train_itn", noted)
    config = short.attacker.config.model_copy(update={"flip": True})
    mirroring = replace(short, attacker=replace(short.attacker, config=config))
    study, provider = ladder_of({"steps": 0.1, "width": 2}, {"width": 3}), Provider(store, [0.5, 0.5, -1.0])
    for keyed in (False, True):
        state: dict[str, torch.Tensor] = {}
        drive(study.work("0-1", USERS, replace(mirroring, keyed=lambda _, k=keyed: k, state=state)), provider)
    assert flips == [True, False]


def rows_of(*ssims: float, user: int | str = 0, psnr: float = 20.0, recovered: float = 0.1) -> list[Row]:
    return [
        {"user": user, "rung": rung, "ssim": value, "psnr": psnr, "recovered": recovered}
        for rung, value in enumerate(ssims, 1)
    ]


@pytest.mark.parametrize(
    ("ssims", "plateau", "best"),
    [
        ((0.3, 0.5, 0.51), True, 3),
        ((0.3, 0.5, 0.49), True, 2),
        ((0.3, 0.5, 0.53), False, 3),
        ((0.3, 0.5, 0.4), False, 2),  # more steps may learn pairs by heart, or fail
        ((0.6, 0.3, 0.59), True, 1),  # the best below the top need not be the one before it
        ((0.3, 0.5), False, 2),  # the third rung is missing
    ],
)
def test_a_ladder_is_at_its_plateau_when_the_top_rung_is_near_the_best_below(
    ssims: tuple[float, ...], plateau: bool, best: int
) -> None:
    climb = climbs(rows_of(*ssims)[::-1], 3)[0]
    assert (climb.plateau, climb.best["rung"]) == (plateau, best)


@pytest.mark.parametrize("measure", PLATEAU)
def test_any_measure_that_rises_keeps_a_ladder_from_its_plateau(measure: str) -> None:
    below, top = rows_of(0.5, 0.5)
    assert climbs([below, top], 2)[0].plateau
    assert not climbs([below, top | {measure: float(top[measure]) + PLATEAU[measure] + 1e-9}], 2)[0].plateau


@pytest.mark.parametrize("measure", PLATEAU)
def test_a_top_rung_that_is_behind_in_any_measure_and_ahead_in_none_has_fallen(measure: str) -> None:
    below, top = rows_of(0.5, 0.5)
    behind = top | {measure: float(top[measure]) - PLATEAU[measure] - 1e-9}
    assert climbs([below, behind], 2)[0][1:] == (False, True)
    other = next(name for name in PLATEAU if name != measure)
    ahead = behind | {other: float(top[other]) + 1}
    assert climbs([below, ahead], 2)[0][1:] == (False, False)
    assert climbs([below, behind], 3)[0][1:] == (False, False)


def test_a_ladder_whose_top_rung_fell_behind_is_not_said_to_rise() -> None:
    rows = [row | {"gain_ssim": 0.1} for row in (*rows_of(0.5, 0.2), *rows_of(0.5, 0.9, user=1))]
    said = ladder_of({"width": 2}, {"width": 4}).conclusion(rows)
    assert "plateau for 0 of 2 users; still rising: user 1; the top rung fell behind: user 0. Its" in said


def test_ladders_of_users_and_of_the_control_are_told_apart() -> None:
    found = climbs([*rows_of(0.1, 0.1), *rows_of(0.5, 0.9, user=1), *rows_of(0.9, 0.95, user=BLUR)], 2)
    assert {whose: climb.plateau for whose, climb in found.items()} == {0: True, 1: False, BLUR: False}
