"""The frames inside captures: those the model was given, small, in every probe of one clip, and only if wanted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.models.worlds import model as tempflex
from tests.probes.attention_worlds import world
from workbench.captures import Capture
from workbench.cli import main
from workbench.models.tempflex import save_tempflex
from workbench.probes.asked import Asked, make_captures
from workbench.probes.atlas import temporal_atlas
from workbench.probes.attention import Look, attention_rows
from workbench.probes.attention_packed import attention_rows_packed, generation_rows
from workbench.probes.attribution import attribution_map
from workbench.probes.fusion import fusion_probe
from workbench.probes.knockout import knockout_map
from workbench.probes.pictures import LONG_SIDE, pictures_of
from workbench.recipe.probes import ProbeSection
from workbench.runs import Run
from workbench.samples.sample import Clip

RECIPE = """
name: small
model: {{preset: tiny, fusion_layers: 1}}
data:
  root: {root}
  sources: {{test: {{path: rows.jsonl}}}}
stages: [{{name: one, train: {{llm: 0.001}}, data: {{test: 1}}, steps: 1}}]
evaluation: {{suites: {{clips: test}}, common_frames: 3}}
"""


@pytest.fixture(scope="module", params=["tempflex", "qwen2_5_vl"])
def shown(request):
    """A model, its processor, five frames (an odd number: Qwen merges two) and how each probe is called."""
    model, processor, sample, clip = world(request.param)
    return model, processor, sample(5), clip(5)


PROBES = {
    "attention_rows": lambda *given, **more: attention_rows(*given, **more),
    "encoder_mean": lambda *given, **more: attention_rows(*given, where="encoder", **more),
    "encoder_rows": lambda *given, **more: attention_rows(*given, [0, 3], where="encoder", **more),
    "generation_rows": lambda *given, **more: generation_rows(*given, 2, look=Look(**more)),
    "temporal_atlas": lambda *given, **more: temporal_atlas(*given, look=Look(**more)),
    "knockout": lambda *given, **more: knockout_map(*given, "all", checks=0, **more),
    "attribution": lambda *given, **more: attribution_map(*given, ("attention", "knockout"), **more),
}


@pytest.mark.parametrize("kind", PROBES)
def test_every_probe_of_a_clip_keeps_the_frames_it_was_given(shown, kind, tmp_path):
    *_, clip = shown
    made = PROBES[kind](*shown)
    assert made.kind == kind
    np.testing.assert_array_equal(made.arrays["pictures"], clip.frames)  # smaller than the limit: untouched
    back = Capture.load(made.save(tmp_path / "c.safetensors"))
    assert back.meta["axes"]["pictures"] == ["clip_frame", "y", "x", "rgb"]
    assert "160 pixels" in back.meta["units"]["pictures"]
    lengths: dict[str, set[int]] = {}
    for name, axes in back.meta["axes"].items():
        for axis, length in zip(axes, back.arrays[name].shape, strict=True):
            lengths.setdefault(axis, set()).add(length)
    assert len(back.meta["frames"]["indices"]) == len(back.arrays["pictures"])
    assert all(len(found) == 1 for found in lengths.values()), "axes of one name have one length"
    bare = PROBES[kind](*shown, pictures=False)
    assert set(made.arrays) - set(bare.arrays) == {"pictures"}


def test_packed_samples_keep_their_own_frames_and_text_has_none():
    model, processor, sample, clip = world("tempflex")
    given = [(sample(2), clip(2)), (sample(0), None), (sample(4), clip(4))]
    first, text, last = attention_rows_packed(model, processor, given, "text", tokens_per_row=4096)
    assert first.arrays["pictures"].shape[0] == 2 and "pictures" not in text.arrays
    np.testing.assert_array_equal(last.arrays["pictures"], given[2][1].frames)


def test_fusion_keeps_the_frames_of_each_count():
    made, processor = tempflex(fusion_layers=1)
    made.activate_fusion()
    _, _, sample, clip = world("tempflex")
    capture = fusion_probe(made, processor, [sample(4)], clips=[clip(4)], frames=(2, 4))
    np.testing.assert_array_equal(capture.arrays["pictures_4"], clip(4).frames)
    np.testing.assert_array_equal(capture.arrays["pictures_2"], clip(4).frames[[1, 3]])
    assert capture.meta["axes"]["pictures_2"] == ["frame_2", "y", "x", "rgb"]
    bare = fusion_probe(made, processor, [sample(4)], clips=[clip(4)], frames=(2,), pictures=False)
    assert not [name for name in bare.arrays if name.startswith("pictures")]


@pytest.mark.parametrize("size", [(720, 1280), (1280, 720), (200, 200), (161, 2), (160, 160), (33, 40)])
def test_pictures_shrink_to_the_limit_keep_their_form_and_never_grow(size):
    height, width = size
    y, x = np.mgrid[:height, :width]
    gradient = np.stack([255 * y / height, 255 * x / width, 128 + 0 * x], -1).astype(np.uint8)
    small = pictures_of(Clip(np.stack([gradient, gradient[::-1]]), (0, 1), (0.0, 0.5)))
    tall, wide = small.shape[1:3]
    assert small.dtype == np.uint8 and max(tall, wide) == min(LONG_SIDE, max(size))
    assert tall / wide == pytest.approx(height / width, rel=0.02)
    # a gradient stays a gradient: each small pixel is the mean of what it covers, the second frame upside down
    wanted = gradient[((np.arange(tall) + 0.5) * height / tall).astype(int)][
        :, ((np.arange(wide) + 0.5) * width / wide).astype(int)
    ]
    assert np.abs(small[0].astype(int) - wanted).max() <= (
        0 if (tall, wide) == size else 130 if wide == 1 else 4
    )
    np.testing.assert_array_equal(small[1], small[0][::-1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a checkpoint and a clip of 200 x 100 pixels."""
    root = tmp_path_factory.mktemp("data")
    (root / "clip").mkdir()
    for f in range(6):
        Image.new("RGB", (200, 100), (40 * f, 0, 0)).save(root / "clip" / f"{f:03d}.png")
    said = [{"from": "human", "value": "<video>\nwhat colour ?"}, {"from": "gpt", "value": "red"}]
    (root / "rows.jsonl").write_text(json.dumps({"id": "v", "video": "clip", "conversations": said}) + "\n")
    opened = Run.create(root / "run", RECIPE.format(root=root), {"recipe_hash": "abc"})
    with opened.checkpoint_dir("end") as path:
        save_tempflex(*tempflex("tiny"), path / "model")
    opened.finish("finished")
    return opened.directory


