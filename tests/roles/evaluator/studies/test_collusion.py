from dataclasses import replace

from roles.common.data import ImageStore
from roles.common.exchange import TrainingImages, drive
from roles.evaluator.studies import Collusion
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import STUDIES, USERS, Provider, Training, distinct


def test_a_coalition_never_holds_its_victim_and_grows_by_adding_to_the_smaller_one(
    short: StudyContext, store: ImageStore
) -> None:
    study = STUDIES["collusion"]
    members: dict[str, list[int]] = {}
    for part in study.parts(USERS, short.attacker.seed):
        provider = Provider(store, [0.5, 0.8, -1.0])
        drive(study.work(part, USERS, replace(short, state={})), provider)
        victim = int(part.split("-")[0])
        asked = [request.user for request in provider.requests if isinstance(request, TrainingImages)]
        members[part] = [user for user in asked if user != victim]
    (small, large) = members.values()
    assert len(small) == 1
    assert len(large) == 2
    assert large[0] == small[0]


def test_a_coalition_that_leaves_nobody_to_attack_is_left_out() -> None:
    study = Collusion(kind="collusion", coalitions=(1, 2, 3, 8), victims=1)
    assert [part.split("-")[1] for part in study.parts(USERS, seed=0)] == ["1", "2"]


def test_users_names_who_is_attacked_and_all_who_have_published_collude() -> None:
    study = Collusion(kind="collusion", users=(1,), coalitions=(1, 2))
    assert study.among(USERS) == USERS
    assert study.parts(USERS, seed=0) == ["1-1", "1-2"]
    assert study.parts([0, 2], seed=0) == []


def test_pairs_of_the_victim_help_a_coalition_whose_own_protection_is_another(
    context: StudyContext, store: ImageStore
) -> None:
    study = Collusion(kind="collusion", coalitions=(2,), known_pairs=(0, 40), victims=3, images=20)
    rows = drive(study.work("2-2", USERS, context), Provider(store, [0.5, 0.6, -1.0]))
    assert float(rows[1]["ssim"]) > float(rows[0]["ssim"])


def test_however_many_pairs_have_leaked_a_coalition_trains_for_the_same_number_of_steps(
    short: StudyContext, store: ImageStore
) -> None:
    study = Collusion(kind="collusion", coalitions=(1,), known_pairs=(0, 5, 40), victims=1, images=20)
    part, steps = study.parts(USERS, short.attacker.seed)[0], []
    watched = replace(short.attacker, progress=lambda step, total, loss: steps.append(total) if step == total else None)
    drive(study.work(part, USERS, replace(short, attacker=watched)), Provider(store, [0.5, 0.6, -1.0]))
    assert len(steps) == 3
    assert len(set(steps)) == 1


def test_eighteen_leaked_pairs_or_more_are_what_selects_the_epoch_and_those_are_not_trained_on(
    short: StudyContext, store: ImageStore, trainings: list[Training]
) -> None:
    study = Collusion(kind="collusion", coalitions=(1,), known_pairs=(0, 17, 18, 40), victims=1, images=20)
    part = study.parts(USERS, short.attacker.seed)[0]
    drive(study.work(part, USERS, short), Provider(store, [0.5, 0.6, -1.0]))
    victim = int(part.split("-")[0])
    # As Provider has it, 50 images are a user's X'.
    own = distinct(store.images("train")[50 * victim : 50 * victim + 50])
    trained_on = [distinct(training.plain) & own for training in trainings]
    selected_by = [distinct(training.validation) for training in trainings]
    assert [len(images) for images in trained_on] == [0, 17, 16, 36]
    assert [len(images & own) for images in selected_by] == [0, 0, 2, 4]
    assert [images <= own for images in selected_by] == [False, False, True, True]
    assert not any(one & other for one, other in zip(trained_on, selected_by, strict=True))
