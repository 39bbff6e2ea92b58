"""The fusion probe on tiny models and real files: what it stores, counts, compares, says and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from tests.models.hosts import tiny
from tests.models.worlds import clip, model
from workbench.captures import Capture, CaptureError
from workbench.cli import main
from workbench.errors import DataError
from workbench.models.tempflex import load_tempflex, save_tempflex
from workbench.probes.common import Checkpoint, ProbeError
from workbench.probes.fusion import changes, comparison_words, fusion_probe, table, words
from workbench.probes.fusion.names import HORIZON, NUMBERS
from workbench.probes.fusion.probe import check_memory
from workbench.probes.fusion.read import sweep_changes
from workbench.runs import Run
from workbench.samples.sample import ImageRef, Sample, Turn, VideoRef
from workbench.samples.source import load_source

VARIANTS = ["paper", "release"]


def awake(variant: str = "paper", layers: int = 2, seed: int = 0, **options):
    """A model whose fusion is not as it was drawn, so that branches, patches and frames differ."""
    made, processor = model(seed=seed, fusion_layers=layers, variant=variant, **options)
    made.activate_fusion()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in made.fusion.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return made, processor


def asked(name: str, video: bool) -> Sample:
    ref = VideoRef(Path(name)) if video else ImageRef(Path(name))
    return Sample(name, (Turn("what colour comes first?", "red"),), ref)


def shown(videos: int = 3, images: int = 3, frames: int = 6):
    """Samples and their clips in memory."""
    samples = [asked(f"v{i}", True) for i in range(videos)] + [asked(f"i{i}", False) for i in range(images)]
    clips = [clip(frames, seed=i) for i in range(videos)] + [clip(1, seed=50 + i) for i in range(images)]
    return samples, clips


@pytest.fixture(scope="module", params=VARIANTS)
def captured(request):
    """(model, processor, samples, clips, capture) of each variant."""
    made, processor = awake(request.param)
    samples, clips = shown()
    capture = fusion_probe(
        made, processor, samples, clips=clips, frames=(4, 1, 2), kernels=True, parts=True,
        checkpoint=Checkpoint("mine", 7),
    )  # fmt: skip
    return made, processor, samples, clips, capture


def test_maps_are_of_what_the_model_computes(captured):
    """Input and output of every layer in a whole forward pass of the model, not of the lens."""
    made, processor, samples, clips, capture = captured
    indices = capture.meta["clips"]["4"]["indices"]
    assert indices == [0, 6, 9, 15]  # midpoints 0, 2, 3, 5 of six frames that were every third of the source
    at = [clips[0].indices.index(i) for i in indices]
    given = type(clips[0])(clips[0].frames[at], tuple(indices), tuple(clips[0].timestamps_s[i] for i in at))
    prepared = processor.prepare(samples[0], given)
    seen = []
    hooks = [
        layer.register_forward_hook(lambda _, a, o: seen.append((a[0], o[0]))) for layer in made.fusion.layers
    ]
    with torch.no_grad():
        made(
            input_ids=prepared.input_ids[None],
            pixel_values=prepared.pixel_values,
            grids=torch.tensor([prepared.grid]),
        )
    for hook in hooks:
        hook.remove()
    norms, parts = capture.arrays["norms_4"], capture.arrays["parts_4"]
    assert len(seen) == 2 and norms.shape == (2, 4, 16, 8) and parts.shape == (2, 4, 16, 6, 64)
    for layer, (x, z) in enumerate((x[:, 0].numpy(), z[:, 0].numpy()) for x, z in seen):
        np.testing.assert_allclose(norms[layer, ..., 0], np.linalg.norm(x, axis=-1), rtol=1e-4)
        np.testing.assert_allclose(norms[layer, ..., -1], np.linalg.norm(z, axis=-1), rtol=1e-4)
        np.testing.assert_allclose(x + parts[layer].sum(2), z, rtol=1e-4, atol=1e-4)
    assert capture.arrays["check_4"].max() < 1e-5


def test_every_array_has_the_shape_that_its_axes_and_names_say(captured):
    *_, capture = captured
    meta = capture.meta
    sizes = {
        "layer": 2, "place": 16, "branch": len(meta["branches"]), "part": len(meta["parts"]),
        "norm": len(meta["norms"]), "horizon": len(meta["horizon"]), "tap": len(meta["taps"]), "offset": 3,
        "channel": 64, "clip": 3, "image": 3, "frames": 3, "number": len(meta["numbers"]), "bound": 3,
        "y": 32, "x": 32, "rgb": 3,
    }  # fmt: skip
    sizes |= {f"{axis}_{n}": n for axis in ("frame", "seen") for n in (1, 2, 4)}
    for name, array in capture.arrays.items():
        assert array.shape == tuple(sizes[axis] for axis in meta["axes"][name]), name
    assert meta["frame_counts"] == [1, 2, 4] and meta["places"] == {
        "what": "patch in raster order",
        "rows": 4,
        "cols": 4,
    }
    assert meta["checkpoint"] == {"name": "mine", "step": 7, "sha256": None} and meta["sample"]["id"] == "v0"
    assert capture.token_map is not None and capture.token_map.grid == (4, 4, 4)
    kernels = capture.arrays["kernels_full_4"]
    np.testing.assert_allclose(capture.arrays["kernels_4"][..., :3], kernels.mean(-1), atol=1e-6)
    np.testing.assert_allclose(
        capture.arrays["kernels_4"][..., 3:], np.linalg.norm(kernels, axis=-1), rtol=1e-5
    )
    np.testing.assert_allclose(capture.arrays["weights_4"].sum(-1), 1, rtol=1e-5)


def test_sweep_and_still_images_come_from_the_same_lens(captured):
    """The mapped clip's row of the sweep follows from its maps; an image's whole change from the fusion itself."""
    made, processor, samples, clips, capture = captured
    number = {name: at for at, name in enumerate(NUMBERS)}
    for i, n in enumerate((1, 2, 4)):
        row = capture.arrays["sweep"][0, i]
        horizon = capture.arrays[f"horizon_{n}"]
        for name in ("effective_frames", "past_share", "mean_age", "mass"):
            wanted = horizon[:, -1, :, HORIZON.index(name)].mean(1)
            np.testing.assert_allclose(row[:, number[name]], wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            row[:, number["beta_memory"]], capture.arrays[f"weights_{n}"][..., 1].mean(1), rtol=1e-5
        )
        shares = row[:, [number[f"share_{part}"] for part in capture.meta["parts"]]]
        np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    for i in range(3):
        prepared = processor.prepare(samples[3 + i], clips[3 + i])
        with torch.no_grad():
            ((_, x),) = made.encode(prepared.pixel_values, torch.tensor([prepared.grid]))
            z = made.fusion(x)
        assert capture.arrays["still_whole"][i] == pytest.approx(float((z - x).norm() / x.norm()), rel=1e-5)
    leak = capture.arrays["sweep"][:, 2, :, number["leak"]]
    assert (leak > 0).all() if made.fusion.variant == "release" else (leak == 0).all()


def test_intervals_are_students(captured):
    *_, capture = captured
    values = capture.arrays["still"][:, 0, 0]
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    np.testing.assert_allclose(capture.arrays["still_mean"][0, 0], [values.mean(), low, high])
    rows = table(capture)
    row = rows[(rows["shown"] == "images") & (rows["layer"] == 0) & (rows["number"] == "update")].iloc[0]
    assert (row["estimate"], row["low"], row["high"], row["n"]) == pytest.approx(
        (values.mean(), low, high, 3)
    )
    found = sweep_changes(capture)
    row = found[(found["layer"] == 1) & (found["number"] == "past_share")].iloc[0]
    a, b = capture.arrays["sweep"][:, 0, 1], capture.arrays["sweep"][:, 2, 1]
    at = NUMBERS.index("past_share")
    test = stats.ttest_rel(b[:, at], a[:, at])
    assert row["p"] == pytest.approx(test.pvalue) and row["p_holm"] >= row["p"]
    interval = test.confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))


def test_words_hold_the_numbers_and_their_intervals(captured):
    made, *_, capture = captured
    said = words(capture)
    estimate, low, high = 100 * capture.arrays["still_whole_mean"]
    assert said[0].startswith("Still images move by ") and "n = 3 images" in said[0] and "are few" in said[0]
    first = said[0].split("move by ")[1].split(" of their")[0]
    for value, text in zip(
        (estimate, low, high),
        first.replace("%", "").replace("]", "").replace("[", "").replace(",", "").split(),
        strict=True,
    ):
        assert float(text) == pytest.approx(value, abs=0.051)
    text = " ".join(said)
    assert (
        "At 4 frames 2 different cosines are left of 5 frequencies: 4, 8, 16 are a constant gain; 2 only"
        in text
    )
    assert ("(leak)" in text) == (made.fusion.variant == "release")
    assert "From 1 to 4 frames the memory's weight on earlier frames in layer 0 goes from 0.0% to" in text
    assert (
        "At 1 frame 0 different cosines are left of 5 frequencies: 1, 2, 4, 8, 16 are a constant gain"
        in " ".join(words(capture, 1))
    )
    with pytest.raises(ValueError, match="3 frames were not probed; the counts are 1, 2, 4"):
        words(capture, 3)


def test_a_capture_is_read_without_torch(captured, tmp_path):
    *_, capture = captured
    path = capture.save(tmp_path / "c.safetensors")
    code = (
        "import sys\nfrom workbench.captures import Capture\nfrom workbench.probes.fusion import changes, table, words\n"
        "c = Capture.load(sys.argv[1])\nprint(words(c)[0], len(table(c)), len(changes(c, c)))\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(words(capture)[0])


def test_streamed_to_a_file_is_the_same(captured, tmp_path):
    made, processor, samples, clips, capture = captured
    streamed = fusion_probe(
        made, processor, samples, clips=clips, frames=(4, 1, 2), kernels=True, parts=True, path=tmp_path / "c.safetensors",
    )  # fmt: skip
    assert set(streamed.arrays) == set(capture.arrays)
    for name in streamed.arrays:
        np.testing.assert_array_equal(streamed.arrays[name], capture.arrays[name], err_msg=name)
    assert list(tmp_path.iterdir()) == [tmp_path / "c.safetensors"]


def test_a_clip_that_is_too_short_is_left_out_and_never_repeated():
    made, processor = awake(layers=1)
    samples, clips = shown(3, 0)
    clips[0] = clip(3, seed=9)
    capture = fusion_probe(made, processor, samples, clips=clips, frames=(2, 6))
    assert np.isnan(capture.arrays["sweep"][0, 1]).all() and np.isfinite(capture.arrays["sweep"][0, 0]).all()
    assert capture.meta["sample"]["id"] == "v1"  # maps: the first that has every count
    assert capture.meta["left_out"] == ["v0 has 3 frames: left out above that"]
    rows = table(capture)
    assert rows[rows["frames"] == 6]["n"].unique().tolist() == [2] and "still" not in capture.arrays
    with pytest.raises(ProbeError, match="the longest of 3 videos has 6"):
        fusion_probe(made, processor, samples, clips=clips, frames=(2, 7))


def test_words_name_a_leading_branch_only_when_its_lead_is_shown():
    """Every clip with one order of branches gives a leader; branches that take turns give none."""
    made, processor = awake(layers=1)
    samples, clips = shown(6, 0, 4)
    with torch.no_grad():
        made.fusion.layers[0].blend.bias.copy_(torch.tensor([0.0, 3.0, -3.0]))
        made.fusion.layers[0].blend.weight.mul_(0.1)
    capture = fusion_probe(made, processor, samples, clips=clips, frames=(2,))
    assert "There memory weighs most: " in " ".join(words(capture))
    at = [NUMBERS.index(f"beta_{name}") for name in ("local", "memory")]
    turns = capture.arrays["sweep"].copy()
    turns[::2, 0, 0, at[0]], turns[::2, 0, 0, at[1]] = turns[::2, 0, 0, at[1]], turns[::2, 0, 0, at[0]]
    mixed = Capture(capture.kind, {**capture.arrays, "sweep": turns}, capture.meta)
    assert "There no branch is shown to weigh most" in " ".join(words(mixed))


def test_images_alone_and_images_that_bypass_the_fusion():
    made, processor = awake(layers=1, images="bypass")
    samples, clips = shown(0, 2)
    made.train()
    capture = fusion_probe(made, processor, samples, clips=clips)
    assert made.training and capture.meta["frame_counts"] == [1] and "sweep" not in capture.arrays
    assert capture.arrays["weights_1"].shape == (1, 16, 3)
    assert words(capture)[0].startswith(
        "This model lets still images bypass the fusion; sent through it they would move by"
    )


def test_change_between_checkpoints_is_paired():
    (before, processor), (after, _) = awake(layers=1, seed=0), awake(layers=1, seed=1)
    samples, clips = shown(3, 2)
    first = fusion_probe(before, processor, samples, clips=clips, frames=(2, 4))
    second = fusion_probe(after, processor, samples[1:], clips=clips[1:], frames=(4,))
    found = changes(first, second)
    assert set(found["frames"]) == {1, 4} and set(found["n"]) == {2}
    row = found[(found["shown"] == "videos") & (found["layer"] == "whole")].iloc[0]
    wanted = second.arrays["sweep_whole"][:, 0] - first.arrays["sweep_whole"][1:, 1]
    assert row["difference"] == pytest.approx(wanted.mean())
    identical = changes(first, first)
    assert (identical["difference"] == 0).all() and identical["p"].isna().all()
    assert all(sentence.startswith("No change shown") for sentence in comparison_words(first, first))
    with pytest.raises(CaptureError, match="at 3 frames: the counts in common are 4"):
        comparison_words(first, second, 3)
    third = fusion_probe(after, processor, samples[:1], clips=clips[:1], frames=(3,))
    with pytest.raises(CaptureError, match="no image or clip at one frame count and layer in common"):
        changes(first, third)
    with pytest.raises(CaptureError, match="it is of kind other"):
        table(Capture("other", {}, {}))


# -- bad input -------------------------------------------------------------------------------------


def test_models_without_an_active_fusion_say_how_to_get_one():
    samples, clips = shown(1, 0)
    made, processor = model(fusion_layers=0)
    with pytest.raises(
        ProbeError,
        match=r"this tempflex model: it has none.*load_tempflex\(folder, fusion_layers=4, use_fusion=True\)",
    ):
        fusion_probe(made, processor, samples, clips=clips)
    made, processor = model(fusion_layers=1)
    made.config.use_fusion = False
    with pytest.raises(ProbeError, match=r"its fusion is asleep.*load_tempflex\(folder, use_fusion=True\)"):
        fusion_probe(made, processor, samples, clips=clips)
    host, own = tiny.tiny_host("qwen2_5_vl")
    with pytest.raises(ProbeError, match=r"this qwen2_5_vl model: it has none"):
        fusion_probe(host, own, samples, clips=clips)


def test_the_ways_out_that_the_errors_name_work(tmp_path):
    made, processor = model(fusion_layers=0)
    made.config.use_fusion = False  # as the stages before the fusion leave it
    save_tempflex(made, processor, tmp_path / "without")
    made, processor = model(fusion_layers=1)
    made.config.use_fusion = False
    save_tempflex(made, processor, tmp_path / "asleep")
    samples, clips = shown(1, 1, 3)
    for folder, options in (
        ("without", {"fusion_layers": 2, "use_fusion": True}),
        ("asleep", {"use_fusion": True}),
    ):
        loaded, processor = load_tempflex(tmp_path / folder, **options)
        capture = fusion_probe(loaded, processor, samples, clips=clips, frames=(3,))
        assert capture.arrays["check_3"].max() < 1e-4


def test_what_cannot_be_shown_is_refused():
    made, processor = awake(layers=1)
    samples, clips = shown(1, 1)
    with pytest.raises(ProbeError, match=r"frame counts are \[0, 2\]"):
        fusion_probe(made, processor, samples, clips=clips, frames=(2, 0))
    with pytest.raises(DataError, match="there are 1 clips for 2 samples"):
        fusion_probe(made, processor, samples, clips=clips[:1])
    with pytest.raises(ProbeError, match="none has an image or video"):
        fusion_probe(made, processor, [Sample("t", (Turn("a", "b"),))])
    with pytest.raises(ProbeError, match="no sample of 1 can be shown"):
        fusion_probe(made, processor, [asked("/nowhere.mp4", True)], frames=(2,))
    with torch.no_grad():
        next(made.encoder.parameters())[0] = float("inf")
    with pytest.raises(ProbeError, match="layer 0 of the fusion: its input is not finite"):
        fusion_probe(made, processor, samples, clips=clips, frames=(2,))


def test_too_large_a_clip_says_the_size_and_what_to_reduce():
    with pytest.raises(
        ProbeError,
        match=r"128 frames with 8192 patches of 1152 channels: it needs about .* GiB.*fewer frames",
    ):
        check_memory(128, 8192, 1152, available=2 << 30)
    with pytest.raises(ProbeError, match="leave out parts, or write to a path"):
        check_memory(64, 900, 1152, kept=4, available=8 << 30)
    check_memory(64, 900, 1152, available=8 << 30)


# -- the command -----------------------------------------------------------------------------------

RECIPE = """
name: small
model: {{preset: tiny, fusion_layers: 1}}
data:
  root: {root}
  sources: {{clips: {{path: clips.jsonl}}, pictures: {{path: pictures.jsonl}}}}
