"""A provider that hijacks one of two users, who both look for it: one run, however it is carried and interrupted."""

from pathlib import Path

import pandas as pd
import pytest

from roles.common.weights import digest, load
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.exchange.job import Job
from sim.nodes.user.state import UserState
from sim.run.folder import RunFolder
from tests.sim.in_process_run import Whole, run_in, table_of, whole_run

pytestmark = pytest.mark.usefixtures("without_figures")

HIJACK = {"kind": "pairs", "users": [0], "width": 2, "depth": 2, "shift": 1, "flip": False}


@pytest.fixture
def hostile(small: Experiment) -> Experiment:
    changed = small.model_dump() | {"provider": {"hijack": [HIJACK]}, "studies": [{"kind": "hijack", "images": 6}]}
    changed["user"] = changed["user"] | {"checks": {"every": 3, "ids": 12}}
    changed["strategy"] = {"rounds": 2}
    return Experiment.model_validate(changed)


def thetas(run: RunFolder) -> list[str]:
    return [digest(load(run.path / "users" / f"user-000{user}" / "theta.safetensors")[0]) for user in range(2)]


def test_a_run_tells_what_the_provider_reconstructs_and_what_the_users_suspect(
    hostile: Experiment, small: Experiment, tmp_path: Path
) -> None:
    run, _ = run_in(tmp_path / "run", hostile)
    table = table_of(run)
    assert (table["failure"].fillna("") == "").all()
    suspicion = table["suspicion_answers"]
    assert suspicion["user-0000"] > 1e-3 > 1e-6 > suspicion["user-0001"]
    assert table["suspicion_wrong_ids"].notna().sum() == 2
    rows = pd.read_parquet(run.path / "studies" / "hijack.parquet").set_index("user")
    assert list(rows["hijacked"]) == ["pairs", "honest"]
    assert list(rows["ssim"].notna()) == [True, False]
    pictures = run.pictures("hijack", "0")
    assert {name: tuple(images.shape) for name, images in pictures.items()} == dict.fromkeys(
        ("plain", "protected", "estimates"), (2, 3, 8, 8)
    )
    assert run.pictures("hijack", "1") == {}
    assert (run.path / "figures" / "study-hijack-strips-0.png").is_file()
    assert (run.path / "figures" / "detection.png").is_file()
    assert (
        "pairs: answers to one image AUC 1.00, 100% of checks raise the alarm" in (run.path / "summary.md").read_text()
    )
    # The other user has what it would have had of an honest provider, and without looking.
    honest, _ = run_in(tmp_path / "honest", small.model_copy(update={"strategy": hostile.strategy}))
    assert thetas(run)[1] == thetas(honest)[1]
    assert thetas(run)[0] != thetas(honest)[0]
    # Checks cost requests, which are counted.
    checks = len(run.user(1).checks)  # type: ignore[union-attr]
    assert checks == 2
    assert table.loc["user-0001", "queries"] == table_of(honest).loc["user-0001", "queries"] + 3 * checks


SHARES = (0.3, 0.5)


@pytest.fixture(scope="module")
def known() -> dict[str, Whole]:
    return {}


@pytest.mark.parametrize("share", SHARES)
def test_a_killed_run_goes_on_to_the_same_thetas(
    hostile: Experiment, tmp_path_factory: pytest.TempPathFactory, known: dict[str, Whole], share: float
) -> None:
    without = hostile.model_copy(update={"studies": ()})
    if not known:
        known["run"] = whole_run(tmp_path_factory.mktemp("run"), without, SHARES)
    whole = known["run"]
    resumed, _ = run_in(whole.killed[share], without)
    assert thetas(resumed) == thetas(whole.run)
    assert [resumed.user(user) for user in range(2)] == [whole.run.user(user) for user in range(2)]


def test_the_state_of_a_hijacked_user_is_kept_before_each_request(hostile: Experiment, tmp_path: Path) -> None:
    job = Job(hostile, tmp_path, server_round=1)
    assert [UserState(job, user).before_requests for user in range(2)] == [True, False]


def test_a_study_of_hijacks_without_any_is_refused(small: Experiment) -> None:
    with pytest.raises(ValueError, match=r"studies asks for hijack, and provider\.hijack is empty"):
        Experiment.model_validate(small.model_dump() | {"studies": [{"kind": "hijack"}]})


def test_what_cannot_be_hijacked_is_refused_in_a_line(hostile: Experiment, tmp_path: Path) -> None:
    from sim.config.checks import check

    changes: list[tuple[dict[str, object], str]] = [
        ({"user": {"protection": {"kind": "tanaka"}}}, "provider.hijack: user 0 has protection 'tanaka'"),
        ({"provider": {"hijack": [HIJACK | {"users": [2]}]}}, "provider.hijack.0.users: got 2: users are 0 to 1"),
        ({"provider": {"hijack": [HIJACK | {"depth": 5}]}}, "provider.hijack.0.depth: got 5: too deep"),
        ({"strategy": {"name": "fedavg"}}, "strategy.name: got 'fedavg': a provider hijacks users who train alone"),
        (
            {"provider": {}, "studies": [], "user": {"protection": {"kind": "plain"}, "checks": {}}},
            "user.checks: user 0 has protection 'plain': it is sent no gradients",
        ),
    ]
    for change, reason in changes:
        with pytest.raises(ConfigError) as caught:
            check(Experiment.model_validate(hostile.model_dump() | change), tmp_path)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_users_who_check_ask_exactly_as_much_as_their_budget_has_to_be(hostile: Experiment, tmp_path: Path) -> None:
    from sim.config.checks import check

    def within(most_images: int) -> Experiment:
        terms = {"defence": {"most_images": most_images, "least_batch": 2}}
        return Experiment.model_validate(hostile.model_dump() | {"provider": terms, "studies": []})

    with pytest.raises(ConfigError) as caught:
        check(within(1), tmp_path)
    needed = int(str(caught.value).partition("asks about ")[2].partition(";")[0])
    check(within(needed), tmp_path)
    for most_images, fails in ((needed, False), (needed - 1, True)):
        run, _ = run_in(tmp_path / str(most_images), within(most_images))
        reasons = [run.failure(f"user-000{user}") for user in range(2)]
        # User 1 has the larger share.
        assert [reason == "" for reason in reasons] == [True, not fails]
        assert ("are too many (provider.defence.most_images)" in reasons[1]) == fails
