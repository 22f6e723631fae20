"""The pages of the documentation: their links lead somewhere, what they name exists, their lines fit a screen."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sim.config.experiment import Experiment
from sim.run.sweep import load_cells

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
WIDTH = 100
MEASURED = ("PAPER.md", "STUDIES.md")
"""Pages with tables of measured results, whose cells cannot be split."""
ROOMS = ("sim", "roles", "strategies", "configs", "tests", "docs")


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def prose(text: str) -> str:
    """Return a page without its code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def by_hand(text: str) -> str:
    """Return a page without what scripts write into it."""
    return re.sub(r"^<!-- begin .*?^<!-- end [^\n]*", "", text, flags=re.S | re.M)


def anchors(text: str) -> set[str]:
    """Return what links within a page may end with: its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> Iterator[tuple[str, str]]:
    """Yield every relative link of a page: the path, empty for the page itself, and the anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


def test_every_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    broken = []
    for path, anchor in links(page.read_text()):
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(f"{path}#{anchor}")
    assert broken == []


def test_every_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w./-]*\w/?)", by_hand(page.read_text()))
    # Results of a benchmark or a run are what a reader will have.
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_no_line_is_wider_than_a_hundred_characters_but_of_measured_tables(page: Path) -> None:
    lines = by_hand(page.read_text()).splitlines()
    wide = [line for line in lines if len(line) > WIDTH]
    if page.name in MEASURED:
        wide = [line for line in wide if not line.startswith(("|", "!["))]
    assert wide == []


def test_the_readme_is_read_to_its_end() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_every_config_is_on_the_page_of_configs() -> None:
    text = (ROOT / "docs" / "CONFIGS.md").read_text()
    configs = sorted(path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml"))
    assert [name for name in configs if f"`{name}`" not in text] == []


def test_the_examples_of_configs_are_such_as_can_be_run(tmp_path: Path) -> None:
    text = "".join((ROOT / "docs" / page).read_text() for page in ("CONFIGS.md", "PROTECTIONS.md"))
    examples = [yaml.safe_load(example) for example in re.findall(r"^```yaml\n(.*?)^```", text, flags=re.S | re.M)]
    assert [next(iter(example)) for example in examples] == [
        *("classifier", "users", "sweep"),  # CONFIGS.md
        *("attack", "studies", "provider", "provider"),  # PROTECTIONS.md
    ]
    for example in examples:
        if "sweep" in example:
            config = tmp_path / "config.yaml"
            config.write_text(yaml.safe_dump({"name": "example"} | example))
            assert len(load_cells(config)) == 6
        else:
            Experiment.model_validate({"name": "example"} | example)


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page not in reached:
            reached.add(page)
            waiting += [page.parent / path for path, _ in links(page.read_text()) if path.endswith(".md")]
    assert set(PAGES) - reached == set()
