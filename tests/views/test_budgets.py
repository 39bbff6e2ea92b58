"""Sizes and speeds of the views, as ``benchmarks/views.py`` measures them; times here only against what is plainly wrong."""

from __future__ import annotations

import statistics

import pytest

from benchmarks import views as bench
from benchmarks.lib import pages
from tests.browser import chromium, needs_browser
from workbench.views.attention import AttentionView
from workbench.views.payload import STATE_LIMIT


def test_no_bundle_is_larger_than_a_view_may_be():
    sizes = bench.bundle_sizes()
    assert {"attention.js", "atlas.js", "effects.js", "page.js"} <= sizes.keys()
    assert max(sizes.values()) <= bench.BUNDLE == 61_440, sizes


def test_no_view_of_a_capture_keeps_more_than_a_notebook_bears():
    """On the largest realistic inputs; and what is measured there is not nothing."""
    sizes = {name: bench.state_bytes(view) for name, view in bench.made_up_views()}
    assert len(sizes) >= 6 and min(sizes.values()) > 100_000
    assert max(sizes.values()) <= STATE_LIMIT == 2_000_000, sizes


def test_a_budget_that_is_not_met_is_named(capsys):
    budgets = bench.Budgets()
    budgets.hold("a size", 10, 10, "10 bytes")
    budgets.hold("a rate", 49.9, bench.SCRUB, "slow", at_least=True)
    budgets.hold("a time", 301.0, bench.PAINT_MS, "late")
    assert budgets.missed == ["a rate", "a time"]
    assert capsys.readouterr().out.count("MISSED") == 2


@needs_browser
def test_the_attention_view_paints_and_scrubs_at_a_usable_speed(tmp_path):
    """Ten times the budget: cores may be shared here. The benchmark holds the budget itself."""
    page = AttentionView(bench.attention_capture()).to_html(tmp_path / "page.html")
    tokens = bench.FRAMES * bench.SIDE**2
    with chromium() as browser:
        times = pages.paint_ms(browser, page, pages.OURS % tokens, 3)
        rates = pages.scrub(browser, page, tokens, bench.FRAMES, bench.LAYERS)
    assert statistics.median(times) < 10 * bench.PAINT_MS, times
    assert rates.keys() == {"frames", "layers"}
    for rate in rates.values():
        assert rate["rate"] > bench.SCRUB / 10 and rate["cost"] < 10 * 1000 / bench.SCRUB, rates


@needs_browser
def test_a_page_that_paints_no_map_is_not_taken_for_a_fast_one(tmp_path, monkeypatch):
    page = tmp_path / "empty.html"
    page.write_text("<!doctype html><p>nothing")
    with chromium() as browser, pytest.raises(TimeoutError, match="painted no map"):
        monkeypatch.setattr(pages, "PATIENCE_S", 0.5)
        pages.opened(browser, page, pages.OURS % 10)
