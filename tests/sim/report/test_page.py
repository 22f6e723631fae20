"""``veilsim report``: one file that holds a run, or several compared, within itself."""

import base64
import io
import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from flwr.app import ArrayRecord
from PIL import Image
from typer.testing import CliRunner

from roles.evaluator.study import Lines
from sim.cli import cli
from sim.config.errors import ConfigError
from sim.report.figures.studies import draw_study
from sim.report.page.strips import fit
from sim.report.page.tables import differences, heat_map, numbers, plain_table, users_table
from sim.report.page.write import write_page
from sim.run.folder import RunFolder
from sim.run.subject import Subject
from sim.run.sweep import SweepFolder, load_cells
from tests.sim import made_up_run

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """What a browser would find in the file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = [("", {})]
        self.text = ""
        self.scripts: list[str] = []
        self.feed(file.read_text())
        self.data: dict[str, Any] = json.loads(self.scripts[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags[-1][0] == "script":
            self.scripts[-1] += data
        elif self.tags[-1][0] != "style":
            self.text += data

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


def column(table: dict[str, Any], key: str) -> list[Any]:
    at = [column["key"] for column in table["columns"]].index(key)
    return [row[at] for row in table["rows"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Five users with names, studies and an account of the provider's load; the last user has failed."""
    settings = [{"alpha": 0.005}, {"alpha": 0.05, "width": 32}]
    experiment = made_up_run.experiment_of(5, users={"count": 5, "settings": settings})
    run = made_up_run.make(tmp_path_factory.mktemp("page") / "run", experiment, failed={4: EVIL})
    names = [f"user-{user:04d}" for user in range(4)]
    pairs = [
        {"attacker": a, "victim": v, "gain_ssim": (i - j) / 10}
        for i, a in enumerate(names)
        for j, v in enumerate(names)
    ]
    studies = run.path / "studies"
    studies.mkdir()
    pd.DataFrame(pairs).to_parquet(studies / "transfer.parquet")
    pd.DataFrame({EVIL: range(300), "share": 0.5}).to_parquet(studies / "pooling.parquet")
    for name in ("pooling", "transfer"):  # a transfer matrix is drawn in the page itself
        draw_study(
            run.path / "figures" / f"study-{name}", Lines("share", "share", "", ""), pd.DataFrame({"share": [1.0]})
        )
    (run.path / "provider").mkdir(exist_ok=True)
    load = [
        {"second": 1_764_000_000 + 2 * at, "width": 1, "requests": 5, "images": 160, "bytes": 10**6} for at in range(30)
    ]
    (run.path / "provider" / "load.json").write_text(json.dumps(load))
    return run


@pytest.fixture(scope="module")
def page(run: RunFolder) -> Page:
    return Page(write_page([run.path]))


def test_the_page_lies_in_the_first_runs_folder_or_where_it_is_told_to(run: RunFolder, tmp_path: Path) -> None:
    assert write_page([run.path]) == run.path / "report.html"
    assert write_page([run.path], tmp_path / "new" / "it.html").is_file()


