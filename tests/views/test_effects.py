"""EffectView: attention on the knockout's own cells, ranked beside the effect; agreement and disagreement said as they are."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import spearmanr

from tests.browser import chromium, needs_browser
from tests.probes.attention_worlds import world
from tests.views import attention_worlds, effect_worlds
from tests.views.axe import needs_axe, violations
from tests.views.pages import opened
from tests.views.transport import assert_text_only, messages
from workbench.captures import Capture
from workbench.errors import WorkbenchError
from workbench.probes.atlas import temporal_atlas
from workbench.probes.attention import attention_rows
from workbench.probes.attribution import attribution_map
from workbench.probes.knockout import knockout_map
from workbench.views.effects import EffectView
from workbench.views.effects_data import verdict
from workbench.views.effects_rank import Agreement, rank_agreement
from workbench.views.payload import STATE_LIMIT, jsonable, size_of, unpack


def slow_mean_spearman(one: np.ndarray, two: np.ndarray) -> float:
    """scipy, a window at a time."""
    found = [
        spearmanr(a, b).statistic
        for a, b in zip(one, two, strict=True)
        if len(set(a.tolist())) > 1 and len(set(b.tolist())) > 1
    ]
    return float(np.mean(found)) if found else math.nan


MAPS = hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.float64, shape, elements=st.integers(-4, 4).map(float))] * 2)
)


@settings(deadline=None, max_examples=40)
@given(MAPS)
def test_the_correlation_and_its_exact_test_are_the_slow_ones(maps):
    effect, attention = maps
    found = rank_agreement(effect, attention)
    expected = slow_mean_spearman(effect, attention)
    assert found.rho == pytest.approx(expected, nan_ok=True, abs=1e-9)
    k = effect.shape[1]
    if k >= 4 and math.isfinite(expected) and k <= 5:
        orders = list(itertools.permutations(range(k)))
        shuffled = [slow_mean_spearman(effect, attention[:, list(order)]) for order in orders]
        p = sum(abs(r) >= abs(expected) - 1e-9 for r in shuffled) / len(orders)
        assert found.p == pytest.approx(p)


def test_whole_blocks_are_shuffled_so_that_copies_of_a_window_prove_nothing_more():
    rng = np.random.default_rng(0)
    effect, attention = rng.normal(size=(1, 12)), rng.normal(size=(1, 12))
    once, often = (rank_agreement(np.repeat(effect, n, 0), np.repeat(attention, n, 0)) for n in (1, 30))
    assert often.rho == pytest.approx(once.rho) and often.cells == 30 * once.cells
    assert often.p == pytest.approx(once.p) and (often.low, often.high) == pytest.approx(
        (once.low, once.high)
    )


def test_the_interval_and_the_test_hold_their_level_on_blocks_without_any_relation():
    rng = np.random.default_rng(1)
    found = [rank_agreement(rng.normal(size=(3, 16)), rng.normal(size=(3, 16)), seed) for seed in range(120)]
    assert np.mean([f.p < 0.05 for f in found]) < 0.12
    assert np.mean([f.verdict != "open" for f in found]) < 0.16


def test_what_is_not_visible_is_left_out_and_too_few_blocks_get_no_verdict():
    effect = np.array([[1.0, 2, 3, 4, 5, np.nan], [np.nan] * 6])
    found = rank_agreement(effect, np.arange(12.0).reshape(2, 6))
    assert (found.windows, found.blocks, found.rho) == (1, 5, pytest.approx(1.0))
    few = rank_agreement(np.array([[1.0, 2, 3]]), np.array([[1.0, 2, 3]]))
    assert few.verdict == "none" and "fewer than 4 blocks" in verdict(few)
    same = rank_agreement(np.ones((1, 8)), np.arange(8.0)[None])
    assert same.verdict == "none" and "the same everywhere" in verdict(same)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.9, "rank the blocks alike"), (-0.9, -0.1, "DISAGREE"), (-0.2, 0.9, "NOT shown to agree")],
)
def test_the_verdict_follows_from_the_interval(low, high, said):
    assert said in verdict(Agreement(0.5 if high > 0 else -0.5, low, high, 0.03, 2, 8))


@pytest.fixture(scope="module")
def real():
    """Captures of a tiny model, knockouts by frame and by part of a frame."""
    model, processor, sample, clip = world("tempflex")
    given_ = (model, processor, sample(6), clip(6))
    return {
        "frames": knockout_map(*given_, "single,2,all"),
        "parts": knockout_map(*given_, "single,all", (2, 2)),
        "predict": attention_rows(*given_, "predict"),
        "text": attention_rows(*given_, "text"),
        "answer": attention_rows(*given_, "answer"),
        "some": attention_rows(*given_, "text", layers=(0,), heads=(1, 3)),
        "atlas": temporal_atlas(*given_),
        "attribution": attribution_map(*given_, with_curves=True, points=4, draws=2, steps=8),
    }


@pytest.mark.parametrize("blocks", ["frames", "parts"])
@pytest.mark.parametrize("rows", ["predict", "text"])
def test_the_attention_of_a_cell_is_summed_over_its_tokens_and_averaged_as_said(real, blocks, rows):
    knockout, capture = real[blocks], real[rows]
    looked = EffectView(knockout, capture).looked
    assert looked.whose == "the positions that predict the answer"
    predict = set((knockout.arrays["answer"] - 1).tolist())
    queries = [i for i, q in enumerate(capture.arrays["queries"].tolist()) if q in predict]
    weights = capture.arrays["rows"]
    for w, (first, stop) in enumerate(knockout.arrays["windows"].tolist()):
        for k in range(len(knockout.meta["blocks"])):
            keys = [j for j, block in enumerate(knockout.arrays["block_of"].tolist()) if block == k]
            layers = []
            for layer in range(first, stop):
                sums = [
                    sum(float(weights[layer, head, q, j]) for j in keys)
                    for head in range(weights.shape[1])
                    for q in queries
                ]
                layers.append(sum(sums) / len(sums))
            assert looked.mass[w, k] == pytest.approx(sum(layers) / len(layers), rel=1e-4)


def test_an_atlas_gives_the_same_masses_as_rows_and_the_attribution_s_own_ranking(real):
    by_rows, by_atlas = (EffectView(real["frames"], real[name]).looked.mass for name in ("text", "atlas"))
    np.testing.assert_allclose(by_rows, by_atlas, rtol=1e-3, atol=1e-6)
    scores = real["attribution"].arrays["scores"][real["attribution"].meta["rankings"].index("attention")]
    np.testing.assert_allclose(EffectView(real["frames"], real["predict"]).looked.mass[-1], scores, rtol=1e-4)


def test_queries_that_do_not_predict_the_answer_are_named_and_layers_not_captured_are_not_shown(real):
    view = EffectView(real["frames"], real["answer"])
    assert "not captured" in view.looked.whose and "not captured" in view.words()
    some = EffectView(real["frames"], real["some"])
    windows = real["frames"].arrays["windows"].tolist()
    assert [bool(np.isfinite(row).all()) for row in some.looked.mass] == [w == [0, 1] for w in windows]
    assert some.looked.heads == "mean of heads [1, 3]" and some.looked.agreement.windows == 1


def test_a_view_of_real_captures_is_shown_saved_and_tabled(real, tmp_path):
    view = EffectView(real["frames"], real["predict"], real["attribution"])
    assert [piece.name for piece in view.pieces()] == ["effects", "scatter", "curves"]
    table = view.data()
    assert len(table) == view.deltas.size
    assert {"attention", "attribution_ig", "attribution_ablation"} <= set(table.columns)
    np.testing.assert_allclose(table["delta"], real["frames"].arrays["deltas"].ravel())
    for ending in ("svg", "pdf", "png"):
        assert view.save(tmp_path / f"still.{ending}").stat().st_size > 5000
    data = jsonable(view.pieces()[0].data)
    np.testing.assert_allclose(unpack(data["deltas"]), view.deltas, rtol=1e-6)
    assert data["delta"]["low"] == -data["delta"]["high"], "the scale is centred at 0"
    assert assert_text_only(view.widget) > 10_000
    assert own_bytes(view) < STATE_LIMIT
    assert f"error {real['attribution'].meta['completeness']['error']:+.2g}" in view.words()


def own_bytes(view: EffectView) -> int:
    """Bytes of all widgets' states; plotly's own program (5 MB, the same for every figure) is not the view's."""
    return sum(
        len(json.dumps({key: value for key, value in state.items() if key != "_esm"}))
        for _, state, _ in messages(view.widget)
    )


