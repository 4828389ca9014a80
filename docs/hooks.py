"""Hooks of mkdocs: documents that stand outside `docs/` are pages of the site, too, and links work in both places.

A link in a Markdown file is relative to that file, so that it works where the repository is browsed. In the site a link
to a document leads to its page; one to any other file of the repository is shown as its text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "deploy/README.md": "deploy.md",
    "examples/loans/README.md": "tutorial.md",
}
"""Documents outside `docs/`, and their pages."""
_SOURCES = {page: document for document, page in PAGES.items()}
_LINK = re.compile(r"\[(?P<text>[^]]*)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401  (what mkdocs passes)
    """Add the documents that stand outside `docs/`."""
    for document, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(PROJECT / document)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:  # noqa: ANN401  (what mkdocs passes)
    """Lead the page's links to pages of the site."""
    return _LINK.sub(lambda link: _in_site(link, page.file.src_uri), markdown)


def _in_site(link: re.Match[str], page: str) -> str:
    document = _SOURCES.get(page, f"docs/{page}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(document), link["target"]))
    found = PAGES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
    if found is None:
        return link["text"] if (PROJECT / target).exists() else link[0]
    return f"[{link['text']}]({posixpath.relpath(found, posixpath.dirname(page) or '.')}{link['anchor'] or ''})"
