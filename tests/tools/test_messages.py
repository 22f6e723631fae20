"""docs/tools/messages.py and MESSAGES.md: every message is there, and none that is not sent."""

from collections.abc import Callable
from types import ModuleType

import pytest

from sim.client_app import app
from sim.exchange import messages


@pytest.fixture
def script(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("messages")


def test_the_table_has_every_message_that_a_node_answers_and_every_request_and_no_other(script: ModuleType) -> None:
    answered = {name.removesuffix(".default") for name in app._registered_funcs}
    named = [cells[0].strip("`") for cells in script.rows()[1:]]
    assert sorted(named) == sorted(answered | set(messages.REQUEST_TYPES))


def test_the_table_says_who_answers(script: ModuleType) -> None:
    to = {cells[0].strip("`"): cells[1] for cells in script.rows()[1:]}
    assert {to[name] for name in messages.PROVIDER_TYPES} == {"provider"}
    assert (to["query.published"], to["query.role"], to["evaluate.resume"]) == ("ServerApp", "any", "user, evaluator")


def test_the_page_is_what_the_script_writes(script: ModuleType) -> None:
    text = script.PAGE.read_text()
    assert f"<!-- begin messages -->\n{script.table()}\n<!-- end messages -->" in text


def test_a_docstring_without_a_table_is_said_to_have_none(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "__doc__", "No table.")
    with pytest.raises(ValueError, match="must hold one table"):
        script.rows()
