"""AtlasView: the numbers of the capture, averaged as said, beside uniform attention; used by keys; honest about what it lacks."""

from __future__ import annotations

import numpy as np
import pytest

from tests.browser import chromium, needs_browser
from tests.probes.attention_worlds import world
from tests.views import attention_worlds, effect_worlds
from tests.views.axe import needs_axe, violations
from tests.views.pages import opened
from tests.views.transport import assert_text_only
from workbench.captures import Capture
from workbench.errors import WorkbenchError
from workbench.probes.atlas import temporal_atlas
from workbench.probes.attention import Look
from workbench.probes.common import Checkpoint
from workbench.views.atlas import AtlasView
from workbench.views.atlas_data import MOST_TOKENS, read_atlas, shown_text
from workbench.views.payload import STATE_LIMIT, jsonable, size_of, unpack

NASTY = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def real():
    """(model, processor, sample, clip, atlas) of a tiny model."""
    model, processor, sample, clip = world("tempflex")
    given = (model, processor, sample(5), clip(5))
    return *given, temporal_atlas(*given, look=Look(checkpoint=Checkpoint("now", 7, "ab" * 32)))


def state(view: AtlasView) -> dict:
    return jsonable(view.pieces()[0].data)


def test_rows_and_averages_are_those_of_the_capture(real):
    *_, capture = real
    atlas = read_atlas(capture)
    mass, between = capture.arrays["mass"], capture.arrays["segment_mass"]
    segments = len(capture.meta["segments"])
    tokens = capture.token_map
    for r, row in enumerate(atlas.rows):
        if r < segments:
            expected = between[:, :, r]
            assert row.queries == capture.arrays["sizes"][r]
        else:
            assert tokens.kind[row.position] not in (3, 4), "visual positions are in their frame's mean"
            expected = mass[:, :, capture.arrays["queries"].tolist().index(row.position)]
            assert capture.meta["tokens"][row.position].strip("Ġ▁") in row.name
        for s in range(segments):
            seen = [float(v) for v in expected[..., s].ravel() if v == v]
            slow = sum(seen) / len(seen) if seen else float("nan")
            assert atlas.mean()[r, s] == pytest.approx(slow, rel=1e-5, nan_ok=True)
            of_layer = [float(v) for v in expected[1, :, s] if v == v]
            slow = sum(of_layer) / len(of_layer) if of_layer else float("nan")
            assert atlas.mean(1)[r, s] == pytest.approx(slow, rel=1e-5, nan_ok=True)
            assert atlas.mean(1, 2)[r, s] == pytest.approx(float(expected[1, 2, s]), nan_ok=True)


def test_uniform_attention_is_the_share_of_the_tokens_that_can_be_seen(real):
    """Counted position by position; and a model that attends uniformly would show exactly that."""
    *_, capture = real
    atlas, tokens = read_atlas(capture), capture.token_map
    kinds = [s["kind"] for s in atlas.segments]
    of = [
        next(
            s
            for s, segment in enumerate(atlas.segments)
            if (segment["kind"] == "frames" and tokens.frame_span[p].tolist() == segment["span"])
            or (tokens.frame_span[p][0] < 0 and segment["kind"] == tokens_kind(tokens, p))
        )
        for p in range(len(tokens))
    ]
    for r, row in enumerate(atlas.rows):
        mine = [row.position] if row.position is not None else [p for p in range(len(tokens)) if of[p] == r]
        for s in range(len(kinds)):
            shares = []
            for p in mine:
                count = sum(of[q] == s for q in range(p + 1))
                if count:
                    shares.append(count / (p + 1))
            slow = sum(shares) / len(shares) if shares else float("nan")
            assert atlas.uniform[r, s] == pytest.approx(slow, nan_ok=True)
    np.testing.assert_array_equal(np.bincount(of), capture.arrays["sizes"])


def tokens_kind(tokens, position):
    from workbench.models.tokenmap import KINDS

    return KINDS[tokens.kind[position]]


