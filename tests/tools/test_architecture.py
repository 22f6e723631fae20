"""docs/tools/architecture.py and ARCHITECTURE.md: the picture, the table and the tour are those of the code."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TOUR = re.compile(r"^\d+\. `([\w/.]+):([\w.]+)`", re.M)
MOST_STOPS = {"By relay": 12, "By direct exchange": 7}


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "ARCHITECTURE.md").read_text()


@pytest.fixture
def script(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("architecture")


def test_picture_and_table_show_the_imports_of_the_code(script: ModuleType, page: str) -> None:
    found = script.arrows()
    again = "run: python docs/tools/architecture.py"
    assert f"<!-- begin rooms -->\n{script.table(found)}\n<!-- end rooms -->" in page, again
    description = re.search(r"<dc:description>(.*?)</dc:description>", script.PICTURE.read_text())
    assert description is not None
    assert description[1].replace("&gt;", ">") == script.in_words(script.drawn(found)), again


def test_every_room_of_the_picture_is_one_of_the_code_and_imports_point_downwards(script: ModuleType) -> None:
    found = script.arrows()
    assert {room for arrow in found for room in arrow} == set(script.ROOMS)
    assert [arrow for arrow in found if script.ROOMS[arrow[0]].y <= script.ROOMS[arrow[1]].y] == []


def test_an_arrow_that_follows_from_others_is_left_out_unless_it_is_a_nodes_to_its_role(script: ModuleType) -> None:
    chain = {("sim.cli", "sim.run"), ("sim.run", "sim.config"), ("sim.cli", "sim.config")}
    own = {("sim.nodes.user", "roles.user"), ("sim.nodes.user", "sim.config"), ("sim.config", "roles.user")}
    shown = script.drawn(chain | own)
    assert set(chain | own) - set(shown) == {("sim.cli", "sim.config")}


def test_a_module_in_no_room_is_refused(script: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"sim\.cellar: in no room of the picture; add one to ROOMS"):
        script.room_of("sim.cellar")


def tour(page: str, title: str) -> list[tuple[str, str]]:
    return TOUR.findall(page.partition(f"### {title}\n")[2].partition("\n#")[0])


def defined(path: Path) -> set[str]:
    """Return the functions of a module and, after their class and a dot, its methods."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{of.name}" for of in node.body if isinstance(of, ast.FunctionDef)}
    return names


@pytest.mark.parametrize(("title", "most"), MOST_STOPS.items())
def test_the_tour_is_short_and_every_stop_exists(page: str, title: str, most: int) -> None:
    stops = tour(page, title)
    assert 0 < len(stops) <= most
    assert [stop for stop in stops if stop[1] not in defined(ROOT / stop[0])] == []
    assert len(stops) == len(re.findall(r"^\d+\. ", page.partition(f"### {title}\n")[2].partition("\n#")[0], re.M))
