"""A page as a browser would read it."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

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
