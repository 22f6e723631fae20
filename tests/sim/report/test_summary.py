"""A run in words: whom it shows, and how it says that users are spread."""

from pathlib import Path

import pandas as pd
import pytest

from sim.config.experiment import Experiment
from sim.report.summary import headline, shown_users, summary_of
from sim.run.folder import RunFolder
from tests.sim.in_process_run import (
    with_strategy,
)

pytestmark = pytest.mark.usefixtures("without_figures")


def many(ssims: list[float | None], experiment: Experiment) -> tuple[pd.DataFrame, Experiment]:
    users = experiment.users.model_copy(update={"count": len(ssims), "partition": {"kind": "iid"}})
    rows = [{"subject": f"user-{user:04d}", "itn_itn_ssim": ssim} for user, ssim in enumerate(ssims)]
    table = pd.DataFrame([*rows, {"subject": "control-blur", "itn_itn_ssim": 0.9}])
    return table, experiment.model_copy(update={"users": users})


def test_of_many_users_those_with_the_most_and_the_least_recovered_images_are_among_the_shown(
    small: Experiment,
) -> None:
    ssims: list[float | None] = [0.5 + 0.001 * ((user * 37) % 100) for user in range(100)]
    ssims[41], ssims[7], ssims[8] = 0.99, 0.01, None
    shown = shown_users(*many(ssims, small))
    assert len(shown) == 20
    assert shown == sorted(shown)
    assert {41, 7} <= set(shown)
    assert 8 not in shown


def test_few_users_are_all_shown_and_so_are_some_of_many_without_results(small: Experiment) -> None:
    assert shown_users(*many([0.5, None, 0.1], small)) == [0, 1, 2]
    assert shown_users(*many([None] * 21, small)) == list(range(20))


def summary_with(run: RunFolder, experiment: Experiment, accuracies: list[float | None]) -> str:
    control = {"subject": "control-blur", "accuracy": 0.3, "protected_ssim": 0.5, "itn_itn_ssim": 0.9}
    rows = [
        {
            "subject": f"user-{user:04d}",
            "accuracy": accuracy,
            "itn_itn_ssim": accuracy,
            "itn_itn_psnr": 20.0,
            "protected_psnr": accuracy,
            "protected_ssim": accuracy,
        }
        for user, accuracy in enumerate(accuracies)
    ]
    table = pd.DataFrame([*rows, control]).assign(verdict="partial", failure="", plain_accuracy=0.8)
    psi = {"test_accuracy": 0.8, "plain_accuracy": 0.8, "reused": False}
    run.note({"psi": psi, "processor": "a CPU", "gpu": "a GPU"})
    experiment = Experiment.model_validate(experiment.model_dump() | {"users": {"count": len(accuracies)}})
    return summary_of(run, experiment, table.assign(itn_itn_accuracy=0.5), [], [])


def test_of_five_users_the_summary_tells_how_they_are_spread_and_names_the_worst(
    small: Experiment, tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path / "run", small)
    summary = summary_with(run, small, [0.5, 0.9, 0.6, None, 0.7, 0.8])
    assert "- Over 5 users, median [95% bootstrap interval over users]: accuracy 70.0 [50.0 to 90.0], best " in summary
    assert "attack's SSIM 0.70 [0.50 to 0.90]. Recovered best: user 1 (0.90), user 5 (0.80), user 4 (0.70); " in summary
    assert "least accurate: user 0 (50.0), user 2 (60.0), user 4 (70.0)." in summary


@pytest.mark.parametrize(("gpu_fraction", "named"), [(0, "a CPU"), (0.5, "a GPU")])
def test_the_summary_names_what_the_networks_were_trained_on(
    small: Experiment, tmp_path: Path, gpu_fraction: float, named: str
) -> None:
    experiment = Experiment.model_validate(small.model_dump() | {"runtime": {"gpu_fraction": gpu_fraction}})
    run = RunFolder.create(tmp_path / "run", experiment)
    assert f"; {named}, 0 s." in summary_with(run, experiment, [0.5])


