"""The probe end to end on a real tiny world: batches that can be compared, the capture, the command line, bad input."""

import copy
import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.models.hosts import tiny
from tests.training.studies import RECIPE, recipe, train, world
from workbench.captures import Capture, CaptureError
from workbench.cli.main import main
from workbench.errors import DataError
from workbench.probes.common import ProbeError
from workbench.probes.gradients import gradient_probe, table, words
from workbench.probes.gradients.batches import BatchMaker, choose_batches, counterfactual
from workbench.probes.gradients.read import step_check
from workbench.samples.reader import FrameReader
from workbench.samples.source import load_source
from workbench.training.packing import IGNORE

SMALL = {"frames": (2, 4), "pairs": 2, "batch": 2, "subspace": 1}


@pytest.fixture(scope="module")
def data():
    root = world()
    with FrameReader() as reader:
        yield load_source(root / "train/images.jsonl"), load_source(root / "train/videos.jsonl"), reader


@pytest.fixture(scope="module")
def bundle(data):
    images, videos, _ = data
    from workbench.models.tempflex import new_tempflex

    texts = {
        t for s in (*images, *videos) for turn in s.turns for t in (turn.question, turn.answer, *turn.choices)
    }
    model, processor = new_tempflex("tiny", 0, vocab_texts=sorted(texts), fusion_layers=1)
    model.activate_fusion()
    return model, processor


@pytest.fixture(scope="module")
def capture(bundle, data):
    images, videos, reader = data
    return gradient_probe(*bundle, images, videos, reader=reader, seed=3, **SMALL)


def at(capture, name, group="all", frames=2, metric="plain"):
    found = table(capture)
    row = found[
        (found.statistic == name)
        & (found.group == group)
        & (found.frames == frames)
        & (found.metric == metric)
    ]
    return row.iloc[0]


def test_capture_says_everything_and_opens_again(capture, tmp_path):
    loaded = Capture.load(capture.save(tmp_path / "g.safetensors"))
    assert loaded.kind == "gradients" and loaded.meta["seed"] == 3 and loaded.meta["frame_counts"] == [2, 4]
    for name in capture.arrays:
        np.testing.assert_array_equal(loaded.arrays[name], capture.arrays[name])
    found = table(loaded)
    assert set(found.frames) == {2, 4} and {"all", "encoder", "fusion", "merger", "llm", "llm.0"} <= set(
        found.group
    )
    assert (found.pairs <= 2).all() and found.low.le(found.estimate + 1e-9).where(
        found.low.notna(), True
    ).all()
    assert words(loaded) == words(capture) and any("2 batch pairs are few" in s for s in words(loaded))
    statistic = loaded.meta["statistics"].index("frozen.share_t")
    for g, group in enumerate(loaded.meta["groups"]):
        change = (
            at(loaded, "frozen.share_t", group, 4).estimate - at(loaded, "frozen.share_t", group, 2).estimate
        )
        assert loaded.arrays["trend"][statistic, 0, g, 0] == pytest.approx(change, abs=1e-9), group
    # the whole against its parts
    for kind in ("frozen", "shuffled", "projection", "subspace"):
        parts = at(loaded, f"{kind}.interference_s").estimate + at(loaded, f"{kind}.interference_t").estimate
        assert parts == pytest.approx(at(loaded, "interference").estimate, abs=1e-6)


def test_reading_a_capture_needs_no_torch(capture, tmp_path):
    path = capture.save(tmp_path / "g.safetensors")
    program = (
        "import sys; from workbench.captures import Capture; from workbench.probes.gradients import table, words; "
        f"c = Capture.load({str(path)!r}); assert len(table(c)) and words(c); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_map_adds_up_to_the_interference_and_the_step_to_the_prediction(capture):
    groups, frames = capture.meta["groups"], capture.meta["frame_counts"]
    interference = capture.arrays["values"][capture.meta["statistics"].index("interference"), 0]
    for n, count in enumerate(frames):
        total = capture.arrays[f"map_{count}"].sum(-1) + capture.arrays[f"map_rest_{count}"].sum(-1)
        np.testing.assert_allclose(total, interference[:, :, n], rtol=1e-4, atol=1e-5)
        assert capture.arrays[f"map_{count}"].shape == (2, len(groups), count)
    steps = step_check(capture)
    assert len(steps) == 4
    scale = float(np.sqrt((steps.predicted**2).mean()))
    assert float(np.sqrt(((steps.first_order - steps.predicted) ** 2).mean())) < 0.1 * scale


def test_same_seed_same_numbers_and_model_untouched(bundle, data, capture):
    images, videos, reader = data
    model, processor = bundle
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again = gradient_probe(
        model, processor, images, videos, reader=reader, seed=3, copies=4, map_conflicts=False, **SMALL
    )
    np.testing.assert_allclose(again.arrays["values"], capture.arrays["values"], rtol=1e-9)
    assert again.meta["cost"]["passes"] < capture.meta["cost"]["passes"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_batches_match_in_answer_length_and_share_no_sample(bundle, data):
    images, videos, reader = data
    _, processor = bundle
    drawn = choose_batches(processor, images, videos, reader, frames=4, pairs=3, batch=4, held_out=2, seed=1)
    used = [i.sample.id for items in (*drawn.images, *drawn.others, *drawn.held_out) for i in items]
    assert len(used) == len(set(used)) == 4 * 8
    films = [i.sample.id for items in drawn.videos for i in items]
    assert len(films) == len(set(films)) == 12
    maker = BatchMaker(processor, reader, tokens_per_row=128, seed=1)
    for image, video in zip(drawn.images, drawn.videos, strict=True):
        lengths = [
            [int((maker.prepared(i, n).labels != IGNORE).sum()) for i in items]
            for items, n in ((image, 1), (video, 4))
        ]
        assert lengths[0] == lengths[1]
        assert maker.batch(image).answer_tokens == maker.batch(video, 4, "frozen").answer_tokens
    assert all(i.sample.min_frames == 1 for items in drawn.static for i in items)


def test_counterfactual_clips(data):
    _, videos, reader = data
    clip = reader.read(videos[0].media, (0, 5, 9, 20))
    frozen, shuffled = counterfactual(clip, "frozen"), counterfactual(clip, "shuffled", "key")
    assert (frozen.frames == clip.frames[2]).all() and frozen.timestamps_s == clip.timestamps_s
    assert shuffled.indices != clip.indices and sorted(shuffled.indices) == sorted(clip.indices)
    for frame, index in zip(shuffled.frames, shuffled.indices, strict=True):
        assert (frame == clip.frames[clip.indices.index(index)]).all()
    assert counterfactual(clip, "shuffled", "key").indices == shuffled.indices
    one = reader.read(videos[0].media, (3,))
    assert (counterfactual(one, "shuffled").frames == one.frames).all()


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "llava_onevision"])
def test_stock_hosts(kind, data):
    images, videos, reader = data
    model, processor = tiny.tiny_host(kind)
    found = gradient_probe(
        model, processor, images, videos, reader=reader, frames=(2,), pairs=2, batch=2, subspace=0,
        counterfactuals=("frozen",), static=False,
    )  # fmt: skip
    total = found.arrays["map_2"].sum(-1) + found.arrays["map_rest_2"].sum(-1)
    interference = found.arrays["values"][found.meta["statistics"].index("interference"), 0, :, :, 0]
    np.testing.assert_allclose(total, interference, rtol=1e-3, atol=1e-4)
    assert np.isfinite(at(found, "frozen.share_t", "llm.1").estimate)