def test_the_same_run_gives_the_same_page(run: RunFolder, tmp_path: Path) -> None:
    pages = [write_page([run.path], tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_nothing_in_the_page_is_fetched_from_elsewhere(page: Page) -> None:
    fetched = [
        value
        for tag, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data") and tag != "a"
    ]
    assert fetched and all(value and value.startswith("data:") for value in fetched)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|https?:(?!//www\.w3\.org/2000/svg\")", page.scripts[1])
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")


def test_names_and_reasons_are_text_whatever_is_in_them(page: Page) -> None:
    assert len(page.scripts) == 2
    assert EVIL in column(page.data["runs"][0]["users"], "failure")
    assert f"user-0004 failed: {EVIL}" in page.text
    assert page.data["runs"][0]["studies"][0]["table"]["columns"][0]["label"] == EVIL
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]


def test_every_picture_has_words_for_those_who_do_not_see_it(page: Page) -> None:
    assert len(page.images()) == 5  # boxes, trade-off, curves, load, a study's
    assert all(image["alt"] for image in page.images())


def test_it_says_first_whether_anybody_is_hidden(page: Page) -> None:
    assert "1 of 5 users: hidden from these attacks." in page.text
    assert "so it can undo a blur" in page.text
    assert "phi has random weights: this run shows the machinery" in page.text


def test_hidden_means_nothing_where_the_control_fails_too(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path, made_up_run.experiment_of(1))
    (run.path / "attacks" / "control-blur" / "measures.safetensors").unlink()
    made_up_run.finish(run)
    text = Page(write_page([run.path])).text
    assert "hidden from these attacks, which also fail on the positive control, so that it means nothing." in text
    assert 'The positive control has no result: "hidden" means nothing' in text


def test_the_page_says_how_to_have_the_run_again(page: Page, run: RunFolder) -> None:
    assert "veilsim run 'configs/made up.yaml' seed=3" in page.text
    assert (run.path / "config.yaml").read_text() in page.text
    assert "torch" in page.text and "processor" in page.text


# ---- tables ------------------------------------------------------------------------------------------------------


def test_the_table_of_users_has_every_row_and_says_once_what_all_have_in_common(page: Page, run: RunFolder) -> None:
    table, common = users_table(pd.read_parquet(run.path / "table.parquet"))
    assert page.data["runs"][0]["users"] == table
    assert common == {"protection": "network", "phi": "relu2_2", "plain accuracy": "80.0%"}
    assert column(table, "subject") == [*(f"user-{user:04d}" for user in range(5)), "control-blur"]
    assert column(table, "verdict") == ["hidden", "partial", "visible", "recovered", None, "visible"]
    assert column(table, "alpha") == [0.005, 0.05, 0.005, 0.05, 0.005, None]
    assert column(table, "sent_bytes")[1] == 23_000_001


def test_what_some_users_have_no_value_of_is_not_the_same_for_all() -> None:
    rows = [{"subject": "user-0000", "alpha": 0.1, "phi": "relu1_2"}, {"subject": "user-0001", "phi": "relu1_2"}]
    table, common = users_table(pd.DataFrame([*rows, {"subject": "control-blur"}]))
    assert common == {"phi": "relu1_2"}
    assert column(table, "alpha") == [0.1, None, None]


def test_columns_are_grouped_by_what_was_measured(page: Page) -> None:
    columns = page.data["runs"][0]["users"]["columns"]
    groups = [group for group, _ in itertools.groupby(column["group"] for column in columns) if group]
    assert groups == ["protected", "class mean", "mean image", "ITN paper", "ITN strong", "training", "traffic"]
    strong = [(column["label"], column["kind"]) for column in columns if column["group"] == "ITN strong"]
    shares = [("acc. (%)", "percent"), ("recovered (%)", "percent")]
    assert strong == [("PSNR", "db"), ("SSIM", "ssim"), ("worst 1%", "db"), *shares]
    assert [column["key"] for column in columns][:5] == ["subject", "setting", "alpha", "width", "verdict"]
    assert columns[-1]["key"] == "failure"
    assert all(column["meaning"] for column in columns)


def test_an_image_recovered_exactly_keeps_its_infinite_psnr() -> None:
    table = pd.DataFrame({"subject": ["user-0000", "user-0001"], "itn_a_psnr": [np.inf, np.nan]})
    assert column(users_table(table)[0], "itn_a_psnr") == ["Infinity", None]


def test_of_a_long_study_the_first_rows_are_shown_and_the_rest_is_told(page: Page) -> None:
    pooling, transfer = page.data["runs"][0]["studies"]
    assert len(pooling["table"]["rows"]) == 200
    assert "The first 200 of 300 rows; all are in studies/pooling.parquet." in page.text
    assert len(transfer["table"]["rows"]) == 16


def test_any_table_of_a_study_can_be_shown() -> None:
    study = pd.DataFrame({"when": pd.to_datetime(["2026-01-01"]), "many": [[1, 2]], "ok": [True], 3: [7]})
    table = plain_table(study)
    assert [column["label"] for column in table["columns"]] == ["when", "many", "ok", "3"]
    assert table["rows"] == [["2026-01-01 00:00:00", "[1, 2]", "True", 7]]


def test_transfer_is_a_matrix_of_attackers_and_victims(page: Page) -> None:
    pooling, transfer = page.data["runs"][0]["studies"]
    assert pooling["heat"] is None
    heat = transfer["heat"]
    assert heat["attackers"] == heat["victims"] == [f"user-{user:04d}" for user in range(4)]
    assert heat["values"][3] == [0.3, 0.2, 0.1, 0.0]


def test_a_pair_without_a_value_is_left_open_and_one_with_two_has_their_median() -> None:
    rows = [("a", "b", 0.1), ("a", "b", 0.3), ("b", "a", 0.5)]
    heat = heat_map(pd.DataFrame(rows, columns=["attacker", "victim", "gain_ssim"]))
    assert heat is not None and heat["victims"] == ["a", "b"]
    assert heat["values"] == [[None, 0.2], [0.5, None]]


def test_a_study_of_other_columns_is_no_matrix() -> None:
    assert heat_map(pd.DataFrame({"attacker": ["a"], "victim": ["b"], "gain_psnr": [1.0]})) is None


# ---- pictures ----------------------------------------------------------------------------------------------------


def sprite(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_strips_hold_the_very_pictures_of_the_run(page: Page, run: RunFolder) -> None:
    strips = page.data["runs"][0]["strips"]
    assert list(strips["subjects"]) == [*(f"user-{user:04d}" for user in range(4)), "control-blur"]
    result = run.attack(Subject("user", 3))
    assert result is not None
    third = sprite(strips["subjects"]["user-0003"]["sprite"])[64:96, 32:64]  # rows: protected, paper, strong
    assert (third == result.pictures["strong"][1].permute(1, 2, 0).numpy()).all()
    assert (sprite(strips["plain"])[:, 64:96] == made_up_run.PLAIN[2].permute(1, 2, 0).numpy()).all()
    rows = strips["subjects"]["user-0003"]["rows"]
    assert [row["label"] for row in rows] == ["protected", "ITN (paper)", "ITN (strong)"]
    assert rows[1]["psnr"] == ["14.0", "14.5", "15.0", "15.5", "16.0", "16.5"]


def pictures_of(subjects: int) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    plain = random.integers(256, size=(6, 16, 16, 3), dtype=np.uint8)
    return {
        str(s): {"plain": plain, "protected": random.integers(256, size=plain.shape, dtype=np.uint8)}
        for s in range(subjects)
    }


def test_a_tighter_budget_costs_pictures_then_exactness_then_subjects() -> None:
    pictures = pictures_of(8)
    whole = fit(pictures, 10**6)
    assert (whole.count, whole.lossless, len(whole.by_subject)) == (6, True, 8)
    # Noise: a picture of 16 pixels a side is about 1,050 characters of PNG.
    fewer = fit(pictures, 8 * 5000)
    assert (fewer.count, fewer.lossless, len(fewer.by_subject)) == (4, True, 8)
    lossy = fit(pictures, 8 * 1500)
    assert (lossy.lossless, len(lossy.by_subject)) == (False, 8)
    assert lossy.count < 6 and sprite(lossy.plain).shape == (16, 16 * lossy.count, 3)
    some = fit(pictures, 1000)
    assert (some.count, some.lossless, list(some.by_subject)) == (1, False, ["0", "4"])
    assert fit(pictures, 10).by_subject == {}


def test_a_hundred_pictures_of_a_subject_are_the_most_however_many_a_run_keeps() -> None:
    pictures = {"0": {"plain": np.zeros((101, 4, 4, 3), np.uint8), "protected": np.zeros((101, 4, 4, 3), np.uint8)}}
    assert fit(pictures, 10**6).count == 100


def test_no_budget_is_exceeded() -> None:
    pictures = pictures_of(8)
    for budget in (500, 2_000, 20_000, 40_000, 60_000):
        assert sum(map(len, fit(pictures, budget).by_subject.values())) <= budget


def test_users_of_one_theta_share_its_pictures(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path, made_up_run.experiment_of(2, strategy={"name": "fedavg"}))
    strips = Page(write_page([run.path])).data["runs"][0]["strips"]
    assert list(strips["subjects"]) == ["shared", "control-blur"]


def test_how_averages_do_is_drawn_where_there_are_any(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path, made_up_run.experiment_of(2, strategy={"name": "fedavg"}))
    said = "How the average of each round does"
    assert said not in write_page([run.path]).read_text()
    run.keep_round(1, ArrayRecord(), {"validation_loss": 2.0, "validation_accuracy": 0.3})
    assert said in write_page([run.path]).read_text()


# ---- several runs ------------------------------------------------------------------------------------------------


def test_several_runs_are_compared_by_what_differs(run: RunFolder, tmp_path: Path) -> None:
    other = made_up_run.make(tmp_path / "run", made_up_run.experiment_of(4, seed=7))
    page = Page(write_page([run.path, other.path, run.path], tmp_path / "both.html"))
    table = page.data["comparison"]
    assert column(table, "run") == [f"{run.path.parent.name}/run", f"{tmp_path.name}/run"]
    assert column(table, "seed") == [0, 7]
    assert column(table, "users.count") == [5, 4]
    assert not {"name", "user.alpha"} & {column["key"] for column in table["columns"]}
    assert column(table, "recovered") == [0.2, 0.25]
    assert column(table, "failed") == [0.2, 0.0]
    assert len(page.data["runs"]) == 2


def test_runs_compared_have_the_marks_that_their_users_have_in_their_own_charts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[tuple[float, float]]] = []
    monkeypatch.setattr(
        "sim.report.page.write.draw_trade_off",
        lambda to, points, _: drawn.append([(p.accuracy, p.gain) for p in points]),
    )
    better = {"class_mean": 0.1, "mean_image": 0.25}, {"class_mean": 0.2, "mean_image": 0.1}
    for number, guesses in enumerate(better):
        run = made_up_run.start(tmp_path / str(number), made_up_run.experiment_of(1))
        baselines = {name: made_up_run.measured(12, ssim, None) for name, ssim in guesses.items()}
        made_up_run.keep_training(run, 0)
        run.keep_attack(Subject("user", 0), replace(made_up_run.attack_of(0), baselines=baselines))
        made_up_run.finish(run)
    write_page([tmp_path / "0", tmp_path / "1"])
    first, second, compared = drawn
    assert compared == [*first, *second]


def test_the_numbers_of_a_run_are_medians_over_its_users() -> None:
    measures = {
        "plain_accuracy": 0.8,
        "class_mean_ssim": 0.2,
        "mean_image_ssim": 0.1,
        "protected_psnr": 9.0,
        "protected_ssim": 0.15,
    }
    rows = [
        {
            "accuracy": 0.7,
            "itn_a_psnr": 9.0,
            "itn_a_ssim": 0.3,
            "itn_b_psnr": 9.0,
            "itn_b_ssim": 0.5,
            "verdict": "recovered",
        },
        {
            "accuracy": 0.5,
            "itn_a_psnr": 9.0,
            "itn_a_ssim": 0.4,
            "itn_b_psnr": 9.0,
            "itn_b_ssim": 0.1,
            "verdict": "partial",
        },
        {
            "accuracy": 0.6,
            "itn_a_psnr": 9.0,
            "itn_a_ssim": 0.6,
            "itn_b_psnr": 9.0,
            "itn_b_ssim": 0.7,
            "verdict": "recovered",
        },
    ]
    users = [{"subject": f"user-{number:04d}", **measures, **row} for number, row in enumerate(rows)]
    users[0] |= {"mean_image_ssim": 0.25}
    table = pd.DataFrame([*users, {"subject": "user-0003"}, {"subject": "control-blur", "accuracy": 0.1}])
    found = numbers(table)
    assert (found["users"], found["accuracy"]) == (3, 0.6)
    assert found["gap"] == pytest.approx(-20)
    assert found["ssim"] == 0.5  # of 0.5, 0.4 and 0.7
    assert found["gain"] == pytest.approx(0.25)  # of 0.25, 0.2 and 0.5
    shares = {"hidden": 0, "partial": 0.25, "recovered": 0.5, "visible": 0, "failed": 0.25}
    assert {name: found[name] for name in shares} == shares


def test_configs_differ_in_the_keys_whose_values_do() -> None:
    experiments = {"a": made_up_run.experiment_of(2), "b": made_up_run.experiment_of(2, user={"alpha": 0.5}, seed=1)}
    found = differences(experiments)
    assert list(found["a"]) == ["seed", "user.alpha"]
    assert found["b"] == {"seed": 1, "user.alpha": 0.5}


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    config = tmp_path / "sweep.yaml"
    base = made_up_run.experiment_of(2).model_dump(mode="json")
    config.write_text(yaml.safe_dump(base | {"sweep": {"user.alpha": [0.1, 0.2, 0.3]}}))
    return SweepFolder.create(tmp_path / "out", "made-up", load_cells(config))


def test_the_complete_cells_of_a_sweep_are_runs(sweep: SweepFolder, tmp_path: Path) -> None:
    for number, cell in enumerate(sweep.runs()[:2]):
        made = made_up_run.make(tmp_path / str(number), cell.experiment())
        made.path.rename(tmp_path / "made")
        cell.path.rename(tmp_path / f"empty-{number}")
        (tmp_path / "made").rename(cell.path)
    table = Page(write_page([sweep.path])).data["comparison"]
    assert column(table, "run") == ["alpha=0.1", "alpha=0.2"]
    assert column(table, "user.alpha") == [0.1, 0.2]


def test_a_sweep_of_which_nothing_is_done_is_one_line(sweep: SweepFolder) -> None:
    with pytest.raises(ConfigError, match=r"no cell of this sweep has results yet$"):
        write_page([sweep.path])


# ---- the command -------------------------------------------------------------------------------------------------


def test_the_command_says_where_the_page_is(run: RunFolder, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["report", str(run.path), "--out", str(tmp_path / "it.html")])
    assert (done.exit_code, done.stdout) == (0, f"report: {tmp_path / 'it.html'}\n")


def test_a_page_is_not_written_over_a_folder(run: RunFolder, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["report", str(run.path), "--out", str(tmp_path)])
    assert (done.exit_code, done.stderr) == (
        1,
        f"veilsim: {tmp_path}: is a folder; name a file, such as {tmp_path / 'report.html'}\n",
    )


def test_a_folder_that_is_no_run_or_has_no_results_is_one_line(tmp_path: Path) -> None:
    started = made_up_run.start(tmp_path / "started", made_up_run.experiment_of(1)).path
    for path, expected in ((tmp_path, "neither a run folder"), (started, "no results yet (phase starting)")):
        done = CliRunner().invoke(cli, ["report", str(path)])
        assert done.exit_code == 1
        assert done.stderr.startswith(f"veilsim: {path}: {expected}")
        assert done.stderr.count("\n") == 1
        assert not (path / "report.html").exists()
