"""docs/tools/paper.py: the pieces of Table I become one table."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from matplotlib.cbook import boxplot_stats

from roles.evaluator.measures import PSNR_CAP
from roles.evaluator.results import Measured, Seen
from sim.config.experiment import Experiment
from sim.report.figures.boxes import Box
from sim.run.folder import RunFolder
from sim.run.subject import CONTROL, Subject
from tests.sim import made_up_run
from tests.sim.made_up_run import measured

KEPT = Path(__file__).parents[2] / "docs"
TRAINING = {"epochs": 5}
FIRST = Subject("user", 0)


@pytest.fixture
def docs(
    tool: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> ModuleType:
    """The script, with an empty page of its own."""
    script = tool("paper")
    page = tmp_path / "PAPER.md"
    blocks = ("networks-CPU", "methods-CPU", "networks-full")
    shown = "![boxes](pictures/resnet20-CPU/psnr.png)\n"
    page.write_text(shown + "\n".join(f"<!-- begin {name} -->\n<!-- end {name} -->" for name in blocks))
    own: dict[str, Any] = {"PAGE": page, "PICTURES": tmp_path / "pictures"}
    own |= {"ROWS": tmp_path / "paper.csv", "BOXES": tmp_path / "paper_psnr.csv"}
    if request.node.get_closest_marker("with_figures") is None:
        own |= dict.fromkeys(("draw_table", "draw_psnr_boxes"), lambda *_: None)
    for name, value in own.items():
        monkeypatch.setattr(script, name, value)
    return script


PLAIN, TANAKA = {"protection": {"kind": "plain"}}, {"protection": {"kind": "tanaka"}}


def piece(folder: Path, settings: list[dict[str, Any]], **more: Any) -> Path:
    users = {"count": len(settings), "settings": settings, "partition": {"kind": "all"}}
    user = {"width": 16, "training": TRAINING, "features": {"weights": "imagenet"}}
    classifier = {"training": {"epochs": 24}}
    experiment = made_up_run.experiment_of(0, users=users, user=user, classifier=classifier, **more)
    return made_up_run.make(folder, experiment).path


def write(docs: ModuleType, *runs: Path) -> tuple[pd.DataFrame, dict[str, list[list[str]]]]:
    """Return the rows that are kept, and the cells of each table of the page."""
    docs.main(runs)
    tables: dict[str, list[list[str]]] = {}
    for block in docs.PAGE.read_text().split("<!-- begin ")[1:]:
        lines = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("|")]
        tables[block.split()[0]] = [lines[0], *lines[2:]] if lines else []
    return pd.read_csv(docs.ROWS), tables


@pytest.mark.with_figures
def test_pieces_given_one_by_one_are_one_table_and_a_row_given_again_takes_its_own_place(
    docs: ModuleType, tmp_path: Path
) -> None:
    keys = piece(tmp_path / "keys", [TANAKA, PLAIN])
    networks = piece(tmp_path / "networks", [PLAIN, {"alpha": 0.005}])
    more = piece(tmp_path / "more", [{"alpha": 0.1, "width": 8}, PLAIN, {"alpha": 0.005}])
    write(docs, keys)
    rows, tables = write(docs, networks, more, networks)
    again = "proposed, alpha 0.005, relu2_2"  # in two pieces, as another user: a repetition, which plain images are not
    width_8 = "proposed, alpha 0.1, relu2_2, width 8"
    methods = ["plain", again, width_8, "Tanaka"]
    assert list(rows["method"].value_counts()[[*methods, "control: blur"]]) == [1, 2, 1, 1, 1]
    assert [cells[1] for cells in tables["methods-CPU"][1:]] == ["plain", "Tanaka", "control: blur"]
    # The paper and its gap; ours of two users, their gap to 80% of plain images. Table I has no other widths.
    ours = ["69.98 (69.98 to 69.99)", "-10.02 (-10.02 to -10.01)"]
    first, second = tables["networks-CPU"][1:]
    assert first[:6] == ["ResNet-20", "alpha 0.005, relu2_2", "2", "91.72 (+0.49)", *ours]
    assert second[1:4] == ["alpha 0.1, relu2_2, width 8", "1", "-"]
    # No picture is kept that the page does not show.
    assert [picture.name for picture in tmp_path.glob("pictures/*/*")] == ["psnr.png"]


def change(run: Path, subject: Subject, **changes: Measured) -> None:
    """Change what an attack has measured: of ``protected``, or of the estimates of an inverse network."""
    folder = RunFolder.open(run)
    result = folder.attack(subject)
    assert result is not None
    protected = changes.pop("protected", result.protected)
    folder.keep_attack(subject, replace(result, protected=protected, estimates=result.estimates | changes))


def test_a_setting_holds_if_accuracy_what_can_be_had_and_the_control_say_so(docs: ModuleType, tmp_path: Path) -> None:
    run = piece(tmp_path / "run", [{"alpha": 0.005}, {"alpha": 0.1}])  # made up: the first user's images are hidden
    _, tables = write(docs, run)
    assert [cells[-1] for cells in tables["networks-CPU"][1:]] == ["no", "no"]
    for subject in (FIRST, Subject("user", 1)):
        change(run, subject, protected=measured(8, 0.1, 0.79))
    _, tables = write(docs, run)
    assert [[cells[1], cells[5], *cells[-4:]] for cells in tables["networks-CPU"][1:]] == [
        ["alpha 0.005, relu2_2", "-1.00", "+0.5/-0.05", "0.15", "hidden", "yes"],
        ["alpha 0.1, relu2_2", "-1.00", "+7.0/+0.15", "0.15", "partial", "no"],
    ]
    assert "Both claims hold at 1 of 2 settings: ResNet-20, proposed, alpha 0.005, relu2_2." in docs.PAGE.read_text()
    one_in_twelve = measured(13.5, 0.15, 0.4)
    one_in_twelve.ssim[3] = 0.9  # medians are as they were
    change(run, FIRST, strong=one_in_twelve)
    _, tables = write(docs, run)
    strong = tables["networks-CPU"][0].index("ITN strong")
    assert tables["networks-CPU"][1][strong].endswith("/8.3")
    assert tables["networks-CPU"][1][-3:] == ["0.15", "partial", "no"]  # 8.3% are too many to be hidden
    change(run, FIRST, strong=measured(13.5, 0.15, 0.4))
    change(run, CONTROL, strong=measured(20, 0.7))
    _, tables = write(docs, run)
    assert tables["networks-CPU"][1][-1] == "attack too weak"
    assert 'from median SSIM 0.650 to 0.750: too weak for "hidden" to mean anything.' in docs.PAGE.read_text()


def test_no_setting_holds_that_the_attack_which_the_control_vouches_for_has_not_tried(
    docs: ModuleType, tmp_path: Path
) -> None:
    strong = piece(tmp_path / "strong", [{"alpha": 0.005}])
    itns = [{"name": "quick", "training": {"epochs": 1}}]
    quick = piece(tmp_path / "quick", [{"alpha": 0.01}], attack={"itns": itns, "pictures": 6})
    change(quick, FIRST, protected=measured(8, 0.1, 0.79), quick=measured(13.5, 0.15, 0.4))
    change(strong, FIRST, protected=measured(8, 0.1, 0.79))
    change(quick, CONTROL, quick=measured(20, 0.7))
    _, tables = write(docs, strong, quick)
    assert {cells[1]: cells[-1] for cells in tables["networks-CPU"][1:]} == {
        "alpha 0.005, relu2_2": "yes",
        "alpha 0.01, relu2_2": "attack too weak",
    }


def test_what_another_run_finds_out_about_a_row_joins_it_and_a_run_that_failed_changes_nothing(
    docs: ModuleType, tmp_path: Path
) -> None:
    first = piece(tmp_path / "first", [PLAIN, TANAKA])
    before, _ = write(docs, first)
    experiment = RunFolder.open(first).experiment()
    write(docs, made_up_run.make(tmp_path / "failed", experiment, failed={0: "lost", 1: "lost"}).path)
    wider = [{"name": name, "training": {"epochs": 1}} for name in ("paper", "strong", "wide")]
    attack = experiment.attack.model_dump() | {"itns": wider}
    more = piece(tmp_path / "more", [PLAIN], attack=attack)
    change(more, FIRST, wide=measured(25, 0.7))
    rows, _ = write(docs, more)
    assert list(rows["key"]) == list(before["key"])
    plain = rows[rows["method"] == "plain"].iloc[0]
    assert (plain["itn_strong_ssim"], plain["itn_wide_ssim"]) == pytest.approx((0.2, 0.75))
    # The verdict is on all that is known of the row, whichever run was the last to attack it.
    narrow = piece(tmp_path / "narrow", [PLAIN], attack={"itns": wider[:1], "pictures": 6})
    change(narrow, FIRST, protected=measured(8, 0.1), paper=measured(8, 0.1))
    rows, _ = write(docs, narrow)
    plain = rows[rows["method"] == "plain"].iloc[0]
    assert (plain["itn_wide_ssim"], plain["verdict"]) == (pytest.approx(0.75), "recovered")
    others = rows[rows["method"] != "plain"].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        others[before.columns], before[before["method"] != "plain"].reset_index(drop=True), check_dtype=False
    )


def test_rows_of_another_attack_or_another_psi_are_refused(docs: ModuleType, tmp_path: Path) -> None:
    write(docs, piece(tmp_path / "first", [PLAIN], name="first"))
    kept = docs.ROWS.read_text()
    longer = [{"name": "strong", "training": {"epochs": 2}}]
    second = piece(tmp_path / "second", [TANAKA], name="second", attack={"itns": longer, "pictures": 6})
    with pytest.raises(SystemExit, match=re.escape("differ in recipe of ITN strong: first | second; leave one side")):
        docs.main([second])
    third = piece(tmp_path / "third", [TANAKA], name="third", runtime={"precision": "bf16"})
    with pytest.raises(SystemExit, match=re.escape("differ in data, psi, precision or attack: first | third")):
        docs.main([third])
    assert docs.ROWS.read_text() == kept


def test_rows_of_another_phi_or_of_another_copy_of_the_data_are_refused(docs: ModuleType, tmp_path: Path) -> None:
    def with_phi(name: str, weights: str) -> Path:
        return piece(tmp_path / name, [{"alpha": 0.1, "features": {"weights": weights}}, PLAIN], name=name)

    def with_data(name: str, data: str) -> Path:
        return piece(tmp_path / name, [PLAIN], name=name, data={"name": data})

    # The same files elsewhere are the same, and random weights are another method, which the table says.
    write(docs, with_phi("first", "/here/front.safetensors"), with_phi("moved", "/there/front.safetensors"))
    write(docs, with_phi("random", "random"))
    with pytest.raises(SystemExit, match=re.escape("differ in phi's weights: moved | other; leave one side")):
        docs.main([with_phi("other", "imagenet")])
    docs.ROWS.unlink()
    write(docs, with_data("local", "/here/cifar10"), with_data("elsewhere", "/there/cifar10"))
    with pytest.raises(SystemExit, match=re.escape("differ in data, psi, precision or attack: elsewhere | hub")):
        docs.main([with_data("hub", "uoft-cs/cifar10")])


def test_another_seed_is_a_repetition_another_budget_another_table_another_schedule_another_method(
    docs: ModuleType, tmp_path: Path
) -> None:
    first = piece(tmp_path / "first", [{"alpha": 0.01}, {"alpha": 0.01, "training": {"schedule": "one_cycle"}}])
    second = piece(tmp_path / "second", [{"alpha": 0.01}], seed=1)
    content = yaml.safe_load((second / "config.yaml").read_text())
    content["classifier"]["training"]["epochs"] = content["user"]["training"]["epochs"] = 200
    content["user"]["width"] = 64
    full = tmp_path / "full"
    shutil.copytree(second, full)
    RunFolder(full).keep_experiment(Experiment.model_validate(content))
    _, tables = write(docs, first, second, full)
    methods = [cells[1:3] for cells in tables["networks-CPU"][1:]]
    assert methods == [["alpha 0.01, relu2_2", "2"], ["alpha 0.01, relu2_2, schedule one_cycle", "1"]]
    assert [cells[1:4] for cells in tables["networks-full"][1:]] == [["alpha 0.01, relu2_2", "1", "91.41 (+0.18)"]]


def test_pictures_that_a_network_has_only_moved_are_told_from_pictures_that_it_hides(
    docs: ModuleType, tmp_path: Path
) -> None:
    run = piece(tmp_path / "run", [{"alpha": 0.005}, {"alpha": 0.1}])  # made up: both users' pictures are noise
    folder = RunFolder.open(run)
    result = folder.attack(FIRST)
    assert result is not None
    folder.keep_attack(FIRST, replace(result, seen=Seen(torch.ones(12), torch.ones(12), 1, -2)))
    _, tables = write(docs, run)
    as_seen = tables["networks-CPU"][0].index("as seen")
    first, second = (cells[as_seen] for cells in tables["networks-CPU"][1:])
    assert first == "1.00 (+1, -2)"
    assert float(second) < 0.2


def test_networks_that_go_up_another_way_are_another_method(docs: ModuleType, tmp_path: Path) -> None:
    _, tables = write(docs, piece(tmp_path / "run", [{"alpha": 0.01}, {"alpha": 0.01, "upsampling": "transposed"}]))
    names = [cells[1] for cells in tables["networks-CPU"][1:]]
    assert names == ["alpha 0.01, relu2_2", "alpha 0.01, relu2_2, upsampling transposed"]


def test_what_is_exact_in_every_image_is_kept_as_exact(docs: ModuleType, tmp_path: Path) -> None:
    run = piece(tmp_path / "run", [TANAKA])
    change(run, FIRST, strong=Measured(torch.full((12,), PSNR_CAP), torch.ones(12), None, 0.8))
    write(docs, run)
    boxes = pd.read_csv(docs.BOXES)
    strong = boxes[boxes["group"] == "ITN strong"]
    assert strong["low"].eq(PSNR_CAP).tolist() == [True, False]  # the other is the control's


def test_networks_of_the_gan_scheme_at_another_layer_of_phi_are_another_method(
    docs: ModuleType, tmp_path: Path
) -> None:
    gan = {"protection": {"kind": "gan"}}
    _, tables = write(docs, piece(tmp_path / "run", [gan, gan | {"features": {"layer": "relu1_2"}}]))
    names = [cells[1] for cells in tables["methods-CPU"][1:-1]]
    assert names == ["GAN-based, re-implemented", "GAN-based, re-implemented, layer relu1_2"]


def whiskers(values: torch.Tensor) -> tuple[float, float]:
    (stats,) = boxplot_stats(values.numpy())
    return stats["whislo"], stats["whishi"]


def test_the_boxes_of_fig_7_outlive_the_runs_they_were_taken_from(
    docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[Box]] = []
    monkeypatch.setattr(docs, "draw_psnr_boxes", lambda _, boxes: drawn.append(boxes))
    keys = piece(tmp_path / "keys", [TANAKA])
    write(docs, keys)
    estimates = RunFolder.open(keys).attack(FIRST).estimates["paper"].psnr
    shutil.rmtree(keys)
    write(docs, piece(tmp_path / "networks", [{"alpha": 0.1}, {"alpha": 0.1}, {"alpha": 0.1, "width": 8}]))
    labels = {box.label for box in drawn[-1]}
    assert labels == {"alpha 0.1, relu2_2", "Tanaka", "control: blur"}  # one of two repetitions, no other recipe
    (kept,) = [box for box in drawn[-1] if (box.label, box.group) == ("Tanaka", "ITN paper")]
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    assert torch.equal(kept.values.quantile(at), estimates.double().quantile(at))
    assert whiskers(kept.values) == whiskers(estimates.double())


def test_the_page_has_the_tables_of_the_rows_that_are_kept(
    docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PAGE", "ROWS", "BOXES"):
        kept: Path = {"PAGE": KEPT / "PAPER.md"}.get(name, KEPT / "results" / getattr(docs, name).name)
        copy = tmp_path / "kept" / kept.name
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(kept, copy)
        monkeypatch.setattr(docs, name, copy)
    docs.main([])

    def lines(page: Path) -> list[str]:
        return [line for line in page.read_text().splitlines() if not re.fullmatch("[| -]+", line)]

    assert lines(docs.PAGE) == lines(KEPT / "PAPER.md")
    assert docs.ROWS.read_text() == (KEPT / "results" / "paper.csv").read_text()
