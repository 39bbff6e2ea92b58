"""axe-core on an exported page, in light and in dark: what it calls serious or critical."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM, INSTALL, shot
from tests.views.frontend import FOLDER

SCRIPT = FOLDER / "node_modules/axe-core/axe.min.js"
needs_axe = pytest.mark.skipif(
    CHROMIUM is None or not SCRIPT.is_file(),
    reason=INSTALL
    if CHROMIUM is None
    else "no axe-core here: install Node.js 20, then (cd frontend && npm ci)",
)


def violations(browser: Any, path: Path, scheme: str) -> list[str]:
    """One line a violation: its rule, how bad, and the first elements."""
    context = browser.new_context(
        viewport={"width": 1100, "height": 900}, color_scheme=scheme, bypass_csp=True, offline=True
    )
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    page.wait_for_timeout(300)
    shot(page, f"{path.stem}-{scheme}")
    page.add_script_tag(content=SCRIPT.read_text("utf-8"))
    found = page.evaluate("async () => (await axe.run(document, { resultTypes: ['violations'] })).violations")
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    lines = [
        f"{v['id']} ({v['impact']}): {v['help']}: " + "; ".join(n["html"][:160] for n in v["nodes"][:3])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    return lines + ([f"the page is {overflow} pixels wider than the window"] if overflow > 0 else [])
