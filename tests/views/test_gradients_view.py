"""Gradients as a view: cells against the capture, missing shown as missing, comparison, pages in Chromium."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.browser import chromium, needs_browser
from tests.training.studies import world
from tests.views.axe import needs_axe, violations
from tests.views.pages import opened
from tests.views.transport import assert_text_only, messages
from workbench.captures import Capture, CaptureError
from workbench.errors import WorkbenchError
from workbench.evaluation.statistics import mean_interval
from workbench.models.tempflex import new_tempflex
from workbench.probes.common import Checkpoint
from workbench.probes.gradients import gradient_probe, table
from workbench.probes.gradients.definitions import DEFINITIONS
from workbench.samples.reader import FrameReader
from workbench.samples.source import load_source
from workbench.views import gradients_data
from workbench.views.gradients import GradientView
from workbench.views.payload import STATE_LIMIT, unpack

COUNTS = (2, 4)


@pytest.fixture(scope="module")
def captures():
    """Models on batches of a tiny real world: one with everything measured, one with less, one with the least."""
    root, found = world(), {}
    images, videos = (load_source(root / f"train/{name}.jsonl") for name in ("images", "videos"))
    texts = {
        t for s in (*images, *videos) for turn in s.turns for t in (turn.question, turn.answer, *turn.choices)
    }
    with FrameReader() as reader:
        fewer = {"subspace": 0, "static": False, "map_conflicts": False, "counterfactuals": ("frozen",)}
        for title, seed, less in (("before", 0, {"subspace": 1}), ("after", 1, fewer)):
            model, processor = new_tempflex("tiny", seed, vocab_texts=sorted(texts), fusion_layers=1)
            model.activate_fusion()
            found[title] = gradient_probe(
                model, processor, images, videos, reader=reader, frames=COUNTS, pairs=2, batch=2, **less,
                checkpoint=Checkpoint(title, 10 * seed), seed=3,
            )  # fmt: skip
        found["least"] = gradient_probe(
            model, processor, images, videos, reader=reader, frames=(2,), pairs=1, batch=2, subspace=0,
            counterfactuals=(), static=False, check_steps=False, map_conflicts=False, groups=("merger", "llm"),
        )  # fmt: skip
    return found


def module(view):
    return next(piece for piece in view.pieces() if piece.name == "gradients")


def cell(data, c, statistic, metric, group, frames):
    """(estimate, low, high, pairs) as the browser finds them: ``find`` of gradients.js."""
    one = data["checkpoints"][c]
    at = (
        [row["key"] for row in data["statistics"]].index(statistic),
        one["metrics"].index(metric),
        data["groups"].index(group),
    )
    at = (*at, one["counts"].index(frames))
    return (*unpack(one["values"])[at].tolist(), int(unpack(one["used"])[at]))


def test_every_cell_is_the_tables_row(captures):
    two = {"before": captures["before"], "after": captures["after"]}
    data = module(GradientView(two)).data
    shown = {row["key"] for row in data["statistics"]}
    for c, capture in enumerate(two.values()):
        rows = table(capture)
        for row in rows.to_dict("records"):
            wanted = [row["estimate"], row["low"], row["high"]]
            if row["statistic"] not in shown:
                assert np.isnan(row["estimate"]), f"{row['statistic']} has numbers and cannot be chosen"
                continue
            *bounds, pairs = cell(data, c, row["statistic"], row["metric"], row["group"], row["frames"])
            np.testing.assert_allclose(bounds, wanted, rtol=1e-6, atol=1e-12)
            assert pairs == row["pairs"]


def test_a_group_or_statistic_that_a_checkpoint_lacks_is_missing_and_never_0(captures):
    view = GradientView({"all": captures["after"], "least": captures["least"]})
    data = module(view).data
    for group, statistic in (("encoder", "cos"), ("merger", "frozen.share_t"), ("encoder", "interference")):
        *bounds, _ = cell(data, 1, statistic, "plain", group, 2)
        assert np.isnan(bounds).all(), (group, statistic)
    assert cell(data, 1, "cos", "plain", "encoder", 2)[-1] == 0
    assert np.isfinite(cell(data, 1, "cos", "plain", "merger", 2)[0])
    said = " ".join(view.notes)
    for part in (
        "different module groups",
        "different numbers of pairs",
        "Not captured in least: the one-step check",
        "conflict map",
        "Adam",
    ):
        assert part in said
    view.picture(), view.words(), view.data()


def test_what_is_called_what_and_measured_how():
    assert gradients_data.described("cos")["how"] == "mean over pairs"
    assert gradients_data.described("cos")["ceiling"] == "image_ceiling"
    assert gradients_data.described("interference")["how"] == "ratio of means over pairs"
    assert gradients_data.described("interference")["ceiling"] == "signal"
    assert gradients_data.described("frozen.share_t")["how"] == "root of a ratio of means over pairs"
    assert gradients_data.described("frozen.share_t")["centre"] is None, "a share excludes 0 always: no mark"
    assert gradients_data.described("conflict_rate")["centre"] == 0.5
    assert tuple(gradients_data.DEFINITIONS) == DEFINITIONS
    assert "by construction" in gradients_data.DEFINITIONS["projection"].cannot


def test_the_conflict_map_is_the_mean_over_pairs_and_adds_up(captures):
    capture = captures["before"]
    shown = module(GradientView(capture)).data["checkpoints"][0]["maps"]["4"]
    means = unpack(shown["frames"])
    values = capture.arrays["map_4"]
    for g in range(values.shape[1]):
        for f in range(4):
            wanted = mean_interval(values[:, g, f].tolist())
            np.testing.assert_allclose(means[g, f], (wanted.estimate, wanted.low, wanted.high), rtol=1e-5)
    interference = capture.arrays["values"][
        capture.meta["statistics"].index("interference"), 0, :, :, 1
    ].mean(0)
    whole = means[..., 0].sum(1) + unpack(shown["rest"]["values"]).sum(1)
    np.testing.assert_allclose(whole, interference, rtol=1e-3, atol=1e-4)
    patches = shown["patches"]
    assert patches["rows"] * patches["cols"] == capture.arrays["map_patches_4"].shape[-1]


def test_the_step_scatter_holds_every_step_beside_the_identity(captures):
    view = GradientView({"before": captures["before"], "after": captures["after"]})
    figure = next(piece for piece in view.pieces() if piece.name == "steps").figure
    for title, trace in (("before", figure.data[0]), ("after", figure.data[2])):
        taken = captures[title].arrays["one_step"].reshape(-1, 5)
        columns = captures[title].meta["step_columns"]
        assert trace.name == f"{title}: measured (n = 4)"
        np.testing.assert_allclose(trace.x, taken[:, columns.index("predicted")])
        np.testing.assert_allclose(trace.y, taken[:, columns.index("measured")])
    identity = figure.data[-1]
    assert identity.name == "measured = predicted" and list(identity.x) == list(identity.y)
    assert "nats per answer token" in figure.layout.xaxis.title.text
    assert not [piece for piece in GradientView(captures["least"]).pieces() if piece.name == "steps"]


def test_data_is_tidy_and_words_and_caption_say_n(captures):
    two = {"before": captures["before"], "after": captures["after"]}
    view = GradientView(two)
    found = view.data()
    assert set(found["checkpoint"]) == set(two) and (found["statistic"] == "map").any()
    cos = found[(found["statistic"] == "cos") & (found["checkpoint"] == "after")]
    assert len(cos) == len(table(captures["after"]).query("statistic == 'cos'"))
    assert len(found[found["statistic"] == "one_step.measured"]) == 2 * 2 * len(COUNTS)
    for title in two:
        assert f"{title}: " in view.words()
        assert f"checkpoint {title}" in view.caption()
    assert (
        "n = 2 batch pairs of 2 conversations" in view.caption() and "2 batch pairs are few" in view.words()
    )


def test_one_before_another_stands_first(captures):
    assert list(GradientView(captures["after"], captures["before"]).captures) == ["before", "after"]
    assert list(GradientView(captures["after"], captures["after"]).captures) == ["after (before)", "after"]


def test_bad_input_is_named(captures):
    foreign = Capture("fusion", {}, {})
    view = GradientView({"good": captures["before"], "odd": foreign})
    assert view.notes[0] == "odd is a capture of kind fusion: it is left out."
    with pytest.raises(CaptureError, match="gradients"):
        GradientView({"odd": foreign})
    with pytest.raises(WorkbenchError, match="no capture"):
        GradientView({})
    with pytest.raises(WorkbenchError, match=r"statistic 'cosine'.*there are cos"):
        GradientView(captures["before"], statistic="cosine")
    with pytest.raises(WorkbenchError, match="group 'eye'"):
        GradientView(captures["before"], groups=["eye"])


def test_no_bytes_travel_and_many_checkpoints_of_a_deep_model_stay_below_the_limit(captures):
    """Six checkpoints with 42 groups, four counts and both metrics."""
    capture, rng = captures["before"], np.random.default_rng(0)
    groups = ["all", "encoder", "fusion", "merger", "llm", "head", *(f"llm.{i}" for i in range(36))]
    counts, metrics = [8, 16, 32, 64], ["plain", "adam"]
    meta = capture.meta | {"groups": groups, "frame_counts": counts, "metrics": metrics}
    shape = (len(meta["statistics"]), 2, len(groups), 4)
    arrays = {
        "estimates": rng.normal(size=(*shape, 3)), "pairs_used": np.full(shape, 8, np.int32),
        "conflict_rate": rng.random((*shape[1:], 3)), "corrected_cos": rng.normal(size=(*shape[1:], 3)),
        "signal": rng.random((*shape[1:3], 3)), "trend": rng.normal(size=(*shape[:3], 3)),
        "map_64": rng.normal(size=(3, len(groups), 64)),
    }  # fmt: skip
    deep = Capture(capture.kind, arrays, meta)
    box = GradientView({f"step {i}": deep for i in range(3)}).widget
    assert_text_only(box)
    kept = sum(
        len(json.dumps({k: v for k, v in s.items() if k not in ("_esm", "_css")}))
        for _, s, _ in messages(box)
    )
    assert kept < STATE_LIMIT
    many = GradientView({f"step {i}": deep for i in range(6)}, groups=groups[:12])
    assert_text_only(many.widget)
    with pytest.raises(WorkbenchError, match="Show fewer"):
        _ = GradientView({f"step {i}": deep for i in range(12)}).widget


@needs_browser
def test_the_page_is_used_from_disk_by_keyboard(captures, tmp_path):
    capture = captures["before"]
    path = GradientView({"before": capture, "least": captures["least"]}).to_html(tmp_path / "gradients.html")
    with chromium() as browser:
        page, problems = opened(browser, path)
        grids = page.locator("table[role=grid]")
        assert grids.count() == 2
        chosen = grids.first.locator("td[tabindex='0']")
        chosen.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Home")
        at = capture.meta["groups"][1]
        row = (
            table(capture)
            .query("statistic == 'cos' and metric == 'plain' and frames == 2 and group == @at")
            .iloc[0]
        )
        said = page.locator("#piece-gradients .wb-said").first.inner_text()
        assert said.startswith(f"{at}, at 2 frames: ") and said.endswith("n = 2 pairs")
        assert float(said.split(": ")[1].split(" ")[0].replace("−", "-")) == pytest.approx(
            row["estimate"], rel=6e-3
        )
        assert (
            f"before, {at}, 2 frames, plain"
            in page.locator("#piece-gradients .wb-tall caption").first.inner_text()
        )
        missing = grids.last.locator("td.wb-missing")
        assert missing.count() > 0 and set(missing.all_inner_texts()) == {"–"}
        page.get_by_role("combobox", name="Statistic").select_option("frozen.share_t")
        page.wait_for_selector("text=root of a ratio of means over pairs")
        assert grids.first.locator("th", has_text="two image batches").count() == 0
        strip = page.locator("canvas[aria-label^='Conflict by frame']")
        strip.focus()
        page.keyboard.press("ArrowRight")
        assert (
            "frame 2 of 2"
            in page.locator("figure:has(canvas[aria-label^='Conflict by frame']) .wb-said").inner_text()
        )
        assert page.locator(".plotly").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 1100
    assert not problems


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_no_serious_barrier(captures, tmp_path, scheme):
    path = GradientView({"before": captures["before"], "least": captures["least"]}).to_html(
        tmp_path / "page.html"
    )
    with chromium() as browser:
        assert violations(browser, path, scheme) == []