def test_of_fewer_users_or_of_users_who_share_a_theta_it_tells_nothing_of_the_kind(
    small: Experiment, tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path / "run", small)
    assert "Over " not in summary_with(run, small, [0.5, 0.9, 0.6, None, 0.7])
    assert "Over " not in summary_with(run, with_strategy(small, "fedavg"), [0.5, 0.9, 0.6, 0.6, 0.7])


def table_with(*verdicts: str | None, **more: object) -> pd.DataFrame:
    """A table of users who have these verdicts (None: no result), each with an accuracy of 80%."""
    known = {"accuracy": 0.8, "accuracy_low": 0.7, "exposed": 0.5, "protected_psnr": 9.0, "protected_ssim": 0.1}
    known |= {"itn_a_psnr": 9.0, "itn_a_ssim": 0.9, "class_mean_ssim": 0.2}
    rows: list[dict[str, object]] = [
        {"subject": f"user-{user:04d}"}
        if verdict is None
        else {"subject": f"user-{user:04d}", "verdict": verdict} | known
        for user, verdict in enumerate(verdicts)
    ]
    control = {"subject": "control-blur"} | known | {"protected_ssim": 0.5}
    return pd.DataFrame([*rows, control]).assign(**more)


FACTS = {"psi": {"plain_accuracy": 0.9, "chance": 0.1}}
MEASURED = " Accuracy 80.0%, plain 90.0%. Of a user's test images, 50.0% are given away."


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (("recovered",) * 4, "Nobody is protected: an attack recovers the images of all 4 users."),
        (("hidden",) * 2, "Both users are hidden from these attacks."),
        (
            ("hidden", "recovered", "hidden"),
            "Users 0 and 2 are hidden from these attacks; an attack recovers the images of user 1.",
        ),
        (
            ("visible", "recovered", "partial"),
            "Nobody is wholly hidden: the images of user 0 can be made out as they are; an attack recovers those of "
            "user 1; something of those of user 2 comes back.",
        ),
    ],
)
def test_the_headline_says_who_is_protected(verdicts: tuple[str, ...], said: str) -> None:
    assert headline(table_with(*verdicts), FACTS) == said + MEASURED


def test_the_headline_gives_ranges_beside_medians() -> None:
    table = table_with("recovered", "recovered", "recovered")
    table.loc[[0, 2], "accuracy"] = 0.6, 0.85
    assert "Accuracy 80.0% (60.0 to 85.0), plain 90.0%." in headline(table, FACTS)


def test_the_headline_names_users_who_did_not_learn_and_a_psi_that_did_not() -> None:
    table = table_with("hidden", "recovered", "recovered")
    table.loc[0, ["accuracy", "accuracy_low"]] = 0.108, 0.07
    assert headline(table, FACTS).endswith(
        " User 0 did not learn: accuracy 10.8% is not told apart from chance, 10.0%."
    )
    lost = headline(table, {"psi": {"plain_accuracy": 0.1, "chance": 0.1}})
    assert lost.endswith(" psi itself is at chance: nothing here means anything.")
    assert "did not learn" not in headline(table, {"psi": {"plain_accuracy": 0.9}})  # of an earlier version


def test_hidden_from_attacks_that_fail_on_the_control_too_means_nothing() -> None:
    table = table_with("hidden", "hidden")
    assert "the attacks fail on the positive control too" not in headline(table, FACTS)
    table.loc[2, "itn_a_ssim"] = 0.4
    assert "But the attacks fail on the positive control too: hidden means nothing here." in headline(table, FACTS)


def test_the_headline_counts_users_without_a_result() -> None:
    assert headline(table_with("recovered", None, "recovered"), FACTS).endswith(" 1 of 3 users has no result.")
    assert headline(table_with("hidden", None), FACTS).startswith("User 0 is hidden from these attacks. Accuracy")
    assert headline(table_with(None, None), FACTS) == "No user has a result."


def test_a_summary_begins_with_the_headline_and_ends_with_what_to_do_next(small: Experiment, tmp_path: Path) -> None:
    summary = summary_with(RunFolder.create(tmp_path / "run", small), small, [0.5, 0.6])
    first, second = summary.splitlines()[0:3:2]
    assert first == "# small"
    assert second.startswith("Nobody is wholly hidden: something of the images of both users comes back.")
    assert summary.splitlines()[-1] == "`veilsim report RUN` shows all of this with pictures, as one page."