def test_what_the_browser_gets_is_what_the_capture_holds_within_half_a_step():
    after, before = effect_worlds.atlas(seed=1), effect_worlds.atlas(seed=2, name="before")
    view = AtlasView(after, before)
    maps = state(view)["maps"]
    assert len(maps) == (1 + 3) * (1 + 4), "small captures carry every layer and head"
    for key, place in (
        ("mean/mean", (None, None)),
        ("1/mean", (1, None)),
        ("mean/3", (None, 3)),
        ("2/0", (2, 0)),
    ):
        now, then = view.after.mean(*place), view.before.mean(*place)
        top = maps[key]["after"]["high"]
        for name, expected in (("after", now), ("before", then)):
            shown = unpack(maps[key][name])
            assert np.array_equal(np.isnan(shown), np.isnan(expected))
            np.testing.assert_allclose(shown, np.clip(expected, 0, top), atol=top / 254 * 0.51)
        end = maps[key]["change"]["high"]
        assert maps[key]["change"]["low"] == -end, "a difference is centred at 0"
        np.testing.assert_allclose(
            unpack(maps[key]["change"]), np.clip(now - then, -end, end), atol=end / 127 * 0.51
        )
    kinds = unpack(maps["mean/mean"]["kinds"])
    frames = [s for s, segment in enumerate(view.after.segments) if segment["kind"] == "frames"]
    k = view.kinds.index("frames")
    row = view.after.mean()[7]
    assert kinds[0, 7, k] == pytest.approx(sum(float(v) for v in row[frames] if v == v), rel=1e-5)


def test_one_scale_for_all_layers_and_for_all_heads_that_are_averaged_alike():
    view = AtlasView(effect_worlds.atlas(seed=1), effect_worlds.atlas(seed=2, name="before"))
    maps = state(view)["maps"]
    for fixed, many in (("{}/mean", 3), ("mean/{}", 4)):
        assert len({maps[fixed.format(i)]["after"]["high"] for i in range(many)}) == 1
    frames = view.after.frames
    text = [r for r, row in enumerate(view.after.rows) if row.kind != "frames"]
    largest = max(np.nanmax(a.values[..., text, :][..., frames]) for a in (view.after, view.before))
    assert maps["0/0"]["after"]["high"] == pytest.approx(largest)


def test_words_name_the_frame_that_gets_most():
    capture = effect_worlds.atlas(frames=5, seed=4)
    kinds = [s["kind"] for s in capture.meta["segments"]]
    mass = capture.arrays["segment_mass"][:, :, kinds.index("answer"), :5].mean((0, 1))
    best = int(mass.argmax())
    words = AtlasView(capture).words()
    assert f"Most goes to frame {best + 1} of 5 {mass[best]:.1%}" in words
    assert f"gives the frames {mass.sum():.1%}" in words
    assert "uniform" in words
    table = AtlasView(capture).data()
    row = table[(table["looks"] == "answer") & (table["segment"] == f"frame {best + 1} of 5")]
    assert row["mass"].item() == pytest.approx(mass[best], rel=1e-5)


def changed(**change):
    """An atlas of something else; ``change`` alters its metadata."""
    capture = effect_worlds.atlas(seed=2, name="before")
    return Capture(capture.kind, capture.arrays, capture.meta | change)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (changed(sample={"id": "clip-9", "question": "who?", "answer": "me", "turn": 0}), "sample clip-9"),
        (changed(frames={"indices": [0, 2], "timestamps": [0.0, 1.0]}), "2 frames (0, 2)"),
        (changed(model={"type": "other", "text": {"hidden_size": 8}}), "another model (other"),
        (effect_worlds.atlas(seed=2, heads=8), "another model"),
        (changed(layers=[0, 1, 5]), "layers [0, 1, 5]"),
        (attention_worlds.capture(frames=5), "'attention_rows', not an atlas"),
        (effect_worlds.atlas(seed=2, frames=7), "7 frames"),
    ],
)
def test_what_cannot_be_compared_is_named_and_the_view_stays(other, said):
    view = AtlasView(effect_worlds.atlas(seed=1), other)
    assert view.before is None and len(view.notes) == 1
    assert view.notes[0].startswith("Not compared with") and said in view.notes[0]
    assert said in view.words() and state(view)["names"]["before"] is None


def test_another_kind_of_capture_is_refused():
    with pytest.raises(WorkbenchError, match=r"attention_rows.*workbench probe atlas"):
        AtlasView(attention_worlds.capture())


@pytest.mark.parametrize(
    "capture",
    [
        effect_worlds.atlas(frames=1),
        effect_worlds.atlas(frames=4, pool=2),
        effect_worlds.atlas(with_pictures=False),
        effect_worlds.atlas(mean=True),
        effect_worlds.atlas(tokens=["‏שלום", "x" * 500, NASTY, "<ask>", "a\nb", "<end>"]),
    ],
    ids=["one frame", "frames merged", "no pictures", "mean over heads", "odd tokens"],
)
def test_odd_captures_are_shown(capture, tmp_path):
    view = AtlasView(capture)
    page = view.to_html(tmp_path / "page.html").read_text()
    assert NASTY not in page and page.count("</script>") == page.count("<script")
    assert view.save(tmp_path / "still.svg").stat().st_size > 1000
    assert ("keeps no pictures" in page) == ("pictures" not in capture.arrays)


