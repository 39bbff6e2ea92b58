"""What all views share: arrays as text, pages that stand alone, stills, links, and no binary message ever."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.browser import chromium, needs_browser
from tests.views.pages import opened
from tests.views.transport import assert_text_only, messages
from workbench.errors import WorkbenchError
from workbench.views import colours, stills
from workbench.views.base import View
from workbench.views.export import render
from workbench.views.payload import HIDDEN, STATE_LIMIT, pack, pack_map, text_of, unpack
from workbench.views.pieces import Link, Module, Plot

NASTY = "</script><img src=x onerror=alert(1)> ‮שלום"


class Small(View):
    """A plot of two points, the rows behind them, and what belongs to one row."""

    title = "Two points"

    def pieces(self):
        points = [{"point": "a"}, {"point": "b"}]
        figure = go.Figure(
            go.Scatter(x=np.array([1, 2]), y=[3, 4], mode="markers", marker={"size": 24}, customdata=points)
        )
        columns = [{"key": "q", "title": "Question"}, {"key": "n", "title": "n", "numeric": True}]
        rows = [
            {"point": p, "q": f"why {p}{i}? {NASTY}", "n": i, "pick": {"sample": f"{p}{i}"}}
            for p in "ab"
            for i in range(3)
        ]
        flips = {"caption": "{n} rows", "columns": columns, "rows": rows, "by": "point", "empty": "Click."}
        detail = [{"sample": row["pick"]["sample"], "q": "it is " + row["pick"]["sample"]} for row in rows]
        shown = {
            "caption": "chosen",
            "columns": columns[:1],
            "rows": detail,
            "by": "sample",
            "empty": "None.",
        }
        return [Plot("plane", figure), Module("flips", "table", flips), Module("shown", "table", shown)]

    def links(self):
        return [Link("plane", "point", "flips", "point"), Link("flips", "sample", "shown", "sample")]

    def data(self):
        return pd.DataFrame({"point": ["a", "b"], "note": [NASTY, "fine"]})

    def words(self):
        return f"Two points. {NASTY}"

    def caption(self):
        return "Ours; n = 2."

    def picture(self):
        figure = stills.figure()
        figure.subplots().plot([1, 2], [3, 4])
        return figure


@given(
    hnp.arrays(
        st.sampled_from([np.dtype(t) for t in ("u1", "<u2", "<i4", "<f4", ">f4")]),
        hnp.array_shapes(max_dims=4, max_side=5),
    )
)
def test_an_array_comes_back_from_its_text(array):
    packed = pack(array)
    assert json.loads(json.dumps(packed)) == packed
    assert np.array_equal(unpack(packed), array, equal_nan=array.dtype.kind == "f")


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=3, max_side=6),
        elements=st.floats(-1e6, 1e6, width=32) | st.just(float("nan")),
    )
)
def test_a_map_keeps_every_value_within_half_a_step_and_what_is_hidden_hidden(values):
    packed = pack_map(values)
    back = unpack(packed)
    assert np.array_equal(np.isnan(back), np.isnan(values))
    step = (packed["high"] - packed["low"]) / 254
    seen = np.isfinite(values)
    assert np.all(
        np.abs(back[seen] - values[seen]) <= step * 0.51 + 1e-3 * np.abs(values[seen]).max(initial=0) / 254
    )


def test_a_scale_given_is_kept_and_values_beyond_it_are_clipped():
    packed = pack_map(np.array([-2.0, 0.0, 0.5, np.nan]), low=0.0, high=1.0)
    assert (packed["low"], packed["high"]) == (0.0, 1.0)
    raw = unpack({key: packed[key] for key in ("bytes", "shape", "type")})
    assert raw.tolist() == [0, 0, 127, HIDDEN]


def test_what_is_no_json_does_not_travel():
    with pytest.raises(TypeError, match="bytes"):
        text_of({"picture": b"\x00"})
    with pytest.raises(ValueError, match="float64"):
        pack(np.zeros(3))
    assert text_of({"a": np.float32("nan"), "b": [np.int64(3)]}) == '{"a":null,"b":[3]}'


def test_the_scales_are_even_for_the_eye():
    import base64

    rgb = np.frombuffer(base64.b64decode(colours.tables()["sequential"]), np.uint8).reshape(256, 3)[:255]
    light = rgb @ np.array([0.2126, 0.7152, 0.0722])
    assert np.all(np.diff(light) > -1), "the sequential scale must rise in lightness"
    middle = np.frombuffer(base64.b64decode(colours.tables()["diverging"]), np.uint8).reshape(256, 3)[127]
    assert middle.min() > 230, "0 is the lightest colour of the diverging scale"


def test_a_still_carries_its_caption_and_is_the_same_each_time(tmp_path):
    one, two = Small().save(tmp_path / "a.svg"), Small().save(tmp_path / "b.svg")
    assert one.read_bytes() == two.read_bytes()
    assert "Ours; n = 2." in one.read_text() and "Two points" in one.read_text()
    assert Small().save(tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert Small().save(tmp_path / "sub" / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(WorkbenchError, match=r"a\.bmp.*svg"):
        Small().save(tmp_path / "a.bmp")


def test_a_page_holds_everything_as_text_and_asks_for_nothing():
    page = render(Small())
    assert page.count("</script>") == page.count("<script"), "a dataset's text ended a script"
    assert "default-src 'none'" in page and "https://cdn" not in page.split('id="workbench-page"')[0]
    assert NASTY not in page


@needs_browser
def test_a_page_opens_from_disk_without_network_and_its_links_work(tmp_path):
    path = Small().to_html(tmp_path / "page.html")
    with chromium() as browser:
        page, problems = opened(browser, path)
        assert page.inner_text("#piece-flips") == "Click."
        box = page.locator(".plotly .points path").nth(1).bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector("#piece-flips table")
        assert page.locator("#piece-flips tbody tr").count() == 3
        page.locator("#piece-flips tbody button").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_selector("#piece-shown table")
        assert "it is b1" in page.inner_text("#piece-shown")
        assert page.locator("img[src=x]").count() == 0, "a dataset's text became markup"
    assert not problems


@needs_browser
def test_where_scripts_do_not_run_the_still_and_the_words_are_there(tmp_path):
    path = Small().to_html(tmp_path / "page.html")
    with chromium() as browser:
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto(path.as_uri())
        still = page.locator(".wb-static img")
        assert still.get_attribute("alt").startswith("Two points.")
        assert still.evaluate("image => image.naturalWidth") > 300
        assert "Ours; n = 2." in page.inner_text("body")


def test_in_a_notebook_a_view_links_its_widgets_and_answers_in_json():
    view = Small()
    shown = view.shown
    plot = shown.widgets["plane"]
    plot.pick(point="b")
    assert shown.widgets["flips"].picks["point"] == "b"
    shown.widgets["flips"].pick(sample="b2")
    assert shown.widgets["shown"].picks["sample"] == "b2"
    bundle, _ = view._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"} <= bundle.keys()


def test_questions_from_the_browser_are_answered_and_errors_are_told(monkeypatch):
    from workbench.views.widget import widget_class

    def answer(question):
        if question["head"] > 3:
            raise WorkbenchError("show head 9", "there are 4", "choose another")
        return {"row": np.arange(3)}

    piece = Module("m", "table", {"caption": "", "columns": [], "rows": [], "empty": ""}, answer=answer)
    widget = widget_class("table")(piece)
    sent = []
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: sent.append((content, buffers)))
    widget._asked(widget, {"asks": "1", "question": {"head": 1}}, [])
    widget._asked(widget, {"asks": "2", "question": {"head": 9}}, [])
    assert sent == [
        ({"answers": "1", "answer": {"row": [0, 1, 2]}}, None),
        ({"answers": "2", "error": "cannot show head 9: there are 4. choose another."}, None),
    ]


def test_a_state_too_large_to_keep_is_refused():
    from workbench.views.widget import widget_class

    piece = Module("big", "table", {"caption": "x" * (STATE_LIMIT + 1)})
    with pytest.raises(WorkbenchError, match="Show fewer"):
        widget_class("table")(piece)


def test_no_widget_of_a_view_sends_bytes_though_a_figure_holds_numpy():
    assert_text_only(Small().widget)


def test_the_transport_check_can_fail():
    raw = go.FigureWidget(go.Scatter(y=np.arange(5.0)))
    assert any(buffers for _, _, buffers in messages(raw))
