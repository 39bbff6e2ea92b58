"""The fusion lens as a view: numbers against the capture, comparison that says what it cannot do, pages in Chromium."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.browser import chromium, needs_browser
from tests.probes.test_fusion_probe import awake, shown
from tests.views.axe import needs_axe, violations
from tests.views.pages import opened
from tests.views.transport import assert_text_only, messages
from workbench.captures import Capture, CaptureError
from workbench.models.tempflex.fusion_ops import aliased_frequencies
from workbench.probes.common import Checkpoint
from workbench.probes.fusion import fusion_probe, table
from workbench.views import fusion_data, ternary
from workbench.views.fusion import FusionView
from workbench.views.payload import STATE_LIMIT, size_of, unpack

LAYERS, COUNTS = 2, (1, 2, 4)


def look(variant: str, seed: int, videos: int = 4, images: int = 3, frames: int = 6, **options) -> Capture:
    made, processor = awake(variant, layers=options.pop("layers", LAYERS), seed=seed)
    samples, clips = shown(videos, images, frames)
    return fusion_probe(
        made, processor, samples, clips=clips, frames=options.pop("frames_shown", COUNTS),
        checkpoint=Checkpoint(f"{variant}-{seed}", 7), **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def captures():
    return {"before": look("paper", 0), "after": look("paper", 1), "release": look("release", 0)}


def kept(box) -> int:
    """Bytes that a notebook keeps of a view, without the code of its modules and of plotly."""
    return sum(
        len(json.dumps({key: value for key, value in state.items() if key not in ("_esm", "_css")}))
        for _, state, _ in messages(box)
    )


def questions(view):
    """Every question the browser may ask, with what it gets without asking and what only the kernel or page knows."""
    lens = next(piece for piece in view.pieces() if piece.name == "lens")
    known = {json.loads(key)["map"] for key in lens.data["details"]}
    return lens, known


def test_maps_are_the_captures_numbers(captures):
    view = FusionView(captures["after"], captures["before"])
    lens, _ = questions(view)
    for side, capture in enumerate((captures["before"], captures["after"])):
        for n in COUNTS:
            for layer in range(LAYERS):
                base = lens.answer({"side": side, "frames": n, "layer": layer, "map": ""})
                betas = unpack(base["weights"])
                assert np.array_equal(betas, capture.arrays[f"weights_{n}"][layer])
                assert np.abs(ternary.grid()[unpack(base["mix"])] - betas).max() <= 1 / ternary.STEPS
                kept = unpack(base["memory"])
                assert np.array_equal(np.isnan(kept), np.triu(np.ones((n, n), bool), 1)), (
                    "the future is not 0, it is hidden"
                )
                for key, _, _, array, column, _ in fusion_data.film_maps(capture):
                    found = lens.answer({"side": side, "frames": n, "layer": layer, "map": key})["map"]
                    wanted = capture.arrays[f"{array}_{n}"][layer, ..., column]
                    step = (found["high"] - found["low"]) / 254
                    np.testing.assert_allclose(unpack(found), wanted, atol=0.51 * step + 1e-6)


def test_one_scale_serves_both_checkpoints_all_layers_and_counts(captures):
    view = FusionView(captures["after"], captures["before"])
    lens, _ = questions(view)
    for key, _, _, _, _, kind in fusion_data.film_maps(captures["after"]):
        ends = {
            (found["map"]["low"], found["map"]["high"])
            for side in (0, 1)
            for n in COUNTS
            for layer in range(LAYERS)
            for found in [lens.answer({"side": side, "frames": n, "layer": layer, "map": key})]
        }
        assert len(ends) == 1
        if kind == "diverging":
            low, high = ends.pop()
            assert low == -high, "0 is the middle of a diverging scale"


def test_the_horizon_is_spread_over_channels_and_older_captures_say_so(captures):
    capture = captures["after"]
    values = capture.arrays["horizon_channels_4"][1]
    row = fusion_data.spread(capture, 4)[1]
    assert (
        row[2] == pytest.approx(np.median(values)) and row[5] == pytest.approx(values.mean()) and row[6] == 64
    )
    arrays = {name: a for name, a in capture.arrays.items() if not name.startswith("horizon_channels")}
    old = Capture(capture.kind, arrays, capture.meta)
    assert fusion_data.spread(old, 4)[1][6] == 16
    assert any("not stored by channel" in note for note in FusionView(old).notes)
    assert not any("not stored by channel" in note for note in FusionView(capture).notes)


def test_data_holds_every_mean_and_every_mixture(captures):
    view = FusionView(captures["after"], captures["before"])
    found = view.data()
    assert set(found["checkpoint"]) == {"paper-0", "paper-1"}
    own = found[(found["checkpoint"] == "paper-1") & (found["shown"] != "map")]
    wanted = table(captures["after"])
    assert len(own) == len(wanted) and own["estimate"].astype(float).sum() == pytest.approx(
        wanted["estimate"].sum()
    )
    cells = found[
        (found["shown"] == "map") & (found["frames"] == 4) & (found["layer"] == 1) & (found["place"] == 5)
    ]
    betas = cells[cells["checkpoint"] == "paper-0"].set_index("number")["estimate"].astype(float)
    assert betas["beta_memory"] == pytest.approx(captures["before"].arrays["weights_4"][1, 5, 1])
    assert betas.sum() == pytest.approx(1)


def test_words_and_caption_say_what_was_seen_and_where_it_comes_from(captures):
    view = FusionView(captures["release"], captures["before"])
    said = view.words()
    assert "paper variant before and of the release variant after" in said
    assert (
        "paper-0 (paper variant): Still images move by" in said
        and "release-0 (release variant): Still images" in said
    )
    for part in (
        "paper-0, step 7",
        "release-0, step 7",
        "4 clips and 3 still images",
        "seed 0",
        "workbench ",
    ):
        assert part in view.caption()


def test_the_frequency_panel_knows_the_captures_frequencies_and_gains(captures):
    view = FusionView(captures["release"])
    data = next(piece for piece in view.pieces() if piece.name == "frequencies").data
    assert data["frequencies"] == [1, 2, 4, 8, 16] and data["sides"][0]["variant"] == "release"
    assert data["sides"][0]["gains"]["1"] == [[5.0]] * LAYERS
    for n in COUNTS:
        groups = aliased_frequencies(n, (1, 2, 4, 8, 16))
        assert captures["release"].meta["frequencies"][str(n)]["folded"] == {
            str(k): list(v) for k, v in groups.items()
        }


def test_what_the_other_side_lacks_is_said_and_the_rest_is_shown(captures):
    other = look("paper", 2, videos=2, images=0, layers=1, frames_shown=(2, 3))
    renamed = Capture(
        other.kind, other.arrays, other.meta | {"sample": {"id": "elsewhere", "question": "?", "answer": "!"}}
    )
    view = FusionView(captures["after"], renamed)
    said = " ".join(view.notes)
    for part in (
        "different models",
        "different clips (elsewhere and v0)",
        "1, 3, 4 frames",
        "no still images were probed",
    ):
        assert part in said
    lens, _ = questions(view)
    assert (
        "holds no layer 1 at 4 frames (counts: 2, 3"
        in lens.answer({"side": 0, "frames": 4, "layer": 1, "map": ""})["missing"]
    )
    assert "weights" in lens.answer({"side": 1, "frames": 4, "layer": 1, "map": ""})
    view.words(), view.data(), view.picture()
    foreign = Capture("attention_rows", {}, {})
    assert "of kind attention_rows: it is left out" in FusionView(captures["after"], foreign).notes[0]
    with pytest.raises(CaptureError, match="fusion"):
        FusionView(foreign)


def test_images_alone_make_a_view(captures):
    view = FusionView(look("paper", 0, videos=0, images=2))
    assert "the maps are of a still image" in " ".join(view.notes)
    view.picture()
    assert view.shown.widgets["lens"].picks["frames"] == 1


def test_a_clip_of_many_frames_and_patches_stays_below_the_limits(captures):
    """256 frames of 32 x 32 patches in 4 layers: what does not fit is asked for."""
    capture, rng = captures["after"], np.random.default_rng(0)
    frames, patches, layers = 256, 1024, 4
    meta = capture.meta | {
        "frame_counts": [frames],
        "layers": layers,
        "places": {"rows": 32, "cols": 32},
        "clips": {},
    }
    meta["frequencies"] = {str(frames): capture.meta["frequencies"]["4"]}
    arrays = {
        f"weights_{frames}": rng.dirichlet((1, 1, 1), (layers, patches)).astype(np.float32),
        f"norms_{frames}": rng.random((layers, frames, patches, 8), dtype=np.float32),
        f"memory_weights_{frames}": rng.random((layers, frames, frames), dtype=np.float32),
    }
    view = FusionView(Capture(capture.kind, arrays, meta))
    lens, known = questions(view)
    assert size_of(lens.data) < STATE_LIMIT and known <= {"", "norm memory"}
    found = lens.answer({"side": 0, "frames": frames, "layer": 3, "map": "norm memory"})["map"]
    assert found["shape"] == [frames, patches] and size_of(found) < STATE_LIMIT
    assert_text_only(view.widget)
    assert kept(view.widget) < STATE_LIMIT


def test_no_bytes_travel_and_an_exported_page_carries_every_map(captures):
    view = FusionView(captures["after"], captures["before"])
    assert_text_only(view.widget)
    assert kept(view.widget) < STATE_LIMIT
    lens, _ = questions(view)
    asked = [
        *(json.loads(key) for key in lens.data["details"]),
        *(question for question, _ in lens.carried()),
    ]
    wanted = list(fusion_data.questions([captures["before"], captures["after"]]))
    assert {fusion_data.key_of(q) for q in asked} == {fusion_data.key_of(q) for q in wanted}


@needs_browser
def test_the_page_is_used_from_disk_by_keyboard(captures, tmp_path):
    path = FusionView(captures["release"], captures["before"]).to_html(tmp_path / "fusion.html")
    with chromium() as browser:
        page, problems = opened(browser, path)
        page.wait_for_selector("#piece-lens .wb-panel canvas")
        canvas = page.locator("#piece-lens .wb-reel canvas").last
        before = canvas.evaluate("c => c.toDataURL()")
        page.get_by_role("slider", name="Layer").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.querySelector('#piece-numbers td').textContent.includes('update')")
        page.wait_for_function(
            "b => [...document.querySelectorAll('#piece-lens .wb-reel canvas')].at(-1).toDataURL() !== b",
            arg=before,
        )
        page.get_by_role("slider", name="Frames shown").focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("text=At 2 frames 1 different cosine is left of 5 frequencies")
        page.get_by_role("slider", name="Frames F").focus()
        page.keyboard.press("Home")
        page.wait_for_selector("text=At F = 1 (a still image): 5.")
        assert page.locator(".wb-badge.wb-alert").count() == 5
        map_ = page.locator("#piece-lens canvas[aria-label^='Mixture']").last
        map_.focus()
        page.keyboard.press("ArrowDown")
        said = page.locator(
            "#piece-lens figure:has(canvas[aria-label^='Mixture']) .wb-said"
        ).last.inner_text()
        shares = captures["release"].arrays["weights_2"][1, 4]
        assert said.startswith("row 2, column 1: local ")
        found = [float(part.split()[-1].rstrip("%")) for part in said.split(": ")[1].split(",")]
        assert found == pytest.approx(100 * shares, rel=6e-3)
        page.get_by_role("combobox", name="Marks in the triangle").select_option("sweep")
        page.wait_for_function(
            "document.querySelector('#piece-lens svg[aria-label*=\"4 clips at 2 frames\"]')"
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= 1100
    assert not problems


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_no_serious_barrier(captures, tmp_path, scheme):
    path = FusionView(captures["release"], captures["before"]).to_html(tmp_path / "page.html")
    with chromium() as browser:
        assert violations(browser, path, scheme) == []