def test_a_section_and_a_command_can_leave_them_out(run, tmp_path, capsys):
    section = ProbeSection(probe="knockout", windows="all", checks=0, pictures=False)
    (path,) = make_captures(Asked(run, section, "bare"))
    assert "pictures" not in Capture.load(path).arrays
    for flags, there in (([], True), (["--no-pictures"], False)):
        out = tmp_path / f"{there}.safetensors"
        assert main(["probe", "atlas", str(run), "--frames", "3", "--out", str(out), *flags]) == 0
        assert ("pictures" in Capture.load(out).arrays) == there
    pictures = Capture.load(tmp_path / "True.safetensors").arrays["pictures"]
    assert pictures.shape == (3, 80, 160, 3)
    assert [int(frame.mean((0, 1))[0]) for frame in pictures] == [40, 120, 200]  # midpoints 1, 3, 5
    capsys.readouterr()


def test_a_capture_from_before_pictures_is_used_until_pictures_are_asked_for(run):
    """Old captures are right about all that was measured; only who insists on pictures has them made again."""
    plain = ProbeSection(probe="attention", layers=(0,))
    (path,) = make_captures(Asked(run, plain, "old"))
    made = Capture.load(path)
    kept = {name: array for name, array in made.arrays.items() if name != "pictures"}
    for part in ("axes", "units"):
        made.meta[part].pop("pictures")
    Capture(made.kind, kept, made.meta).save(path)  # as an older version wrote it
    before = path.stat().st_mtime_ns
    (again,) = make_captures(Asked(run, plain, "old"))
    assert again == path and path.stat().st_mtime_ns == before
    insisting = plain.model_copy(update={"pictures": True})
    make_captures(Asked(run, insisting, "old"))
    after = path.stat().st_mtime_ns
    assert after != before and "pictures" in Capture.load(path).arrays
    make_captures(Asked(run, plain, "old"))
    make_captures(Asked(run, insisting, "old"))
    assert path.stat().st_mtime_ns == after
