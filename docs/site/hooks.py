"""What the documentation site has beside the pages of ``docs/``: the README, the changelog, pages of docstrings."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TOP = Path(__file__).parents[2]
FROM_TOP = {"index.md": "README.md", "CHANGELOG.md": "CHANGELOG.md", "CITATION.cff": "CITATION.cff"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what does not lie in ``docs/``."""
    for name, source in FROM_TOP.items():
        files.append(File.generated(config, name, content=(TOP / source).read_text()))
    for name, page in config.extra["api"].items():
        sections = "\n\n".join(f"::: {module}" for module in page["modules"])
        files.append(File.generated(config, f"api/{name}.md", content=f"# {page['title']}\n\n{sections}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links find their pages: here, those of the top level and those of ``docs/`` lie side by side."""
    return re.sub(r"\]\((?:docs|\.\.)/", "](", markdown)