stages: [{{name: one, train: {{llm: 0.001}}, data: {{clips: 1}}, steps: 1}}]
evaluation: {{suites: {{pictures: pictures, clips: clips}}, common_frames: 4}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a checkpoint whose fusion sleeps and two where it is awake; clips and pictures on disk."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    def picture(path):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)

    def row(name, kind, file):
        said = [{"from": "human", "value": f"<{kind}>\nleft or right ?"}, {"from": "gpt", "value": "left"}]
        return json.dumps({"id": name, kind: file, "conversations": said}) + "\n"

    clips, pictures = [], []
    for i in range(3):
        (root / f"c{i}").mkdir()
        for f in range(4):
            picture(root / f"c{i}" / f"{f:03d}.png")
        clips += [row(f"v{i}", "video", f"c{i}"), row(f"again{i}", "video", f"c{i}")]
        picture(root / f"p{i}.png")
        pictures.append(row(f"i{i}", "image", f"p{i}.png"))
    (root / "clips.jsonl").write_text("".join(clips))
    (root / "pictures.jsonl").write_text("".join(pictures))
    opened = Run.create(root / "run", RECIPE.format(root=root), {"recipe_hash": "abc"})
    for seed, name in enumerate(("asleep", "before", "after")):
        made, processor = awake(layers=1, seed=seed)
        made.config.use_fusion = name != "asleep"
        with opened.checkpoint_dir(name) as path:
            save_tempflex(made, processor, path / "model")
    opened.finish("finished")
    return opened


def probe(*given: object) -> int:
    return main(["probe", "fusion", *map(str, given)])


def test_the_command_probes_a_run_and_compares(run, capsys):
    assert probe(run.directory, "--checkpoint", "before", "--sweep", "1,2") == 0
    before = run.capture_path("fusion-before")
    assert str(before) in capsys.readouterr().out
    assert (
        probe(
            run.directory, "--sweep", "2", "--frames", "4", "--images", "2", "--kernels", "--against", before
        )
        == 0
    )
    said = capsys.readouterr().out
    assert (
        "Still images move by" in said and "n = 2 images" in said and "self-check max |x + parts - z|" in said
    )
    assert "before to after, at 2 frames" in said and "Layer 0 at 4 frames (n = 3 clips)" in said
    capture = Capture.load(run.capture_path("fusion-after"))
    assert capture.meta["videos"] == ["v0", "v1", "v2"] and capture.meta["images"] == ["i0", "i1"]
    assert capture.meta["recipe_hash"] == "abc" and capture.meta["frame_counts"] == [2, 4]
    assert capture.arrays["kernels_full_4"].shape == (1, 16, 3, 64)
    assert str(run.directory) not in json.dumps(capture.meta)


def test_the_command_says_in_one_line_what_is_wrong(run, capsys):
    assert probe(run.directory, "--checkpoint", "asleep") == 2
    said = capsys.readouterr().err
    assert "its fusion is asleep" in said and said.strip().count("\n") == 0 and "Traceback" not in said
    assert probe(run.directory, "--sweep", "2,99") == 2
    assert "the longest of 3 videos has 4" in capsys.readouterr().err
    assert not run.capture_path("fusion-asleep").exists()


def test_the_face_reads_files_itself(run):
    made, processor = awake(layers=1)
    samples = load_source(run.directory.parent / "clips.jsonl")
    capture = fusion_probe(made, processor, samples, frames=(4,))
    assert capture.meta["videos"] == ["v0", "v1", "v2"]  # a clip asked about twice counts once
    assert capture.meta["clips"]["4"]["indices"] == [0, 1, 2, 3]
