"""``veilsim report``: one file that holds a run within itself."""

import re
from pathlib import Path

from flwr.app import ArrayRecord
from typer.testing import CliRunner

from sim.cli import cli
from sim.report.page.write import renew_page, write_page
from sim.run.folder import RunFolder
from sim.run.watch import named
from tests.sim import made_up_run
from tests.sim.report.page.parsed import EVIL, Page, column


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
    assert f"user 4 failed: {EVIL}" in page.text
    assert page.data["runs"][0]["studies"][0]["table"]["columns"][0]["label"] == EVIL
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]


def test_every_picture_has_words_for_those_who_do_not_see_it(page: Page) -> None:
    alts = [str(image["alt"]) for image in page.images()]
    assert all(alts)
    assert sum(alt.startswith("Learning curves of the users: ") for alt in alts) == 5
    assert sum(alt.startswith("Load of the provider") for alt in alts) == 2
    assert len(alts) == 10  # with boxes, trade-off and a study's


def test_it_says_first_who_is_hidden_at_what_accuracy_and_how_sure_that_is(page: Page) -> None:
    assert (
        "User 0 is hidden from these attacks; the images of user 2 can be made out as they are; an attack recovers "
        "those of user 3; something of those of user 1 comes back. Accuracy 70.0%, plain 80.0%. "
        "Of a user's test images, 50.0% (0.0 to 100.0) are given away. 1 of 5 users has no result."
    ) in page.text
    assert "so it can undo a blur" in page.text
    assert "phi has random weights: this run shows the machinery" in page.text


def test_every_term_is_explained_on_the_page(page: Page) -> None:
    glossary = page.text[page.text.index("Words and symbols") :]
    for term in ("psi", "X'", "h_theta", "ITN", "control", "partial", "trivial guess", "alpha", "PSNR"):
        assert term in glossary


def test_hidden_means_nothing_where_there_is_no_control(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path, made_up_run.experiment_of(1))
    (run.path / "attacks" / "control-blur" / "measures.safetensors").unlink()
    made_up_run.finish(run)
    text = Page(write_page([run.path])).text
    assert "The user is hidden from these attacks. But there is no positive control: hidden means nothing here." in text
    assert 'The positive control has no result: "hidden" means nothing' in text


def test_the_page_says_how_to_have_the_run_again(page: Page, run: RunFolder) -> None:
    assert "veilsim run 'configs/made up.yaml' seed=3" in page.text
    assert (run.path / "config.yaml").read_text() in page.text
    assert "torch" in page.text and "processor" in page.text


def test_how_averages_do_is_drawn_where_there_are_any(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path, made_up_run.experiment_of(2, strategy={"name": "fedavg"}))
    said = "How the average of each round does"
    assert said not in write_page([run.path]).read_text()
    run.keep_round(1, ArrayRecord(), {"validation_loss": 2.0, "validation_accuracy": 0.3})
    assert said in write_page([run.path]).read_text()


def test_the_command_says_where_the_page_is(run: RunFolder, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["report", str(run.path), "--out", str(tmp_path / "it.html")])
    assert (done.exit_code, done.stdout) == (0, f"report: {named(tmp_path / 'it.html')}\n")


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


def test_a_page_is_renewed_where_it_lies_but_not_one_that_compares_the_run_with_others(tmp_path: Path) -> None:
    run, other = (made_up_run.make(tmp_path / name, made_up_run.experiment_of(1)) for name in ("one", "other"))
    renew_page(run.path)
    assert not (run.path / "report.html").exists()
    for compared, renewed in (([run.path], True), ([run.path, other.path], False)):
        page = write_page(compared)
        before = page.read_text()
        run.note({"processor": f"one that {renewed} names"})
        renew_page(run.path)
        assert (page.read_text() != before) == renewed