RISING = np.tile(np.arange(6.0), (5, 1))


def looking(order: np.ndarray, frames: int = 6) -> Capture:
    """An atlas whose answer looks at the frames in this order of mass, in all layers and heads."""
    capture = effect_worlds.atlas(frames=frames, layers=4, heads=4)
    mass = np.array(capture.arrays["mass"])
    mass[..., :frames] = 0.01 + 0.01 * np.asarray(order, dtype=np.float32)
    return Capture(capture.kind, dict(capture.arrays) | {"mass": mass}, capture.meta)


def test_agreement_and_disagreement_are_told_apart():
    rng = np.random.default_rng(0)
    hurts = -(np.arange(12.0) + rng.normal(size=(5, 12)))  # hiding a later frame costs more
    knockout = effect_worlds.knockout(frames=12, deltas=hurts)
    alike = EffectView(knockout, looking(np.arange(12), 12))
    assert alike.looked.agreement.verdict == "agree" and "rank the blocks alike" in alike.words()
    against = EffectView(knockout, looking(np.arange(12)[::-1], 12))
    assert against.looked.agreement.verdict == "disagree" and "DISAGREE" in against.words()
    assert [v["loud"] for v in against.verdicts() if "DISAGREE" in v["text"]] == [True]
    assert not any(v["loud"] for v in alike.verdicts())
    assert "it looks most at frame 1 of 12" in against.words() and "not at frame 12 of 12" in against.words()
    for view in (alike, against):
        assert "60 cells (5 windows x 12 blocks" in view.words() and "not independent" in view.words()


