"""A real browser to load pages: headless Chromium, if it is installed."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@dataclass(frozen=True)
class Seen:
    """A page after its scripts have run."""

    title: str
    dom: str
    console: tuple[str, ...]


def look(url: str, profile: Path) -> Seen:
    """Open a page. `profile`: an empty folder for the browser's own files."""
    assert CHROMIUM
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
            f"--user-data-dir={profile}",
            "--virtual-time-budget=10000",
            "--enable-logging=stderr",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout.partition("<body")[0], re.DOTALL)
    console = re.findall(r'CONSOLE[^"]*"(.*)", source:', done.stderr)
    return Seen(title[1] if title else "", done.stdout, tuple(console))
