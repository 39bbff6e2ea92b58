"""An exported page as its reader has it: opened from disk, without network, whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def opened(browser: Browser, path: Path, height: int = 900, scheme: str = "light") -> tuple[Page, list[str]]:
    """The page, every piece of it drawn, and a list that fills with what its console says."""
    context = browser.new_context(
        viewport={"width": 1100, "height": height}, color_scheme=scheme, offline=True
    )
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    return page, problems