def other(**change):
    capture = looking(np.arange(6))
    return Capture(capture.kind, capture.arrays, capture.meta | change)


@pytest.mark.parametrize(
    ("attention", "said"),
    [
        (other(sample={"id": "clip-9", "question": "who?", "answer": "me", "turn": 0}), "sample clip-9"),
        (other(frames={"indices": [0, 2], "timestamps": [0.0, 1.0]}), "2 frames (0, 2)"),
        (other(checkpoint={"name": "before", "step": 1, "sha256": "cd" * 32}), "weights before (cdcdcd"),
        (other(model={"type": "other", "text": {}}), "another model"),
        (effect_worlds.knockout(), "'knockout', not attention_rows or temporal_atlas"),
    ],
)
def test_captures_of_something_else_are_refused_in_the_view(attention, said):
    view = EffectView(effect_worlds.knockout(), attention)
    assert view.looked is None and len(view.notes) == 1 and said in view.words()
    assert jsonable(view.pieces()[0].data)["notes"][0] == view.notes[0]


def test_an_attribution_cut_otherwise_is_refused_and_a_bad_completeness_is_loud():
    knockout = effect_worlds.knockout(grid=(2, 2))
    scores = np.random.default_rng(0).normal(size=(4, 6))
    whole = effect_worlds.knockout()
    assert (
        "6 blocks are others than the knockout's 24"
        in EffectView(knockout, attribution=effect_worlds.attribution(whole, scores)).words()
    )
    fine, bad = (
        EffectView(whole, attribution=effect_worlds.attribution(whole, scores, relative=r))
        for r in (0.01, 0.2)
    )
    assert "(20.00%). Above 5%" in bad.words() and "Above" not in fine.words()
    assert [v["loud"] for v in bad.verdicts() if "completeness" in v["text"]] == [True]
    assert fine.rankings["ig"].rho == pytest.approx(
        spearmanr(-whole.arrays["deltas"][-1], scores[3]).statistic
    )


def test_another_kind_is_refused_and_changes_below_the_error_are_not_trusted():
    with pytest.raises(WorkbenchError, match=r"attention_rows.*workbench probe knockout"):
        EffectView(attention_worlds.capture())
    tiny = EffectView(effect_worlds.knockout(deltas=RISING * 1e-8))
    assert "own error" in tiny.words()


