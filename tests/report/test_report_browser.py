"""The report in a real Chromium, offline."""

from __future__ import annotations

import pytest

from tests.browser import chromium, needs_browser
from tests.study.studies import loaded
from workbench.report.build import render

pytestmark = [pytest.mark.browser, needs_browser]


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "report.html"
    path.write_text(render(loaded("effect")), encoding="utf-8")
    return path


def open_page(browser, report, **options):
    """The page with all figures drawn, and lists of its requests and complaints."""
    context = browser.new_context(viewport={"width": 1100, "height": 900}, offline=True, **options)
    page = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report.as_uri())
    for name in ("plane", "curves", "forest", "copies", "skills", "frames"):
        page.locator(f"#plot-{name} .main-svg").first.wait_for(state="attached", timeout=60_000)
    return page, requests, complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_opens_offline_without_request_or_complaint(browser, report, scheme):
    """Under the page's own content security policy, in the theme that the system asks for."""
    page, requests, complaints = open_page(browser, report, color_scheme=scheme)
    assert page.locator("html").get_attribute("data-theme") == scheme
    page.locator("#figure-copies summary").click()
    assert page.locator("#words-copies").is_visible()
    with page.expect_download() as download:
        page.locator("#csv").click()
    assert "p_holm" in download.value.path().read_text(encoding="utf-8").splitlines()[0]
    page.context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_theme_button_by_keyboard_and_legend_by_mouse(browser, report):
    # the test itself evaluates scripts in the page, which its security policy forbids
    page, _, complaints = open_page(browser, report, color_scheme="light", bypass_csp=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1100
    text = "getComputedStyle(document.querySelector('#plot-curves .xtick text')).fill"
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(f"[{text}, {paper}]")
    page.keyboard.press("Tab")  # the skip link comes first
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "theme"
    page.keyboard.press("Enter")
    page.wait_for_function(f"{text} !== {before[0]!r}")
    assert page.evaluate(paper) != before[1]
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"

    hidden = "document.getElementById('plot-plane').data.filter((t) => t.visible === 'legendonly').length"
    assert page.evaluate(hidden) == 0
    page.locator("#plot-plane .legendtoggle").first.click()
    page.wait_for_function(f"{hidden} > 0")
    page.context.close()
    assert complaints == []
