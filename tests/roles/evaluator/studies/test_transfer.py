from collections.abc import Callable
from dataclasses import replace

from roles.common.data import ImageStore
from roles.common.exchange import Classify, drive
from roles.evaluator.results import Findings
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import STUDIES, USERS, Provider


def test_an_inverse_network_transfers_wholly_between_users_of_one_theta_and_not_to_one_that_inverts(
    found: Callable[[str], Findings],
) -> None:
    gain = {(row["attacker"], row["victim"]): float(row["gain_ssim"]) for row in found("transfer")}
    assert gain[0, 0] == gain[0, 1] == gain[1, 0] == gain[1, 1]
    assert gain[0, 0] > 0.05
    assert gain[0, 2] < 0


def test_images_of_a_user_with_a_key_are_classified_by_its_own_classifier(
    context: StudyContext, store: ImageStore
) -> None:
    provider = Provider(store, [0.5, 0.5, -1.0])
    study = STUDIES["transfer"]
    keyed = replace(context, keyed=lambda user: user == 1)
    drive(study.work("0", USERS, keyed), provider)
    assert [request.user for request in provider.requests if isinstance(request, Classify)] == [-1, 1, -1]