def test_where_hiding_helps_everywhere_no_block_is_said_to_cost():
    said = EffectView(effect_worlds.knockout(deltas=1 + np.abs(RISING))).words()
    assert "costs anything" in said and "gains least" in said and "costs most" not in said
    assert "costs most" in EffectView(effect_worlds.knockout(deltas=RISING - RISING.max() - 1)).words()


@pytest.mark.parametrize(
    "knockout",
    [
        effect_worlds.knockout(frames=1),
        effect_worlds.knockout(deltas=np.full((5, 6), np.nan)),
        effect_worlds.knockout(deltas=np.zeros((5, 6))),
        effect_worlds.knockout(with_pictures=False),
        effect_worlds.knockout(grid=(2, 2)),
    ],
    ids=["one frame", "nothing visible", "no effect", "no pictures", "parts"],
)
def test_odd_captures_are_shown(knockout, tmp_path):
    frames = len(knockout.meta["frames"]["indices"])
    rows = None if knockout.meta["grid"] else looking(np.arange(frames), frames)
    view = EffectView(knockout, rows)
    view.to_html(tmp_path / "page.html")
    assert view.save(tmp_path / "still.png").stat().st_size > 3000
    assert view.words()


def test_the_largest_map_keeps_a_state_that_a_notebook_bears():
    knockout = effect_worlds.knockout(frames=256, layers=36, heads=4)
    capture = effect_worlds.atlas(frames=256, layers=36, heads=1, mean=True)
    capture.meta["model"] = knockout.meta["model"]
    view = EffectView(knockout, capture)
    assert view.looked is not None, view.notes
    assert size_of([jsonable(piece.data) for piece in view.pieces() if hasattr(piece, "data")]) < STATE_LIMIT
    assert assert_text_only(view.widget) and own_bytes(view) < STATE_LIMIT


def test_captures_are_shown_without_torch():
    code = "import sys, workbench.views.atlas, workbench.views.effects; print('torch' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr


@needs_browser
def test_a_page_is_read_by_keyboard_and_a_point_of_the_scatter_picks_its_cell(tmp_path):
    knockout = effect_worlds.knockout(seed=5)
    scores = np.random.default_rng(0).normal(size=(4, 6))
    view = EffectView(knockout, looking(np.arange(6)), effect_worlds.attribution(knockout, scores))
    path = view.to_html(tmp_path / "page.html")
    with chromium() as browser:
        page, problems = opened(browser, path, 1400)
        maps = page.locator("canvas[role=application]")
        assert maps.count() == 3
        maps.first.focus()
        for key in ("Home", *["ArrowUp"] * 5, "ArrowDown", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
        text = page.inner_text("#piece-effects")
        delta = knockout.arrays["deltas"][1, 2]
        said = r"frame 3 of 6 at 1.00 s hidden in layer 1: log p\(answer\) changes by (\S+) nats"
        found = re.search(said, text)  # the line for screen readers may still tell of the cell before
        assert found, text
        assert float(found[1].replace("−", "-")) == pytest.approx(float(delta), rel=0.01)
        row = (-knockout.arrays["deltas"][1]).tolist()
        rank = 1 + sum(value > row[2] for value in row)
        assert f"(rank {rank} by effect; attention 3 %, rank 4)" in text
        page.locator("#piece-scatter").scroll_into_view_if_needed()
        point = page.locator("#piece-scatter .points path").nth(0).bounding_box()
        page.mouse.click(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
        page.locator("#piece-effects p", has_text="frame 1 of 6 at 0.00 s hidden in layer 0").last.wait_for()
        assert page.locator("#piece-curves .js-plotly-plot, #piece-curves .plotly").count() >= 1
    assert not problems


@needs_axe
def test_an_exported_page_has_no_serious_violation(tmp_path):
    knockout = effect_worlds.knockout(grid=(2, 2), frames=16)
    path = EffectView(knockout, attention_worlds.capture(frames=16)).to_html(tmp_path / "page.html")
    with chromium() as browser:
        page, _ = opened(browser, path)
        assert "\n0\n" not in page.inner_text("#piece-effects"), "a list that is empty is no number"
        for scheme in ("light", "dark"):
            assert violations(browser, path, scheme) == []