# -- bad input -------------------------------------------------------------------------------------


def test_samples_without_answer_are_named(bundle, data):
    images, videos, reader = data
    turns = (dataclasses.replace(images[5].turns[0], answer=" "),)
    broken = [dataclasses.replace(images[5], turns=turns, where="train.jsonl:6")]
    with pytest.raises(DataError, match=rf"train.jsonl:6: .*{images[5].id}.*has no answer"):
        gradient_probe(*bundle, broken * 40, videos, reader=reader, **SMALL)


def test_too_few_samples_too_short_clips_and_mixed_kinds_are_said(bundle, data):
    images, videos, reader = data
    with pytest.raises(DataError, match=r"10 different images.*there are not enough"):
        gradient_probe(*bundle, images[:9], videos, reader=reader, **SMALL)
    with pytest.raises(DataError, match=r"different videos.*unusable \(it has 32 of 500 frames\)"):
        gradient_probe(*bundle, images, videos, reader=reader, **SMALL | {"frames": (500,)})
    with pytest.raises(DataError, match="Give images and videos apart"):
        gradient_probe(*bundle, videos, videos, reader=reader, **SMALL)


def test_nonsense_arguments_and_memory_are_refused(bundle, data):
    images, videos, reader = data
    for change, message in (
        ({"frames": ()}, "leave nothing to measure"),
        ({"pairs": 0}, "leave nothing to measure"),
        ({"counterfactuals": ("reversed",)}, "there are frozen, shuffled"),
        ({"groups": ("decoder",)}, "it has encoder, fusion, merger, llm"),
        ({"copies": 10**8}, r"that takes .* GiB, .* GiB are free. Lower copies"),
    ):
        with pytest.raises(ProbeError, match=message):
            gradient_probe(*bundle, images, videos, reader=reader, **SMALL | change)
    with pytest.raises(CaptureError, match="this is a capture of 'atlas'"):
        table(Capture("atlas", {}, {}))
    model = copy.deepcopy(bundle[0])
    with torch.no_grad():
        model.merger.mlp_in.weight[0, 0] = torch.nan
    with pytest.raises(ProbeError, match=r"weights of merger.mlp_in.weight are not finite"):
        gradient_probe(model, bundle[1], images, videos, reader=reader, **SMALL)


def test_a_run_is_probed_from_the_command_line(tmp_path, capsys):
    stages = copy.deepcopy(RECIPE["stages"][1:])
    stages[0] |= {"steps": 3, "checkpoint_every": None}
    made = train(recipe(tmp_path, stages=stages), tmp_path / "run", timeout=500)
    assert made.returncode == 0, made.stderr
    run = next(path.parent for path in (tmp_path / "run").rglob("run.json"))
    asked = [
        *("probe", "gradients", str(run), "--frames", "2"),
        *("--pairs", "2", "--batch", "2", "--subspace", "0"),
    ]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "cos(g_I, g_V)" in printed and "One-step check" in printed
    found = Capture.load(next((run / "captures").glob("gradients-*.safetensors")))
    assert found.meta["metrics"] == ["plain", "adam"] and found.meta["checkpoint"]["step"] == 3
    assert found.meta["recipe_hash"] and np.isfinite(at(found, "cos", metric="adam").estimate)
    for change, message in (
        (("--videos", "captions"), "the recipe's source 'captions' holds none"),
        (("--checkpoint", "none"), "the run has stage-sft"),
    ):
        assert main([*asked, *change]) == 2
        assert message in capsys.readouterr().err
    shards = tmp_path / "sharded"
    shards.mkdir()
    (shards / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"")
    assert main(["probe", "gradients", str(shards)]) == 2
    assert "holds ZeRO shards" in capsys.readouterr().err
