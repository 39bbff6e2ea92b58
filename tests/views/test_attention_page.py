"""The attention view as a reader uses it: an exported page in a real browser, without network, by mouse and by keys."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tests.browser import chromium, needs_browser
from tests.views import attention_worlds as worlds
from tests.views import pages
from tests.views.axe import needs_axe, violations
from workbench.captures.rows import rows_of
from workbench.probes.boxes import Box
from workbench.probes.scatter import scatter_numbers
from workbench.views.attention import AttentionView
from workbench.views.attention_reading import KEYS
from workbench.views.export import write_page
from workbench.views.pieces import Module

NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pair():
    tokens = [*worlds.WORDS, NASTY, "<ask>", "purple", "<end>"]
    after = worlds.capture(6, 4, 3, sink=2, tokens=tokens, seed=5)
    return AttentionView(
        after, worlds.capture(6, 4, 3, tokens=tokens, seed=6, name="before"), box=Box(8, 8, 24, 24)
    )


@pytest.fixture(scope="module")
def path(pair, tmp_path_factory):
    return pair.to_html(tmp_path_factory.mktemp("pair") / "page.html")


@pytest.fixture
def opened(browser, path):
    page, problems = _open(browser, path)
    yield page
    assert not problems
    page.close()


def _open(browser, path):
    page, problems = pages.opened(browser, path, 1400)
    page.wait_for_selector(".wb-heading:has-text('Layer'), .wb-note:not([hidden])")
    page.wait_for_timeout(150)
    return page, problems


def _pixels(page, selector=".wb-strip") -> str:
    return hashlib.sha256(page.locator(selector).first.screenshot()).hexdigest()


def _number(page, row, column=0) -> float:
    cells = page.locator(".wb-numbers tr", has=page.locator("th", has_text=row)).locator("td")
    return float(cells.nth(column).inner_text().replace("−", "-").replace("%", "")) / 100


@needs_browser
def test_layers_heads_tokens_and_sides_change_the_picture_and_the_numbers(opened, pair):
    page, seen = opened, set()
    rows = {side: rows_of(one.capture.arrays) for side, one in pair.sides.items()}

    def shown(layer, head, query):
        seen.add(_pixels(page))
        for column, side in ((0, "before"), (1, "after")):
            row = rows[side][layer, :, query].mean(0) if head is None else rows[side][layer, head, query]
            numbers = scatter_numbers(row, pair.reading.token_map, pair.reading.boxes)
            assert _number(page, "mass on the frames", column) == pytest.approx(
                numbers["visual_mass"], abs=6e-4
            )
            assert _number(page, "mass in the box", column) == pytest.approx(numbers["box_mass"], abs=6e-4)

    shown(2, None, 9)
    slider = page.get_by_label("Layer", exact=False).first
    slider.focus()
    page.keyboard.press("ArrowRight")
    shown(3, None, 9)
    grid = page.get_by_role("application", name="Layers by heads")
    grid.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".wb-heading:has-text('head 1')")
    shown(3, 1, 9)
    page.get_by_role("button", name="purple").click()
    page.wait_for_timeout(150)
    shown(3, 1, 10)
    page.get_by_role("button", name="before").click()
    shown(3, 1, 10)
    page.get_by_role("button", name="difference").click()
    shown(3, 1, 10)
    page.get_by_label("own scale for each map").check()
    shown(3, 1, 10)
    assert len(seen) == 7, "every choice is another picture"


@needs_browser
def test_the_colour_of_a_patch_is_that_of_its_value_on_the_scale_that_is_stated(opened, pair):
    page = opened
    page.locator("input[type=range]").nth(2).fill("100")  # heat alone
    page.get_by_label("own scale for each map").check()
    row = np.nan_to_num(rows_of(pair.reading.capture.arrays)[2, :, 9, :24].mean(0))
    best = int(row.argmax())
    strip = pair.reading.strip
    middle = """canvas => [...canvas.getContext("2d").getImageData(canvas.width / 8, canvas.height / 8, 1, 1).data]"""
    rgb = np.array(page.locator(".wb-film-big canvas").evaluate(middle))
    import matplotlib

    expected = matplotlib.colormaps["viridis"](row[0] / row.max())
    assert np.abs(rgb[:3] / 255 - expected[:3]).max() < 0.02
    assert page.locator(".wb-colourbar span").nth(1).inner_text() == f"{row.max():.3g}"
    assert strip.frame_of[best] == 0 and best == 2, "the sink is the largest"


@needs_browser
def test_hidden_sinks_vanish_and_their_mass_is_said(opened, pair):
    page = opened
    strip = _pixels(page)
    page.get_by_label("hide sinks").check()
    heading = page.locator(".wb-heading").inner_text()
    mass = pair.reading.query(9).statistics[KEYS.index("sink_mass"), 2, 0]
    assert f"{100 * mass:.1f} % of this token's attention, on 1 sink" in heading
    assert _pixels(page) != strip
    page.locator(".wb-film-big canvas").hover(
        position={"x": 10, "y": 200}
    )  # row 2, column 1: token 2 of frame 1
    assert "row 2, column 1: not visible" in page.locator(".wb-film-big").inner_text()


@needs_browser
def test_everything_goes_by_keyboard(opened):
    page = opened
    strip, said = page.locator(".wb-strip"), page.locator(".wb-film-big .wb-said").first
    strip.focus()
    page.keyboard.press("End")
    assert strip.get_attribute("aria-valuetext") == "frame 6 of 6, 2.5 s"
    page.keyboard.press("ArrowLeft")
    assert said.inner_text().startswith("frame 5 of 6, 2 s, row 2, column 2: ")
    page.locator(".wb-film-big canvas").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Home")
    assert said.inner_text().startswith("frame 1 of 6, 0 s, row 1, column 2: ")
    assert said.inner_text().endswith("attention probability")
    page.keyboard.press(" ")
    page.wait_for_selector(".wb-strip[aria-valuenow='3']")
    page.keyboard.press(" ")
    stopped = strip.get_attribute("aria-valuenow")
    page.wait_for_timeout(600)
    assert strip.get_attribute("aria-valuenow") == stopped
    page.get_by_role("button", name="<ask>").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "purple"
    assert page.get_by_role("button", name="purple").get_attribute("aria-pressed") == "true"
    assert page.locator("img[src=x]").count() == 0


@needs_browser
def test_a_box_is_dragged_or_typed_and_its_mass_stands_beside_chance(opened, pair):
    page = opened
    big = page.locator(".wb-film-big canvas").bounding_box()
    page.mouse.move(big["x"] + 2, big["y"] + 2)
    page.mouse.down()
    page.mouse.move(big["x"] + big["width"] * 0.5 - 2, big["y"] + big["height"] - 2, steps=4)
    page.mouse.up()
    inputs = page.locator(".wb-box input")
    assert [inputs.nth(i).input_value() for i in range(4)] == ["0", "0", "16", "32"]
    row = rows_of(pair.reading.capture.arrays)[2, :, 9].mean(0)

    def expected(*corners):
        return scatter_numbers(row, pair.reading.token_map, [Box(*corners)])

    assert _number(page, "mass in the box", 1) == pytest.approx(expected(0, 0, 16, 32)["box_mass"], abs=4e-3)
    assert _number(page, "share of the area", 1) == 0.5
    inputs.nth(2).fill("40")
    inputs.nth(2).press("Tab")
    assert "inside the frame of 32 × 32" in page.locator(".wb-box").inner_text()
    inputs.nth(2).fill("20")
    inputs.nth(2).press("Tab")
    numbers = expected(0, 0, 20, 32)
    assert _number(page, "mass in the box", 1) == pytest.approx(numbers["box_mass"], abs=4e-3)
    assert _number(page, "share of the area", 1) == pytest.approx(numbers["box_share"], abs=1e-3)
    page.get_by_role("button", name="the object's own box").click()
    given = scatter_numbers(row, pair.reading.token_map, pair.reading.boxes)
    assert _number(page, "mass in the box", 1) == pytest.approx(given["box_mass"], abs=6e-4)


@needs_browser
def test_a_page_says_what_it_does_not_carry_and_stays_usable(browser, tmp_path):
    view = AttentionView(worlds.capture(6, 3, 4))
    made = view.pieces()[0]
    less = Module("attention", "attention", made.data, made.picks, None, lambda: view.carried(limit=5000))
    view.pieces = lambda: [less]  # type: ignore[method-assign]
    page, problems = _open(browser, write_page(view, tmp_path / "page.html"))
    page.get_by_role("button", name="purple").click()
    page.locator("select").first.select_option("2")
    page.wait_for_selector(".wb-note:not([hidden])")
    note = page.locator(".wb-note:not([hidden])").inner_text()
    assert "does not carry" in note and "mean over heads is shown" in note
    page.locator("select").first.select_option("0")
    page.wait_for_selector(".wb-note[hidden]", state="attached")
    assert "mean over heads" in page.locator(".wb-heading").inner_text() and not problems


@needs_browser
def test_of_several_views_the_picked_sample_is_shown(browser, tmp_path):
    one, two = AttentionView(worlds.capture(2)), AttentionView(worlds.capture(5, 2, 2, seed=3))
    data = {"choices": {"clip-1": one.export_data(), "clip-2": two.export_data()}, "empty": "Probe it first."}
    answers = one.carried("clip-1", 50_000) + two.carried("clip-2", 50_000)
    host = AttentionView(worlds.capture(1))
    host.pieces = lambda: [
        Module("attention", "attention", data, {"sample": "clip-9"}, None, lambda: answers)
    ]  # type: ignore[method-assign]
    page, problems = _open(browser, write_page(host, tmp_path / "page.html"))
    assert page.inner_text("#piece-attention") == "clip-9: Probe it first."
    host.pieces = lambda: [
        Module("attention", "attention", data, {"sample": "clip-2", "head": 1}, None, lambda: answers)
    ]  # type: ignore[method-assign]
    page, problems = _open(browser, write_page(host, tmp_path / "page.html"))
    page.wait_for_selector(".wb-heading:has-text('head 0')")
    assert page.locator(".wb-strip").get_attribute("aria-valuemax") == "5" and not problems


@needs_axe
def test_the_page_is_accessible_in_light_and_dark_and_no_wider_than_the_window(browser, path, tmp_path):
    wide = AttentionView(
        worlds.capture(40, 36, 32, tokens=["x" * 500, *["word"] * 80, "<ask>", "yes", "<end>"])
    )
    for page in (path, wide.to_html(tmp_path / "wide.html")):
        for scheme in ("light", "dark"):
            assert violations(browser, page, scheme) == []
