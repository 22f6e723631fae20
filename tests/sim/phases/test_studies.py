"""Studies in whole runs: the real ServerApp and ClientApp in this process."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from flwr.app import Error, Message
from hypothesis import given
from hypothesis import strategies as st

from roles.evaluator.studies import StudyConfig
from roles.evaluator.study import HeatMap, Lines
from sim.config.experiment import Experiment
from sim.exchange.messages import MessageError
from sim.exchange.payloads import decode_findings, encode_findings
from sim.report.figures.studies import draw_study
from sim.report.studies import report_studies
from sim.run.folder import RunFolder
from tests.sim.in_process_run import evaluation_failing, run_in

pytestmark = pytest.mark.usefixtures("without_figures")
STUDIES = [
    {"kind": "transfer", "images": 6},
    {"kind": "collusion", "coalitions": [1], "known_pairs": [0, 2], "victims": 1, "images": 6},
    {"kind": "ladder", "rungs": [{"pairs": 4, "width": 1}, {"steps": 2, "width": 1}]},
    {"kind": "retrieval", "candidates": 6},
    {"kind": "inversion", "images": 2, "steps": 2},
    {"kind": "curious", "pairs": 18, "images": 6},
    {"kind": "utility", "images": 6},
    {"kind": "extraction", "queries": [4, 8], "width": 8, "steps": 2, "batch_size": 4, "images": 6},
    {"kind": "labels", "images": 8, "batches": [1, 4]},
    {"kind": "membership", "images": 6},
    {"kind": "pretrained", "known_pairs": [4], "victims": 1, "images": 6},
    {"kind": "prior", "images": 2, "leaves": 20, "latent": 2, "generator_steps": 2, "starts": 2, "steps": 2},
]


@pytest.fixture
def studied(small: Experiment, experiment: Experiment) -> Experiment:
    """The small experiment in one round, with a second classifier and every study."""
    more = {"strategy": experiment.strategy, "other_classifiers": [{"seed": 1}], "studies": STUDIES}
    return Experiment.model_validate(small.model_dump() | more)


@pytest.fixture
def two(studied: Experiment) -> Experiment:
    """The same with two of its studies: one of every user, and one that needs others beside its victim."""
    return studied.model_copy(update={"studies": studied.studies[:2]})


def tables_of(run: RunFolder) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_parquet(path) for path in sorted((run.path / "studies").glob("*.parquet"))}


def assert_same(two: dict[str, pd.DataFrame], all_kinds: dict[str, pd.DataFrame]) -> None:
    assert list(two) == ["collusion", "transfer"]
    for name in two:
        pd.testing.assert_frame_equal(two[name], all_kinds[name])


@pytest.fixture(scope="module")
def known() -> dict[str, RunFolder]:
    return {}


@pytest.fixture
def unbroken(studied: Experiment, tmp_path_factory: pytest.TempPathFactory, known: dict[str, RunFolder]) -> RunFolder:
    """A run in which nothing has failed, the same one for all tests here: to be read."""
    if not known:
        known["unbroken"] = run_in(tmp_path_factory.mktemp("unbroken") / "run", studied)[0]
    return known["unbroken"]


@pytest.mark.with_figures
def test_every_study_ends_with_a_table_a_picture_and_a_sentence(studied: Experiment, unbroken: RunFolder) -> None:
    run = unbroken
    report_studies(run, studied)  # others here draw nothing
    tables = tables_of(run)
    assert list(tables) == sorted(study.kind for study in studied.studies)
    users = ["user-0000", "user-0001"]
    assert list(tables["transfer"]["attacker"]) == [users[0], users[0], users[1], users[1]]
    assert list(tables["transfer"]["victim"]) == users * 2
    assert list(tables["curious"]["pairs"]) == [18, 18]
    assert list(tables["collusion"]["known_pairs"]) == [0, 2]
    assert list(tables["pretrained"]["start"]) == ["pretrained", "fresh"]
    assert list(tables["prior"]["prior"]) == ["dead leaves", "generator"] * 2
    assert list(tables["ladder"]["user"]) == [name for name in (*users, "control-blur") for _ in range(2)]
    assert list(tables["utility"]["classifier"]) == ["psi", "other 0 (resnet20)"] * 2
    for study in studied.studies:
        table = tables[study.kind]
        assert list(table) == list(study.columns)
        assert table.notna().all(axis=None)
        assert list(pd.read_csv(run.path / "studies" / f"{study.kind}.csv")) == list(study.columns)
        assert (run.path / "figures" / f"study-{study.kind}.pdf").is_file()
        assert f"- {study.kind}: " in (run.path / "summary.md").read_text()


def test_a_part_that_fails_is_named_and_done_alone_when_the_run_is_resumed(
    two: Experiment, tmp_path: Path, unbroken: RunFolder
) -> None:
    run, _ = run_in(tmp_path / "run", two, evaluation_failing("transfer/1", "no more disk"))
    assert list(tables_of(run)["transfer"]["attacker"]) == ["user-0000", "user-0000"]
    assert "1 of 2 parts failed; the first: 1 (no more disk)." in (run.path / "summary.md").read_text()

    run, grid = run_in(tmp_path / "run", two)
    assert_same(tables_of(run), tables_of(unbroken))
    assert len(grid.of_type("evaluate.study")) == 1
    assert "failed" not in (run.path / "summary.md").read_text()


def test_users_who_have_not_published_are_left_out_of_studies_whose_parts_are_done_again_once_they_have(
    two: Experiment, tmp_path: Path, unbroken: RunFolder
) -> None:

    def tamper(message: Message, reply: Message) -> Message:
        lost = message.metadata.message_type == "train" and message.metadata.dst_node_id == 201
        return Message(Error(0, "no more disk"), reply_to=message) if lost else reply

    run, _ = run_in(tmp_path / "run", two, tamper)
    tables = tables_of(run)
    assert list(tables["transfer"]["victim"]) == ["user-0001"]
    assert tables["collusion"].empty  # nobody is left to collude
    run.keep_failure("study-collusion-7-1", "a part that there was among other users")
    run, grid = run_in(tmp_path / "run", two)
    assert_same(tables_of(run), tables_of(unbroken))
    assert run.failures() == []
    _, again = run_in(tmp_path / "run", two)
    assert grid.of_type("evaluate.study") and not again.of_type("evaluate.study")


def test_watching_users_changes_nothing_of_what_they_publish_and_nobody_is_watched_unless_a_study_asks(
    studied: Experiment, tmp_path: Path, unbroken: RunFolder
) -> None:
    alone, _ = run_in(tmp_path / "alone", studied.model_copy(update={"studies": studied.studies[:1]}))
    assert list(unbroken.path.rglob("*.bin")) and not list(alone.path.rglob("*.bin"))
    for user in range(2):
        one, other = unbroken.theta(user), alone.theta(user)
        assert all(torch.equal(one[name], other[name]) for name in one)


ROWS = st.lists(st.dictionaries(st.text(max_size=5), st.one_of(st.text(max_size=5), st.integers(), st.floats(-9, 9))))


@given(ROWS)
def test_findings_arrive_as_they_were_sent(rows: list[dict[str, str | int | float]]) -> None:
    assert decode_findings(encode_findings(rows)) == rows


@pytest.mark.parametrize("rows", ["{", "3", "[1]"])
def test_findings_that_make_no_sense_are_refused_in_one_line(rows: str) -> None:
    content = encode_findings([])
    content.config_records["findings"]["rows"] = rows
    with pytest.raises(MessageError, match="rows of a study"):
        decode_findings(content)


def names(count: int) -> list[str]:
    return [f"user-{number:04d}" for number in range(count)]


@pytest.mark.parametrize("count", [1, 8, 40])
def test_a_heat_map_is_drawn_of_any_number_of_users(tmp_path: Path, count: int) -> None:
    rows = [{"a": one, "b": other, "value": 0.1} for one in names(count) for other in names(count)]
    draw_study(tmp_path / "map", HeatMap("b", "a", "value", "gain"), pd.DataFrame(rows))
    assert (tmp_path / "map.png").is_file()


def test_a_hole_in_a_heat_map_is_left_blank(tmp_path: Path) -> None:
    rows = [{"a": "user-0000", "b": name, "value": value} for name, value in zip(names(2), [0.1, None], strict=True)]
    draw_study(tmp_path / "map", HeatMap("b", "a", "value", "gain"), pd.DataFrame(rows).convert_dtypes())
    assert (tmp_path / "map.pdf").is_file()


@pytest.mark.parametrize("count", [1, 9, 40])
def test_lines_are_drawn_of_any_number_of_groups(tmp_path: Path, count: int) -> None:
    table = pd.DataFrame({"x": range(count), "value": range(count), "by": range(count)})
    draw_study(tmp_path / "lines", Lines("x", "value", "by", "gain"), table)
    assert (tmp_path / "lines.png").is_file()


def test_a_study_is_described_column_by_column(studied: Experiment) -> None:
    studies: tuple[StudyConfig, ...] = studied.studies
    assert all(text and not text.endswith(".") for study in studies for text in study.columns.values())
