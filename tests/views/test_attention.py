"""The attention view in Python: numbers against slow ways to them, what travels, and captures that do not fit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.views import attention_worlds as worlds
from tests.views.transport import assert_text_only
from workbench.captures import Capture
from workbench.captures.rows import rows_of
from workbench.errors import WorkbenchError
from workbench.probes.boxes import Box
from workbench.probes.scatter import scatter_numbers, scatter_table
from workbench.probes.sinks import find_sinks
from workbench.views.attention import AttentionView
from workbench.views.attention_payload import HEADS_LIMIT, from_root, root_bytes
from workbench.views.attention_reading import KEYS, Reading
from workbench.views.attention_text import readable
from workbench.views.film import sheet, strip_of
from workbench.views.payload import size_of, unpack

BOX = Box(8, 8, 24, 16, 1, 2)


@pytest.mark.parametrize("store", ["float32", "float16", "uint8", "topk"])
def test_statistics_are_those_of_the_probes(store):
    capture = worlds.capture(5, 2, 3, store=store, sink=6, seed=4)
    reading = Reading(capture, [BOX])
    table = scatter_table(capture, [BOX]).set_index(["layer", "head", "query"])
    sinks = find_sinks(capture)
    rows = rows_of(capture.arrays)
    mean = scatter_numbers(rows.mean(1), capture.token_map, [BOX])
    for query, position in enumerate(capture.arrays["queries"]):
        found = reading.query(query)
        for layer in range(2):
            for head in range(3):
                numbers = dict(zip(KEYS, found.statistics[:, layer, 1 + head], strict=True))
                expected = table.loc[(layer, head, position)]
                for key in ("visual_mass", "entropy", "top1", "box_mass"):
                    assert numbers[key] == pytest.approx(expected[key], abs=2e-5), key
                assert numbers["sink_mass"] == pytest.approx(sinks.hidden_mass[layer, head, query], abs=1e-6)
                visual = rows[layer, head, query, :20]
                frames = [visual[4 * i : 4 * i + 4].sum() for i in range(5)]
                assert numbers["frame_peak"] == pytest.approx(max(frames) / sum(frames), abs=1e-5)
            average = dict(zip(KEYS, found.statistics[:, layer, 0], strict=True))
            for key in ("visual_mass", "entropy", "top1", "box_mass"):
                assert average[key] == pytest.approx(mean[key][layer, query], abs=2e-5), key
            visual = rows[layer, :, query, :20].mean(0)
            np.testing.assert_allclose(found.frames[layer], visual.reshape(5, 4).sum(1), rtol=1e-5)
            assert found.top[0, layer, 0] == visual.max()
            assert found.top[1, layer, 0] == np.delete(visual, 6).max(), "without the sink"
    assert sinks.tokens[:, 6].all() and sinks.tokens.sum() == 2


def test_tokens_that_are_not_visible_are_no_zeros():
    capture = worlds.capture(3, 1, 2)
    rows = capture.arrays["rows"].copy()
    rows[:, :, :, 2:5] = np.nan
    hidden = Capture(capture.kind, dict(capture.arrays) | {"rows": rows}, capture.meta)
    reading = Reading(hidden, [Box(0, 0, 16, 16)])
    found = reading.query(0)
    expected = scatter_numbers(rows[0, :, 0], capture.token_map, [Box(0, 0, 16, 16)])
    for key in ("visual_mass", "entropy", "top1", "box_mass"):
        np.testing.assert_allclose(found.statistics[KEYS.index(key), 0, 1:], expected[key], atol=2e-5)
    assert reading.chance(reading.inside, 0) == pytest.approx(expected["box_share"][0])
    bundle = unpack(AttentionView(hidden).answer({"query": 0})["after"]["maps"])
    assert (bundle[0] == 255).tolist() == [2 <= i < 5 for i in range(12)]


@settings(max_examples=40)
@given(hnp.arrays(np.float32, (3, 9), elements=st.one_of(st.floats(0, 1, width=32), st.just(float("nan")))))
def test_a_byte_of_a_map_is_within_half_a_step_of_its_square_root(values):
    coded, high = root_bytes(values)
    back = from_root(coded, high)
    assert np.array_equal(np.isnan(back), np.isnan(values))
    seen = np.isfinite(values)
    apart = np.abs(np.sqrt(back) - np.sqrt(values))[seen]
    limit = np.broadcast_to(np.sqrt(high)[:, None], values.shape)[seen] / 254 * 0.51 + 1e-6
    assert np.all(apart <= limit)
    assert np.all(
        np.abs(back - values)[seen] <= 0.0041 * np.broadcast_to(high[:, None], values.shape)[seen] + 1e-9
    )


def test_strips_know_merged_patches_and_averaged_frames():
    places = worlds.token_map(8, pool=2)
    strip = strip_of(places)
    assert strip.spans == ((0, 2), (2, 4), (4, 6), (6, 8)) and strip.names[1] == "frames 3 to 4 of 8"
    assert strip.times == (0.25, 1.25, 2.25, 3.25)
    assert strip.cells.shape == (4, 2, 2) and strip.cells.ravel().tolist() == list(range(16))
    assert strip.frame_of.tolist() == np.repeat(range(4), 4).tolist()
    values = np.arange(32.0).reshape(2, 16)
    np.testing.assert_allclose(strip.sums(values), values.reshape(2, 4, 4).sum(-1))


def test_a_single_head_a_query_and_a_drawn_box_are_answered_from_the_file(tmp_path):
    capture = worlds.capture(4, 3, 5, store="uint8", path=tmp_path / "rows.safetensors")
    view = AttentionView(capture, worlds.capture(4, 3, 5, seed=9, name="before"))
    rows = rows_of(capture.arrays)
    answer = view.answer({"sample": None, "query": 2, "layer": 1, "head": 4})
    assert set(answer) == {"after", "before"}
    back = from_root(unpack(answer["after"]["map"]), np.float32(answer["after"]["high"]))
    np.testing.assert_allclose(back, rows[1, 3, 2, :16], atol=0.0041 * rows[1, 3, 2, :16].max())
    np.testing.assert_allclose(answer["after"]["frames"], rows[1, 3, 2, :16].reshape(4, 4).sum(1), rtol=1e-5)
    boxed = unpack(view.answer({"sample": None, "query": 2, "box": [0, 0, 16, 32]})["after"])
    left = rows[..., 2, :16].reshape(3, 5, 4, 2, 2)[..., 0].sum((-1, -2)) / rows[..., 2, :16].sum(-1)
    np.testing.assert_allclose(boxed[:, 1:], left, rtol=1e-4)
    other = view.answer({"query": 5})
    gap = np.abs(rows[:, :, 5, :16] - rows_of(view.sides["before"].capture.arrays)[:, :, 5, :16]).max(-1)
    np.testing.assert_allclose(unpack(other["gap"])[0][:, 1:], gap, rtol=1e-5)
    for wrong in ({"query": 99}, {"query": 0, "box": [0, 0, 99, 4]}, {"query": 0, "box": [4, 4, 4, 9]}):
        with pytest.raises(WorkbenchError):
            view.answer(wrong)


def test_the_largest_case_fits_a_notebook_and_a_page_keeps_its_budget():
    capture = worlds.capture(64, 36, 32, rows=8, cols=8, store="float16")
    view = AttentionView(capture)
    data = view.export_data()
    assert size_of(data) <= 2_000_000 and str(view.picks["query"]) in data["queries"]
    maps = unpack(data["queries"][str(view.picks["query"])]["after"]["maps"])
    assert maps.shape == (36, 1024)
    carried = view.carried()
    heads = [pair for pair in carried if "head" in pair[0]]
    size = sum(size_of(list(pair)) for pair in heads)
    assert 0.6 * HEADS_LIMIT < size <= HEADS_LIMIT
    assert heads[0][0] == {"sample": None, "query": view.picks["query"], "layer": 18, "head": 1}
    assert len(view.carried("clip-1", 0)) == 1 and view.carried("clip-1", 0)[0][0]["sample"] == "clip-1"


def test_with_less_room_the_picked_query_comes_first_and_the_page_says_what_it_has():
    view = AttentionView(worlds.capture(16, 4, 4)).pick(query=3)
    everything = view.export_data()
    assert (
        len(everything["queries"]) == 11
        and everything["page"] == "An exported page carries every single head."
    )
    one = size_of({"3": everything["queries"]["3"]})
    rest = size_of(everything) - sum(size_of({q: b}) for q, b in everything["queries"].items())
    less = view.export_data(limit=rest + 2 * one + 40)
    assert list(less["queries"]) == ["3", "9"], "the answer's token comes second"
    assert size_of(less) <= rest + 2 * one + 40
    assert view.answer({"query": 0})["after"] == everything["queries"]["0"]["after"]


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (worlds.capture(4, layers=2), "layers"),
        (worlds.capture(4, heads=2), "heads"),
        (worlds.capture(8), "frames: 8"),
        (worlds.capture(4, queries="answer"), "other positions"),
        (worlds.capture(4, tokens=[*"abc", "<ask>", "red", "<end>"]), "question"),
        (worlds.capture(4, rows=8), "tokens lie elsewhere"),
        (Capture("temporal_atlas", {}, {}), "temporal_atlas"),
    ],
)
def test_a_before_that_cannot_be_compared_is_left_out_and_the_view_says_why(before, said):
    view = AttentionView(worlds.capture(4), before)
    assert list(view.sides) == ["after"]
    (note,) = view.export_data()["notes"]
    assert "left out" in note and said in note and note in view.words()
    with pytest.raises(WorkbenchError, match="difference"):
        view.pick(side="difference")


def test_another_kind_of_capture_is_refused_and_picks_are_checked():
    with pytest.raises(WorkbenchError, match=r"temporal_atlas.*probe attention"):
        AttentionView(Capture("temporal_atlas", {}, {}))
    view = AttentionView(worlds.capture(2))
    for wrong in ({"layer": 3}, {"query": -1}, {"frame": 2}, {"colour": 1}):
        with pytest.raises(WorkbenchError):
            view.pick(**wrong)
    with pytest.raises(WorkbenchError, match="frames are 32 x 32"):
        AttentionView(worlds.capture(2), box=(0, 0, 99, 99))


def test_words_table_and_caption_say_the_same_as_the_rows():
    capture = worlds.capture(4, 3, 2)
    view = AttentionView(capture, worlds.capture(4, 3, 2, seed=1, name="earlier"), box=BOX).pick(
        query=9, layer=2
    )
    row = rows_of(capture.arrays)[2, :, 9, :16].mean(0)
    table = view.data()
    mine = table[
        (table.side == "after") & (table.position == 25) & (table.layer == 2) & (table["head"] == "mean")
    ]
    np.testing.assert_allclose(
        mine[mine.frame.notna()].mass.astype(float), row.reshape(4, 4).sum(1), rtol=1e-5
    )
    assert mine[mine.frame.isna()].visual_mass.item() == pytest.approx(row.sum(), rel=1e-5)
    assert set(table.token) == set(worlds.WORDS) | {"<ask>", "purple", "<end>"}
    assert len(table) == 2 * 11 * (3 * 4 + 3 * 3)
    assert f"{row.sum():.1%} of its attention to the 4 frames" in view.words()
    assert "“purple”" in view.words() and "not estimates" in view.words()
    assert (
        "checkpoint after" in view.caption() and "Before: " in view.caption() and "earlier" in view.caption()
    )


MEANS = {"mean": True, "queries": "answer"}


@pytest.mark.parametrize(
    "view",
    [
        AttentionView(worlds.capture(1, 1, 1)),
        AttentionView(worlds.capture(256, 2, 2, **MEANS), worlds.capture(256, 2, 2, **MEANS, seed=1)),
        AttentionView(worlds.capture(3, with_pictures=False, tokens=["א" * 400, "<b>", "<ask>", "תשובה", "<end>"])),
        AttentionView(worlds.capture(0)),
    ],
    ids=["one frame", "256 frames, means", "no pictures, a long token", "no frames"],
)  # fmt: skip
def test_odd_captures_are_shown_saved_and_sent_as_text(view, tmp_path):
    assert view.save(tmp_path / "a.svg").stat().st_size > 2000
    assert view.to_html(tmp_path / "a.html").stat().st_size > 10_000
    assert assert_text_only(view.widget) < 2_100_000
    assert len(view.title) < 120 and view.words()


def test_without_enough_queries_sinks_are_not_guessed():
    data = AttentionView(worlds.capture(2, queries="answer")).export_data()
    assert "capture queries" in data["sinks"]["after"]["why"]
    assert np.isnan(
        unpack(next(iter(data["queries"].values()))["after"]["statistics"])[KEYS.index("sink_mass")]
    ).all()


def test_pictures_become_one_image_that_is_small_enough():
    from io import BytesIO

    from PIL import Image

    few = worlds.pictures(5, 20, 30)
    made = sheet(few)
    import base64

    kind, text = made["src"].split(",")
    assert kind == "data:image/png;base64"
    image = np.asarray(Image.open(BytesIO(base64.b64decode(text))))
    for i, picture in enumerate(few):
        x, y = i % made["columns"] * 30, i // made["columns"] * 20
        np.testing.assert_array_equal(image[y : y + 20, x : x + 30], picture)
    noise = np.random.default_rng(0).integers(0, 256, (64, 90, 160, 3), np.uint8)
    large = sheet(noise)
    assert large["src"].startswith("data:image/jpeg") and len(large["src"]) <= 500_000
    assert sheet(None) is None and sheet(few[:0]) is None


def test_stand_ins_of_bytes_and_spaces_are_read():
    # " של" as GPT-2's byte-level vocabulary writes it: U+0100 + 32 for the space, D7 A9 and D7 9C as letters
    word = "Ġ×©×ľ"
    assert readable(["Ġthe", word, word[1:2], "<|im_end|>"]) == [" the", " של", "×", "<|im_end|>"]
    assert readable(["▁the", "é"]) == [" the", "é"]


def test_a_view_of_a_file_needs_no_torch(tmp_path):
    worlds.capture(2, path=tmp_path / "rows.safetensors")
    code = """
import sys
from workbench.captures import Capture
from workbench.views.attention import AttentionView
view = AttentionView(Capture.load(sys.argv[1] + "/rows.safetensors"), box=(0, 0, 8, 8))
view.to_html(sys.argv[1] + "/page.html")
print("torch" in sys.modules, "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr
