"""The three decompositions against vectors written out, and intervals that hold what they promise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.probes.gradient_worlds import batch_of, double_model, flat, loss_of, whole_gradients
from workbench.probes.gradients import definitions
from workbench.probes.gradients.definitions import GroupSums, parts_of, projection, subspace
from workbench.probes.gradients.gram import measure
from workbench.probes.gradients.intervals import (
    change_intervals,
    fraction_intervals,
    ratio_interval,
    share_interval,
)
from workbench.probes.gradients.one_step import one_step, restored, step_size
from workbench.probes.gradients.parameters import parameter_groups
from workbench.probes.gradients.statistics import STATISTICS, Design, pair_fractions, quotients
from workbench.probes.gradients.stream import GradientStream


def cos(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def check(parts, g_i, g_v, s):
    """Parts against the vectors themselves."""
    t = g_v - s
    ratio = {name: getattr(parts, name)[0] / getattr(parts, name)[1] for name in definitions.PARTS}
    close = {"rel": 1e-6, "abs": 1e-8}
    assert ratio["share_s"] == pytest.approx(s @ s / (g_v @ g_v), **close)
    assert ratio["share_t"] == pytest.approx(t @ t / (g_v @ g_v), **close)
    assert ratio["interference_s"] == pytest.approx(g_i @ s / (g_i @ g_i), **close)
    assert ratio["interference_t"] == pytest.approx(g_i @ t / (g_i @ g_i), **close)
    if np.linalg.norm(s) > 1e-4 * np.linalg.norm(g_v):
        assert ratio["cos_s"] == pytest.approx(cos(g_i, s), **close)
    if np.linalg.norm(t) > 1e-4 * np.linalg.norm(g_v):
        assert ratio["cos_t"] == pytest.approx(cos(g_i, t), **close)
    return ratio


vectors = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=(9, 40)))


@settings(max_examples=60, deadline=None)
@given(vectors, st.integers(1, 6), st.floats(-2, 2))
def test_definitions_are_the_vectors_they_say(drawn, m, mix):
    g_i, noise, changed, *rest = drawn
    g_v = noise + mix * g_i
    ii, vv, iv = g_i @ g_i, g_v @ g_v, g_i @ g_v
    found = check(projection(ii, vv, iv), g_i, g_v, iv / ii * g_i)
    assert found["interference_t"] == 0 and found["cos_t"] == 0 and abs(found["cos_s"]) == 1
    assert found["share_s"] + found["share_t"] == pytest.approx(1)
    check(parts_of(ii, vv, iv, changed @ changed, g_i @ changed, g_v @ changed), g_i, g_v, changed)
    basis = np.stack(rest[:m])
    s = basis.T @ np.linalg.lstsq(basis.T, g_v, rcond=None)[0]
    found = check(subspace(ii, vv, iv, basis @ g_i, basis @ g_v, basis @ basis.T), g_i, g_v, s)
    assert found["share_s"] + found["share_t"] == pytest.approx(1)


def test_a_basis_that_repeats_itself_is_one_direction():
    rng = np.random.default_rng(0)
    g_i, g_v, g = rng.normal(size=(3, 30))
    basis = np.stack([g, 2 * g, -g])
    parts = subspace(g_i @ g_i, g_v @ g_v, g_i @ g_v, basis @ g_i, basis @ g_v, basis @ basis.T)
    check(parts, g_i, g_v, (g_v @ g) / (g @ g) * g)


def test_nothing_measured_is_nan_and_never_zero():
    nan = math.nan
    for parts in (
        projection(nan, 1, 1),
        projection(0, 1, 0),
        subspace(1, 1, 1, *[np.full(1, nan)] * 2, np.ones((1, 1))),
    ):
        assert all(np.isnan(fraction).all() for fraction in parts.as_row())
    same = parts_of(1, 2, 1, 2, 1, 2)  # s is g_V
    assert same.share_t == (0.0, 2) and np.isnan(same.cos_t[0])


def test_whole_probe_table_equals_flattened_gradients():
    """Every statistic of every group and pair of a small design, from gradients that autograd returns whole."""
    made, processor = double_model()
    probed = parameter_groups(made)
    design = Design(2, (2, 5), ("frozen", "shuffled"), True, 2, ("plain",), probed.groups)
    sources = list(dict.fromkeys(s for edge in design.edges() for s in edge))
    losses = {}
    for k, source in enumerate(sources):
        frames = source[2] if len(source) > 2 else 1
        losses[source] = loss_of(made, batch_of(processor, frames, (10 * k, 10 * k + 1)))
    gram = measure(GradientStream(made, probed), losses.__getitem__, design.edges(), copies=3)
    whole = {source: whole_gradients(made, loss) for source, loss in losses.items()}
    table = quotients(*pair_fractions(gram, design))
    at = {name: i for i, name in enumerate(STATISTICS)}
    for g, (_group, members) in enumerate(probed.groups.items()):
        names = [probed.names[i] for i in members]
        reached = [n for n in names if all(gradients[n] is not None for gradients in whole.values())]
        v = {source: flat(gradients, reached) for source, gradients in whole.items()} if reached else None
        for b in range(2):
            for n, frames in enumerate((2, 5)):
                found = table[:, 0, b, g, n]
                if v is None:
                    assert np.isnan(found).all()
                    continue
                g_i, g_v = v[("image", b)], v[("video", b, frames)]
                assert found[at["cos"]] == pytest.approx(cos(g_i, g_v), abs=1e-9)
                assert found[at["interference"]] == pytest.approx(g_i @ g_v / (g_i @ g_i), abs=1e-9)
                assert found[at["image_ceiling"]] == pytest.approx(cos(g_i, v[("other", b)]), abs=1e-9)
                assert found[at["video_ceiling"]] == pytest.approx(
                    cos(g_v, v[("video", 1 - b, frames)]), abs=1e-9
                )
                basis = np.stack([v[("held_out", j)] for j in range(2)])
                s = {
                    "projection": (g_i @ g_v) / (g_i @ g_i) * g_i,
                    "subspace": basis.T @ np.linalg.lstsq(basis.T, g_v, rcond=None)[0],
                    "frozen": v[("frozen", b, frames)],
                    "shuffled": v[("shuffled", b, frames)],
                }
                for name, shared in s.items():
                    rest = g_v - shared
                    assert found[at[f"{name}.share_t"]] == pytest.approx(
                        np.linalg.norm(rest) / np.linalg.norm(g_v), abs=1e-7
                    )
                    assert found[at[f"{name}.interference_t"]] == pytest.approx(
                        g_i @ rest / (g_i @ g_i), abs=1e-7
                    )
                    assert found[at[f"{name}.cos_s"]] == pytest.approx(cos(g_i, shared), abs=1e-7)
                static, frozen = v[("static", b, frames)], v[("static_frozen", b, frames)]
                assert found[at["static_cos"]] == pytest.approx(cos(g_i, static), abs=1e-9)
                assert found[at["static_frozen.share_t"]] == pytest.approx(
                    np.linalg.norm(static - frozen) / np.linalg.norm(static), abs=1e-7
                )


def test_a_group_that_images_pass_by_is_missing_not_zero():
    """Fusion that still images bypass has no image gradient: its numbers are NaN, and the total leaves it out."""
    made, processor = double_model()
    made.config.images = "bypass"
    probed = parameter_groups(made)
    losses = {
        "i": loss_of(made, batch_of(processor, 1, (1,))),
        "v": loss_of(made, batch_of(processor, 4, (1,))),
    }
    gram = measure(GradientStream(made, probed), losses.__getitem__, [("i", "v")])
    assert np.isnan(GroupSums(gram, probed.groups["fusion"], "plain")([("i", "v"), ("v", "v")])).all()
    rest = np.concatenate([probed.groups[name] for name in ("encoder", "merger", "llm")])
    edges = [("i", "v"), ("v", "v")]
    assert GroupSums(gram, probed.groups["all"], "plain")(edges) == pytest.approx(
        GroupSums(gram, rest, "plain")(edges)
    )


# -- intervals -------------------------------------------------------------------------------------


def test_intervals_over_eight_pairs_hold_what_they_promise():
    """Coverage of means and of ratios of means over 8 skewed pairs: close to 95%, not the naive bootstrap's 88%."""
    rng = np.random.default_rng(1)
    tops = 1 + rng.gamma(4, 0.5, size=(1500, 8))
    bottoms = 2 + rng.gamma(4, 0.25, size=(1500, 8))
    for below, truth in ((np.ones_like(tops), 3.0), (bottoms, 1.0)):
        found = fraction_intervals(tops, below)
        inside = ((found[:, 1] <= truth) & (truth <= found[:, 2])).mean()
        assert 0.915 <= inside <= 0.985, inside
        np.testing.assert_allclose(found[:, 0], tops.mean(1) / below.mean(1))


def test_missing_pairs_are_left_out_and_one_pair_has_no_interval():
    tops = np.array([[1.0, math.nan, 3.0, 5.0], [2.0, math.nan, math.nan, math.nan], [math.nan] * 4])
    found = fraction_intervals(tops, np.ones_like(tops))
    assert found[0, 0] == 3 and found[0, 1] < 3 < found[0, 2]
    assert found[1, 0] == 2 and np.isnan(found[1, 1:]).all()
    assert np.isnan(found[2]).all()


def test_changes_are_paired_changes_of_ratios_of_means():
    """A shift that every pair shares is found though pairs differ far more; the coverage of a change of roots is 95%."""
    rng = np.random.default_rng(2)
    level = rng.gamma(2, 5, size=(1, 8))
    bottoms = np.ones_like(level)
    found = change_intervals(
        (level, bottoms), (level + 1 + 0.1 * rng.normal(size=(1, 8)), bottoms), np.array([False])
    )
    assert 0.8 < found[0, 1] < found[0, 0] < found[0, 2] < 1.2
    shape = (800, 8)
    before = (1 + rng.gamma(4, 0.25, size=shape), 2 + rng.gamma(4, 0.25, size=shape))
    after = (before[0] + 1 + rng.gamma(4, 0.25, size=shape), before[1] + rng.normal(0, 0.1, size=shape))
    found = change_intervals(before, after, np.ones(shape[0], dtype=bool))
    truth = math.sqrt(4 / 3) - math.sqrt(2 / 3)
    assert 0.91 <= ((found[:, 1] <= truth) & (truth <= found[:, 2])).mean() <= 0.99
    tops = np.array([[1.0, math.nan, 3.0]])
    assert np.isnan(
        change_intervals((tops, np.ones((1, 3))), (tops, np.ones((1, 3))), np.array([True]))
    ).all()


def test_a_ratio_with_a_bottom_that_may_be_zero_has_no_interval():
    rng = np.random.default_rng(0)
    top, noise = rng.normal(1, 0.1, 8), rng.normal(0.2, 1.0, 8)
    noise += 0.05 - noise.mean()
    estimate, low, high = ratio_interval(top, [noise])
    assert estimate > 10 and math.isnan(low) and math.isnan(high)
    assert all(map(math.isnan, ratio_interval(top, [-np.ones(8)])))
    steady = ratio_interval(top, [np.full(8, 4.0), np.ones(8)])
    assert steady[0] == pytest.approx(top.mean() / 2) and steady[1] < steady[0] < steady[2]


def test_conflict_rates_keep_a_width():
    assert share_interval(8, 8)[1] < 0.7 and share_interval(0, 8)[2] > 0.3
    assert all(map(math.isnan, share_interval(0, 0)))


# -- the one-step check ----------------------------------------------------------------------------


def test_a_step_changes_the_image_loss_as_predicted_and_leaves_no_trace():
    made, processor = double_model()
    probed = parameter_groups(made)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    image = loss_of(made, batch_of(processor, 1, (1, 2)))
    video = loss_of(made, batch_of(processor, 4, (3, 4)))
    gram = measure(GradientStream(made, probed), {"i": image, "v": video}.__getitem__, [("i", "v")])
    square, product = np.nansum(gram.square("v")), np.nansum(gram.dot("i", "v"))
    eta = step_size(gram.losses["v"], float(square), share=0.002)
    step = one_step(made, probed, video, image, eta, float(product))
    assert step.first_order == pytest.approx(step.predicted, rel=5e-3)  # losses are float32
    assert step.measured == pytest.approx(step.first_order + step.curvature)
    assert abs(step.curvature) < 0.1 * abs(step.predicted)
    # what it measured is a real step: the oracle takes it with SGD on a copy
    import copy

    twin = copy.deepcopy(made)
    optimizer = torch.optim.SGD(twin.parameters(), lr=eta)
    loss_of(twin, batch_of(processor, 4, (3, 4)))().backward()
    optimizer.step()
    after = float(loss_of(twin, batch_of(processor, 1, (1, 2)))())
    assert step.measured == pytest.approx(after - float(image()), abs=2e-6)
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_weights_come_back_after_an_error_inside_the_step():
    made, processor = double_model()
    probed = parameter_groups(made)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    video = loss_of(made, batch_of(processor, 4, (3,)))
    calls = []

    def image():
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("out of memory")
        return video()

    with pytest.raises(RuntimeError):
        one_step(made, probed, video, image, 0.1, 1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    with pytest.raises(KeyboardInterrupt), restored(probed):
        made.merger.mlp_in.weight.data.zero_()
        raise KeyboardInterrupt
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
