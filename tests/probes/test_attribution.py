"""Attributions against written-out loops: integrated gradients, ablation, attention mass, curves, agreement."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.probes.attention_worlds import ALL, eager, world
from tests.probes.knockout_worlds import answer_logs
from workbench.captures import Capture
from workbench.probes.attention import inputs_of
from workbench.probes.attribution import RANKINGS, attribution_map
from workbench.probes.attribution_curves import curves, mean_over_samples, ordering, rank_correlations
from workbench.probes.attribution_methods import INSTALL, integrated_gradients
from workbench.probes.attribution_score import AnswerScore, frozen
from workbench.probes.common import ProbeError
from workbench.probes.knockout import knockout_map
from workbench.probes.knockout_cells import Blocks


def replaced(model: Any, prepared: Any, change) -> float:
    """log p(answer) of a whole forward pass whose visual embeddings (and what early layers add) went through
    ``change`` ([V, D] -> [V, D])."""
    visual = torch.from_numpy(prepared.token_map.visual)

    def hook(_module: Any, args: Any, kwargs: dict[str, Any]):
        embeds = kwargs["inputs_embeds"].clone()
        embeds[0, visual] = change(embeds[0, visual])
        more: dict[str, Any] = {"inputs_embeds": embeds}
        if kwargs.get("deepstack_visual_embeds"):
            more["deepstack_visual_embeds"] = [change(part) for part in kwargs["deepstack_visual_embeds"]]
        return args, kwargs | more

    handle = model.language_model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with torch.no_grad():
            logits = model.eval()(**inputs_of(prepared, model), use_cache=False).logits[0]
    finally:
        handle.remove()
    return float(answer_logs(logits, prepared).sum())


@pytest.mark.parametrize("name", ALL)
def test_map_equals_slow_ways(name):
    model, processor, sample, clip = world(name)
    asked = [parameter.requires_grad for parameter in model.parameters()]
    capture = attribution_map(model, processor, sample(4), clip(4), batch=3)
    assert [parameter.requires_grad for parameter in model.parameters()] == asked
    prepared = processor.prepare(sample(4), clip(4), turns=(0,))
    scores = dict(zip(capture.meta["rankings"], capture.arrays["scores"], strict=True))
    visual, block_of = prepared.token_map.visual, capture.arrays["block_of"]
    of = block_of[visual]
    own = replaced(model, prepared, lambda x: x)
    # ablation: whole passes with the mean in place of one frame
    for block in range(of.max() + 1):
        gone = torch.from_numpy(of == block)[:, None]
        lost = own - replaced(model, prepared, lambda x, gone=gone: torch.where(gone, x.mean(0), x))
        assert scores["ablation"][block] == pytest.approx(lost, abs=2e-5)
    # integrated gradients add up to what the clip as a whole explains
    whole = own - replaced(model, prepared, lambda x: x.mean(0).expand_as(x))
    found = capture.meta["completeness"]
    assert found["difference"] == pytest.approx(whole, abs=2e-5)
    assert capture.arrays["ig_tokens"].sum() == pytest.approx(whole + found["error"], abs=1e-4)
    assert abs(found["error"]) < 1e-3
    per_block = [capture.arrays["ig_tokens"][of == block].sum() for block in range(of.max() + 1)]
    np.testing.assert_allclose(scores["ig"], per_block)
    # attention: sums of eager weights
    weights = eager(model, **inputs_of(prepared, model))[:, 0]
    places = np.flatnonzero(prepared.token_map.kind == 2) - 1
    for block in range(of.max() + 1):
        mass = weights[:, :, places][..., block_of == block].sum(-1).mean()
        assert scores["attention"][block] == pytest.approx(mass, abs=1e-5)
    deltas = knockout_map(model, processor, sample(4), clip(4), "all").arrays["deltas"][0]
    np.testing.assert_allclose(scores["knockout"], -deltas, atol=1e-5)


@pytest.mark.parametrize("name", ["tempflex", "qwen3_vl"])
def test_integrated_gradients_are_a_riemann_sum_of_gradients(name):
    model, processor, sample, clip = world(name)
    prepared = processor.prepare(sample(2), clip(2), turns=(0,))
    with frozen(model):
        score = AnswerScore(model, prepared, "s")
        found = integrated_gradients(score, "mean", 32, 5)
        own, base = score.embeddings, score.baseline("mean")
        assert (own.shape[-1] > score.width) == (name == "qwen3_vl")  # DeepStack features are moved as well
        total = torch.zeros_like(own)
        for part in ((torch.arange(200) + 0.5) / 200).split(25):
            at = (base + part[:, None, None] * (own - base)).requires_grad_()
            total += torch.autograd.grad(score(at).sum(), at)[0].sum(0) / 200
    expected = (total * (own - base)).sum(-1)[0].numpy()
    np.testing.assert_allclose(found.tokens, expected, atol=2e-4)
    assert np.abs(expected).max() > 1e-3


def test_a_line_too_coarse_shows_in_the_completeness_error():
    model, processor, sample, clip = world("tempflex")
    given_ = (model, processor, sample(3), clip(3), ("ig",))

    def error(baseline: str, steps: int) -> float:
        found = attribution_map(*given_, baseline=baseline, steps=steps).meta["completeness"]
        assert found["relative"] == pytest.approx(abs(found["error"] / found["difference"]))
        return abs(found["error"])

    assert error("mean", 32) < 1e-4 < error("mean", 2)
    assert error("zero", 32) > 100 * error("mean", 32)  # no such vector occurs: normalisation bends the path


def test_curves_begin_and_end_where_they_must():
    model, processor, sample, clip = world("llava_next_video")
    capture = attribution_map(
        model, processor, sample(5), clip(5), ("ablation", "attention"), with_curves=True, draws=3, batch=4
    )
    prepared = processor.prepare(sample(5), clip(5), turns=(0,))
    own = replaced(model, prepared, lambda x: x)
    nothing = replaced(model, prepared, lambda x: x.mean(0).expand_as(x))
    drawn, fractions = capture.arrays["curves"], capture.arrays["fractions"]
    assert capture.meta["curve_names"] == ["ablation", "attention", "random"] and drawn.shape == (3, 2, 6)
    np.testing.assert_allclose(fractions, np.linspace(0, 1, 6))
    np.testing.assert_allclose(drawn[:, 0, [0, -1]], [[own, nothing]] * 3, atol=2e-5)
    np.testing.assert_allclose(drawn[:, 1, [0, -1]], [[nothing, own]] * 3, atol=2e-5)
    # one step of deletion is one ablation, that of the first in the ranking
    ablated = capture.arrays["scores"][0]
    assert own - drawn[0, 0, 1] == pytest.approx(ablated.max(), abs=2e-5)
    areas = ((drawn[..., 1:] + drawn[..., :-1]) / 2 * np.diff(fractions)).sum(-1)
    np.testing.assert_allclose(capture.arrays["auc"][..., 1], areas)
    np.testing.assert_allclose(capture.arrays["auc_random"].mean(0), capture.arrays["auc"][-1])


class Additive:
    """A score in which every position counts for itself: its effect is known, so the best ranking is."""

    def __init__(self, values: np.ndarray) -> None:
        self.embeddings = torch.from_numpy(values)[None, :, None]
        self.positions = np.arange(len(values))

    def baseline(self, _kind: str) -> torch.Tensor:
        return torch.zeros_like(self.embeddings)

    def many(self, rows, batch: int) -> np.ndarray:
        return np.array([float(row.sum()) for row in rows])


@given(arrays(np.float64, st.integers(1, 5), elements=st.floats(-2, 2)))
@settings(max_examples=30, deadline=None)
def test_no_ranking_beats_the_true_effect(values):
    k = len(values)
    blocks = Blocks(np.arange(k), [{} for _ in range(k)])
    orders = [ordering(values), *(np.array(order) for order in itertools.permutations(range(k)))]
    made = curves(Additive(values), blocks, orders, points=k)
    deletion, insertion = made.auc[:, 0, 1], made.auc[:, 1, 1]
    assert deletion[0] <= deletion.min() + 1e-9 and insertion[0] >= insertion.max() - 1e-9


@given(arrays(np.float64, (3, 6), elements=st.floats(-3, 3) | st.just(np.nan)))
@settings(max_examples=50, deadline=None)
def test_rank_correlations_are_those_of_pandas(values):
    found = rank_correlations({str(i): row for i, row in enumerate(values)})
    expected = pd.DataFrame(values.T).corr(method="spearman", min_periods=3).to_numpy()
    for i, j in np.ndindex(3, 3):
        both = np.isfinite(values[i]) & np.isfinite(values[j])
        if both.sum() < 3 or np.ptp(values[i][both]) == 0 or np.ptp(values[j][both]) == 0:
            assert np.isnan(found[i, j])
        else:
            assert found[i, j] == pytest.approx(expected[i, j], abs=1e-9)


def test_ordering_puts_what_is_not_visible_last():
    assert ordering(np.array([0.5, np.nan, -1.0, 0.5])).tolist() == [0, 3, 2, 1]


def test_means_over_samples_leave_out_what_is_undefined():
    mean, low, high, n = mean_over_samples(np.array([0.1, np.nan, 0.5, 0.3]))
    # t(2 degrees of freedom, 97.5%) = 4.3027
    half = 4.3027 * np.std([0.1, 0.5, 0.3], ddof=1) / np.sqrt(3)
    assert (mean, n) == (pytest.approx(0.3), 3)
    assert (low, high) == (pytest.approx(0.3 - half, abs=1e-4), pytest.approx(0.3 + half, abs=1e-4))
    assert mean_over_samples(np.array([np.nan]))[3] == 0


def test_one_frame_has_no_rank_but_its_parts_do(tmp_path):
    model, processor, sample, clip = world("tempflex")
    capture = attribution_map(model, processor, sample(1), clip(1), ("attention", "ablation"))
    assert np.isnan(capture.arrays["spearman"]).all()
    path = tmp_path / "a.safetensors"
    attribution_map(model, processor, sample(1), clip(1), RANKINGS, (2, 2), path=path)
    parts = Capture.load(path)
    assert np.isfinite(parts.arrays["spearman"]).all() and len(parts.meta["blocks"]) == 4


def test_refusals(monkeypatch):
    model, processor, sample, clip = world("tempflex")
    given_ = (model, processor, sample(2), clip(2))
    with pytest.raises(ProbeError, match="Use attention, knockout, ablation, ig"):
        attribution_map(*given_, ("gradient",))
    with pytest.raises(ProbeError, match="Use mean or zero"):
        attribution_map(*given_, ("ig",), baseline="grey")
    with pytest.raises(ProbeError, match="a line needs 2 or more"):
        attribution_map(*given_, ("ig",), steps=1)
    with pytest.raises(ProbeError, match="no image or video"):
        attribution_map(model, processor, sample(0), None)
    with pytest.raises(ProbeError, match="it has the questions 0 to 0"):
        attribution_map(*given_, turn=3)
    with pytest.raises(ProbeError, match="one or more are needed"):
        attribution_map(*given_, ("attention",), with_curves=True, draws=0)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ProbeError) as caught:
        attribution_map(*given_)
    assert INSTALL in str(caught.value)
    attribution_map(*given_, ("attention", "knockout"))  # needs no captum


def test_captum_is_loaded_only_when_an_attribution_asks_for_it():
    code = "import sys, workbench.probes.attribution_agreement; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"captum", "matplotlib"} & set(done.stdout.split())
