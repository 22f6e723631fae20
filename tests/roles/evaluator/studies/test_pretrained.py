from dataclasses import replace

import pytest
from pydantic import ValidationError

from roles.common.data import ImageStore
from roles.common.exchange import drive
from roles.evaluator.studies import Pretrained
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import STUDIES, USERS, Provider, Training, distinct


def test_what_users_of_the_same_protection_taught_helps_with_a_few_pairs_of_the_victims(
    context: StudyContext, store: ImageStore
) -> None:
    study = Pretrained(kind="pretrained", known_pairs=(6,), victims=1, images=20)
    rows = drive(study.work("2", USERS, context), Provider(store, [-1.0, -0.9, -0.95]))
    pretrained, fresh = (float(row["ssim"]) for row in rows)
    assert pretrained > fresh + 0.02


def test_the_fresh_network_has_as_many_steps_as_the_pretrained_one_in_all(
    short: StudyContext, store: ImageStore
) -> None:
    steps: list[int] = []
    watched = replace(short.attacker, progress=lambda step, total, loss: steps.append(total) if step == total else None)
    study = Pretrained(kind="pretrained", known_pairs=(5, 40), victims=1, images=20)
    drive(study.work("0", USERS, replace(short, attacker=watched)), Provider(store, [0.5, 0.6, -1.0]))
    before, *after = steps
    assert after == [before, 2 * before] * 2


def test_pairs_that_select_the_epoch_are_not_trained_on_and_are_the_victims(
    short: StudyContext, store: ImageStore, trainings: list[Training]
) -> None:
    study = Pretrained(kind="pretrained", known_pairs=(4, 40), victims=1, images=20)
    drive(study.work("1", USERS, short), Provider(store, [0.5, 0.6, -1.0]))
    # As Provider has it, 50 images are a user's X'.
    own = distinct(store.images("train")[50:100])
    used = [(distinct(training.plain), distinct(training.validation)) for training in trainings[1:]]
    assert [(len(known), len(held_out)) for known, held_out in used] == [(2, 2), (2, 2), (36, 4), (36, 4)]
    assert all(known | held_out <= own and not known & held_out for known, held_out in used)
    taught_on = distinct(trainings[0].plain)
    assert taught_on == distinct(short.attacker.known[0])


def test_more_pairs_than_the_victim_has_images_are_all_that_it_has(short: StudyContext, store: ImageStore) -> None:
    study = Pretrained(kind="pretrained", known_pairs=(10, 60, 1000), victims=1, images=20)
    rows = drive(study.work("0", USERS, short), Provider(store, [0.5, 0.6, -1.0]))
    assert [(row["start"], row["known_pairs"]) for row in rows] == [
        ("pretrained", 10),
        ("fresh", 10),
        ("pretrained", 50),
        ("fresh", 50),
    ]


def test_without_another_user_who_publishes_a_network_there_is_nothing_to_learn_from(
    short: StudyContext, store: ImageStore
) -> None:
    keyed = replace(short, keyed=lambda user: user != 0)
    assert drive(STUDIES["pretrained"].work("0", USERS, keyed), Provider(store, [0.5, 0.6, -1.0])) == []
    assert STUDIES["pretrained"].parts([4], seed=0) == []


def test_users_names_who_is_attacked_and_all_who_have_published_are_learned_from() -> None:
    study = Pretrained(kind="pretrained", users=(1,))
    assert study.among(USERS) == USERS
    assert study.parts(USERS, seed=0) == ["1"]
    assert study.parts([0, 2], seed=0) == []


def test_fewer_pairs_than_can_be_trained_on_and_selected_by_are_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 4"):
        Pretrained(kind="pretrained", known_pairs=(3, 10))
