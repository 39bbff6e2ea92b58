"""Scatter numbers, boxes and sinks against loops and against what their names promise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.probes.attention_worlds import world
from workbench.captures import Capture
from workbench.errors import DataError
from workbench.models.tokenmap import QUESTION, VISUAL, TokenMap
from workbench.probes.attention import attention_rows
from workbench.probes.boxes import Box, ground_truth, inside
from workbench.probes.common import ProbeError
from workbench.probes.scatter import paired_scatter, scatter_by_sample, scatter_numbers, scatter_table
from workbench.probes.sinks import find_sinks, without_sinks
from workbench.samples.sample import ImageRef, Sample, Turn, VideoRef


def square_map(frames: int, side: int, pixels: int = 8, text: int = 2) -> TokenMap:
    """``frames`` frames of side x side tokens, one patch each, then ``text`` positions."""
    n = frames * side * side
    index = np.arange(n)
    r, c = index % side**2 // side, index % side
    boxes = np.stack([c, r, c + 1, r + 1], 1) * pixels
    frame = index // side**2
    pad = lambda a, width: np.concatenate([a, np.full((text, width), -1)])  # noqa: E731
    return TokenMap(
        np.array([VISUAL] * n + [QUESTION] * text, dtype=np.uint8),
        np.zeros(n + text, dtype=np.int16),
        pad(np.stack([frame, frame + 1], 1), 2),
        pad(np.stack([index % side**2] + [np.full(n, -1)] * 3, 1), 4),
        pad(boxes, 4).astype(np.float32),
        tuple(range(0, 2 * frames, 2)),
        tuple(0.5 * i for i in range(frames)),
        (frames, side, side),
        (side * pixels, side * pixels),
    )


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(1, 3), side=st.integers(1, 4), data=st.data())
def test_numbers_equal_loops(frames, side, data):
    token_map = square_map(frames, side)
    n = frames * side**2
    weight = st.floats(0, 1).map(lambda x: x if x > 1e-3 else 0.0)
    row = np.array([*data.draw(st.lists(weight | st.just(math.nan), min_size=n, max_size=n)), 0.5, math.nan])
    boxes = [Box(0, 0, 8, 8), Box(4, 0, 8 * side, 4)]
    got = scatter_numbers(row, token_map, boxes)
    seen = [i for i in range(n) if not math.isnan(row[i])]
    total = sum(row[i] for i in seen)
    if not seen:
        assert math.isnan(got["visual_mass"])
        return
    assert got["visual_mass"] == pytest.approx(total)
    if total == 0:
        assert all(math.isnan(got[name]) for name in ("gini", "top1", "border_mass", "spread", "box_mass"))
        return
    p = {i: row[i] / total for i in seen}
    if len(seen) > 1:
        entropy = -sum(x * math.log(x) for x in p.values() if x > 0) / math.log(len(seen))
        assert got["entropy"] == pytest.approx(entropy, abs=1e-9)
    gini = sum(abs(a - b) for a in p.values() for b in p.values()) / (2 * len(seen))
    assert got["gini"] == pytest.approx(gini, abs=1e-9)
    largest = sorted(p.values(), reverse=True)[: math.ceil(len(seen) / 100)]
    assert got["top1"] == pytest.approx(sum(largest))
    place = {i: (i % side**2 // side, i % side) for i in seen}
    border = sum(x for i, x in p.items() if {0, side - 1} & set(place[i]))
    assert got["border_mass"] == pytest.approx(border)
    squares = 0.0
    for f in range(frames):
        mine = [i for i in seen if i // side**2 == f]
        mass = sum(p[i] for i in mine)
        if mass:
            middle = [sum(p[i] * place[i][axis] for i in mine) / mass for axis in (0, 1)]
            squares += sum(p[i] * sum((place[i][a] - middle[a]) ** 2 for a in (0, 1)) for i in mine)
    assert got["spread"] == pytest.approx(math.sqrt(squares), abs=1e-6)
    pixels = np.zeros((8 * side, 8 * side), dtype=bool)
    pixels[:8, :8] = pixels[:4, 4:] = True
    share = {i: pixels[8 * r : 8 * r + 8, 8 * c : 8 * c + 8].mean() for i, (r, c) in place.items()}
    assert got["box_mass"] == pytest.approx(sum(p[i] * share[i] for i in seen))
    assert got["box_share"] == pytest.approx(np.mean(list(share.values())))


def test_extremes():
    token_map = square_map(2, 10)
    uniform = np.append(np.full(200, 1 / 400), [0.5, np.nan])
    one = np.append(np.eye(200)[55], [0.0, np.nan])
    a, b = scatter_numbers(uniform, token_map), scatter_numbers(one, token_map)
    assert (
        a["entropy"] == pytest.approx(1)
        and a["gini"] == pytest.approx(0)
        and a["visual_mass"] == pytest.approx(0.5)
    )
    assert a["top1"] == pytest.approx(0.01) and a["border_mass"] == pytest.approx(0.36)
    assert b["entropy"] == pytest.approx(0) and b["gini"] == pytest.approx(199 / 200) and b["top1"] == 1
    assert b["spread"] == pytest.approx(0) and b["border_mass"] == 0


def test_boxes_follow_frames_and_strips_that_wrap():
    token_map = square_map(3, 2)  # frames 0, 2, 4 of the source
    share = inside(token_map, token_map.visual, [Box(0, 0, 8, 8, 2, 3), Box(8, 8, 12, 16, 4, 9)])
    assert share.reshape(3, 4).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0.5]]
    _, processor, sample, clip = world("tempflex-release")  # strips of four patches, rows of six
    wrapped = processor.prepare(sample(1), clip(1)).token_map
    visual = wrapped.visual
    left = inside(wrapped, visual, [Box(0, 0, 16, 32)])  # the left two patches of every row
    expected = [np.mean([c < 2 for _, c in wrapped.rows_cols(i)]) for i in visual]
    np.testing.assert_allclose(left, expected)
    assert any(len({r for r, _ in wrapped.rows_cols(i)}) > 1 for i in visual)


@pytest.mark.parametrize("box", [Box(0, 0, 17, 8), Box(-1, 0, 8, 8), Box(8, 8, 8, 16), Box(0, 9, 8, 4)])
def test_boxes_outside_the_frame_are_refused(box):
    token_map = square_map(1, 2)
    with pytest.raises(ProbeError, match="the frames are 16 x 16 pixels"):
        inside(token_map, token_map.visual, [box])


def test_ground_truth_finds_what_was_asked(tmp_path):
    objects = [
        {"kind": "digit", "digit": "five", "colour": "cyan", "first_frame": 0, "last_frame": 7, "box": [0, 8, 8, 16]},
        {"kind": "digit", "digit": "one", "colour": "red", "first_frame": 2, "last_frame": 3,
         "boxes": [[24, 0, 32, 8], [16, 0, 24, 8]]},
        {"kind": "light", "box": [16, 16, 32, 32], "flashes": 2},
    ]  # fmt: skip
    row = {"media": "clips/a.mkv", "width": 32, "height": 32, "frames": 8, "objects": objects}
    (tmp_path / "objects.jsonl").write_text(json.dumps(row) + "\n")

    def boxes(question, answer, which="asked", skill="ocr", name="clips/a.mkv"):
        return ground_truth(
            Sample("s", (Turn(question, answer, (), skill),), VideoRef(tmp_path / name)), which
        )

    five, one = [Box(0, 8, 8, 16, 0, 7)], [Box(24, 0, 32, 8, 2, 2), Box(16, 0, 24, 8, 3, 3)]
    light = [Box(16, 16, 32, 32)]
    assert boxes("which digit is cyan?", "five") == five
    assert boxes("what does the northwest digit show?", "five") == five
    assert boxes("which digit appears briefly?", "one") == one
    assert (
        boxes("how many digits are there?", "one", skill="count")
        == five + one + light
        == boxes("?", "one", "all")
    )
    assert boxes("does the light flash?", "yes") == light
    with pytest.raises(ProbeError, match=r"has no row for clips/b.mkv"):
        boxes("?", "one", name="clips/b.mkv")
    with pytest.raises(ProbeError, match="no image or video"):
        ground_truth(Sample("s", (Turn("?", "a"),)))
    with pytest.raises(ProbeError, match=r"there is no objects.jsonl"):
        ground_truth(Sample("s", (Turn("?", "a"),), ImageRef(Path("/nowhere/a.png"))))


def test_table_of_a_real_capture_in_any_store():
    model, processor, sample, clip = world("tempflex-gemma3")
    exact = attention_rows(model, processor, sample(9), clip(9), "text")
    table = scatter_table(exact, [Box(0, 0, 16, 16)])
    assert len(table) == 3 * 4 * len(exact.arrays["queries"])
    numbers = scatter_numbers(exact.arrays["rows"], exact.token_map)
    row = table[(table["layer"] == 1) & (table["head"] == 2)]
    np.testing.assert_allclose(row["entropy"], numbers["entropy"][1, 2])
    rounded = scatter_table(attention_rows(model, processor, sample(9), clip(9), "text", store="uint8"))
    np.testing.assert_allclose(rounded["gini"], table["gini"], atol=0.02)
    means = scatter_by_sample([table], layers=[1])
    assert means["entropy"][0] == pytest.approx(table[table["layer"] == 1]["entropy"].mean())
    with pytest.raises(ProbeError, match="Give an attention_rows capture"):
        scatter_table(Capture("temporal_atlas", {}, {}))


def by_sample(values, extra=0.0):
    rows = [
        {"sample_id": f"s{i}", "skill": "ocr", "question": "?", "entropy": v + extra, "spread": 10 * v}
        for i, v in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_paired_change_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = shown = 0
    for trial in range(60):
        level = rng.random(30)  # samples differ far more than checkpoints do
        before = by_sample(level)
        after = by_sample(level + rng.normal(0.05, 0.1, 30))
        found = paired_scatter(before, after, trial, resamples=400).set_index("number")
        row = found.loc["entropy"]
        covered += row["low"] <= 0.05 <= row["high"]
        shown += row["shown"]
        wide = found.loc["spread"]  # in other units, far beyond 1: nothing is cut
        assert wide["difference"] == pytest.approx(10 * row["difference"])
        assert wide["high"] - wide["low"] == pytest.approx(10 * (row["high"] - row["low"]))
        assert wide["after"] - wide["before"] == pytest.approx(wide["difference"])
    assert covered >= 52 and shown >= 30  # 95% nominal


def test_pairs_need_samples_in_common():
    one, two = by_sample([0.1, 0.2, 0.3]), by_sample([0.1, 0.2])
    assert paired_scatter(one, two)["n_unpaired"].tolist() == [1, 1]
    with pytest.raises(DataError, match="no seed and question in common"):
        paired_scatter(one, two.assign(sample_id=["x", "y"]))


def rows_capture(weights: np.ndarray, token_map: TokenMap) -> Capture:
    axes = {"rows": ["layer", "head", "query", "key"], "queries": ["query"]}
    arrays = {"rows": weights.astype(np.float32), "queries": np.arange(weights.shape[2])}
    meta = {"axes": axes, "units": dict.fromkeys(axes, "1"), "token_map": token_map.to_json()}
    return Capture("attention_rows", arrays, meta)


def test_sinks_are_what_everything_looks_at_not_what_was_asked_for():
    token_map = square_map(2, 5)
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 1.5, (2, 3, 8, 52)) / 100
    weights[0, :, :, 7] = 0.4  # layer 0: a sink for every query
    weights[:, :, 2, 30] = 0.6  # an object that one query asked for
    weights[1, 0, :, 11] = 0.03  # drawn by one head only, and little
    weights[..., 50:] = 0.1
    weights[:, :, :, 51] = np.nan
    capture = rows_capture(weights, token_map)
    sinks = find_sinks(capture)
    assert np.flatnonzero(sinks.tokens[0]).tolist() == [7] and not sinks.tokens[1].any()
    np.testing.assert_allclose(sinks.hidden_mass[0], 0.4, atol=1e-6)
    np.testing.assert_allclose(sinks.hidden_visual[0], 0.4 / weights[0, ..., :50].sum(-1), rtol=1e-5)
    assert (sinks.hidden_mass[1] == 0).all() and "at least 90% of the 8 queries" in sinks.definition
    shown = without_sinks(capture, sinks, 0)
    assert np.isnan(shown[..., 7]).all() and np.isnan(shown[..., 51]).all()
    others = np.delete(np.arange(51), 7)
    np.testing.assert_array_equal(shown[..., others], capture.arrays["rows"][0][..., others])
    with pytest.raises(ProbeError, match="the capture has 3 queries"):
        find_sinks(rows_capture(weights[:, :, :3], token_map))
