"""The documentation as a site: it builds without a warning, leads to every document, and fetches nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batch_scoring.config.loader import PROJECT
from docs.hooks import PAGES

FETCHES = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//[^>]*>|@import[^;]*https?:")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder


def test_it_fetches_nothing_from_a_network(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 40
    assert not [(page, found[0]) for page in pages if (found := FETCHES.search(page.read_text("utf-8")))]


@pytest.mark.parametrize(
    "tag", ['<link rel="stylesheet" href="https://fonts.example/x">', "<script src=//cdn.example/x.js></script>"]
)
def test_a_page_that_fetches_something_is_found(tag: str) -> None:
    assert FETCHES.search(tag)


def test_documents_outside_docs_are_pages_of_it(site: Path) -> None:
    for page in PAGES.values():
        folder = site if page == "index.md" else site / page.removesuffix(".md")
        assert (folder / "index.html").is_file(), page


def test_links_between_documents_lead_to_pages_and_those_to_code_are_text(site: Path) -> None:
    home = (site / "index.html").read_text("utf-8")
    assert 'href="deploy/"' in home and 'href="guides/alerts/"' in home
    assert "NOTICE" in home and 'href="NOTICE"' not in home
    kubernetes = (site / "deploy/index.html").read_text("utf-8")
    assert 'href="../guides/where-rows-are/"' in kubernetes