def test_text_alone_is_shown_too(real, tmp_path):
    model, processor, *_ = real
    _, _, sample, _ = world("tempflex")
    view = AtlasView(temporal_atlas(model, processor, sample(0), None))
    assert "no frames" in view.words()
    view.to_html(tmp_path / "page.html")
    view.save(tmp_path / "still.png")


def test_many_tokens_are_cut_openly():
    texts = [f"w{i}" for i in range(MOST_TOKENS + 20)]
    view = AtlasView(
        effect_worlds.atlas(frames=2, layers=1, heads=1, tokens=[*texts, "<ask>", "purple", "<end>"])
    )
    assert "23 before them" in view.words()
    assert len(view.after.rows) == MOST_TOKENS + len(view.after.segments)
    assert len(shown_text("y" * 99)) == 40


def test_the_largest_atlas_keeps_a_state_that_a_notebook_bears_and_answers_for_the_rest():
    shape = {"frames": 256, "layers": 4, "heads": 8, "rows": 2, "cols": 2}
    view = AtlasView(effect_worlds.atlas(**shape), effect_worlds.atlas(**shape, seed=1, name="before"))
    kept = state(view)
    assert size_of(kept) <= STATE_LIMIT
    assert "mean/mean" in kept["maps"] and "3/7" not in kept["maps"]
    answer = view.pieces()[0].answer({"layer": "3", "head": "7"})
    top = answer["after"]["high"]
    np.testing.assert_allclose(
        unpack(answer["after"]), np.clip(view.after.values[3, 7], 0, top), atol=top / 254 * 0.51
    )


def test_in_a_notebook_it_sends_text_only():
    view = AtlasView(effect_worlds.atlas(seed=1), effect_worlds.atlas(seed=2, name="before"))
    assert 10_000 < assert_text_only(view.widget) < STATE_LIMIT
    bundle, _ = view._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"} <= bundle.keys()


@needs_browser
def test_a_page_is_read_by_keyboard_and_its_numbers_are_the_capture_s(tmp_path):
    after, before = effect_worlds.atlas(seed=1), effect_worlds.atlas(seed=2, name="before")
    view = AtlasView(after, before)
    path = view.to_html(tmp_path / "page.html")
    with chromium() as browser:
        page, problems = opened(browser, path)
        page.get_by_label("Rows").select_option("segments")
        page.get_by_label("Layer").select_option("1")
        page.get_by_label("Head").select_option("2")
        page.get_by_label("Show").select_option("after")
        page.locator("canvas[role=application]").first.focus()
        for key in ("Home", "ArrowRight", "ArrowRight", *["ArrowDown"] * 5):
            page.keyboard.press(key)
        said = page.locator("p.wb-said[aria-live]").first.inner_text()
        now, then = view.after.values[1, 2, 5, 2], view.before.values[1, 2, 5, 2]
        assert said.startswith("question (mean of 8) looks at frame 3 of 5 at 1 s".replace("1 s", "1.00 s"))
        percents = [float(part.split(" %")[0].split()[-1]) for part in said.split(",")[:1]]
        assert percents[0] == pytest.approx(100 * float(then), abs=0.6), said
        assert f"{percents[0]:g} % before" in said and "% after" in said
        assert abs(float(said.split(" % after")[0].split()[-1]) - 100 * float(now)) < 0.6
        before_pixels = page.locator("canvas[role=application]").first.evaluate("c => c.toDataURL()")
        page.get_by_label("Show").select_option("change")
        assert page.locator("canvas[role=application]").first.evaluate("c => c.toDataURL()") != before_pixels
        assert page.locator("table").first.locator("tbody tr").count() == len(view.kinds)
    assert not problems


@needs_axe
def test_an_exported_page_has_no_serious_violation(tmp_path):
    capture = effect_worlds.atlas(frames=64, layers=2, heads=2)
    path = AtlasView(capture, effect_worlds.atlas(frames=64, layers=2, heads=2, seed=1, name="b")).to_html(
        tmp_path / "page.html"
    )
    with chromium() as browser:
        for scheme in ("light", "dark"):
            assert violations(browser, path, scheme) == []
