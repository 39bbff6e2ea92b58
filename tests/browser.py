"""The system's Chromium for tests that look at a page as a reader does. No browser: such tests are skipped and say
how to install one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
INSTALL = "no Chromium here: apt-get update && apt-get install -y chromium fonts-dejavu"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=INSTALL)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium, closed at the end, whatever happened."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def shot(page: Page, name: str) -> None:
    """Keep a picture of the page where CI asks for pictures (``WORKBENCH_SCREENSHOTS``), named by test and ``name``."""
    if kept := os.environ.get("WORKBENCH_SCREENSHOTS"):
        test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0].rpartition("/")[2]
        file = re.sub(r"[^A-Za-z0-9]+", "-", f"{test}-{name}").strip("-")
        Path(kept).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(kept) / f"{file[:180]}.png"), full_page=True)
