"""Docstrings as Markdown: doctests in fences, and what they refer to without the roles that Sphinx would want."""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.M)
_ROLE = re.compile(r":(?:func|class|data|attr|meth|mod):`")


def as_markdown(docstring: str) -> str:
    """Return a docstring in Markdown."""
    return _ROLE.sub("`", _DOCTEST.sub(lambda found: f"```pycon\n{found.group()}\n```", docstring))


class AsMarkdown(griffe.Extension):
    """Applies :func:`as_markdown` to whatever has a docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """See griffe."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
