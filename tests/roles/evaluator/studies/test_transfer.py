from collections.abc import Callable

from roles.evaluator.results import Findings


def test_an_inverse_network_transfers_wholly_between_users_of_one_theta_and_not_to_one_that_inverts(
    found: Callable[[str], Findings],
) -> None:
    gain = {(row["attacker"], row["victim"]): float(row["gain_ssim"]) for row in found("transfer")}
    assert gain[0, 0] == gain[0, 1] == gain[1, 0] == gain[1, 1]
    assert gain[0, 0] > 0
    assert gain[0, 2] < 0
