"""Notebook 07: a stand-in host and a clip it makes; then a model folder and a video file of the reader's own."""

from __future__ import annotations

import re

import av
import nbformat
import numpy as np
import pytest
import torch
import transformers

from tests.notebooks.conftest import variables
from tests.notebooks.executed import (
    NOTEBOOKS,
    PLOTLY,
    assert_clean,
    assert_stored_clean,
    assert_text_only,
    cell,
    execute,
    outputs,
    printed,
)  # fmt: skip
from workbench.errors import WorkbenchError
from workbench.models import load_model
from workbench.models.hosts.rehearsal import rehearsal_host
from workbench.recipe import load_recipe
from workbench.runs import Run, read_metrics
from workbench.samples.sample import Clip, Sample, Turn, VideoRef
from workbench.study.run import check_inputs

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
NOTEBOOK = NOTEBOOKS / "07_your_own_model.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"
QUESTION, CHOICES = "what colour is the two?", ("red", "blue", "green")


@pytest.fixture(scope="module")
def environment(small_trap):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(small_trap).items():
            patch.setenv(name, value)
        yield small_trap


@pytest.fixture(scope="module")
def executed(environment):
    return execute(NOTEBOOK)


def test_every_cell_runs_and_sends_no_bytes(executed):
    book, messages = executed
    assert_clean(book)
    assert_text_only(messages)


def test_frames_and_times_are_those_of_the_file(executed, environment):
    with av.open(str(environment / "own-model" / "clips" / "mine.mp4")) as file:
        stream = file.streams.video[0]
        times = [float(f.pts * stream.time_base) for f in file.decode(stream)]
    assert len(times) == 48
    said = printed(cell(executed[0], "midpoint_indices"))
    told = [float(t) for t in re.search(r"^at (.*) s$", said, flags=re.M)[1].split(", ")]
    assert told == pytest.approx([times[(2 * i + 1) * 48 // 16] for i in range(8)], abs=0.006)
    assert "48 frames of 64x64, 12 a second" in said


def test_both_models_answer_and_are_looked_into(executed):
    book, _ = executed
    answers = outputs(book, "text/html")
    assert sum("probability" in t and "frames_used" in t for t in answers) == 2
    views = [o for c in book.cells if c.cell_type == "code" for o in c.outputs if WIDGET in o.get("data", {})]
    assert len(views) == 3 and all("image/png" in v.data for v in views), "a still is kept beside each view"
    words = [v.data["text/plain"] for v in views]
    assert words[0].startswith("Attention") and "qwen2_5_vl" in words[0] and "tempflex" in words[1]
    assert words[2].startswith("Effect of frames")


def test_it_really_trains_and_the_result_loads_again(executed, environment):
    run = Run.open(environment / "own-model-sft" / "runs" / "video-sft-s0")
    losses = read_metrics(run.directory)["loss"].to_numpy()
    assert len(losses) == 10 and losses[-1] < losses[0]
    start, tuned = (
        load_model(p)[0].state_dict() for p in (environment / "own-model/stand-in", run.latest_checkpoint())
    )
    moved = {name for name in start if not torch.equal(start[name], tuned[name])}
    groups = load_model(environment / "own-model/stand-in")[0].module_groups()
    assert moved & set(groups["llm"]) and moved & set(groups["merger"])
    assert not moved & set(groups["encoder"]), "a group that is not named is frozen"
    assert "before" in printed(cell(executed[0], "test clips")) and outputs(executed[0], PLOTLY)


def test_a_model_and_a_clip_of_ones_own(environment, tmp_path):
    """Everything up to the answers, with a folder and a short, wide video file."""
    model = rehearsal_host(tmp_path / "model", [QUESTION, *CHOICES], seed=3)
    clip = tmp_path / "film.mkv"
    with av.open(str(clip), "w") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        for i in range(6):
            frame = np.full((48, 80, 3), 30 * i, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    book = nbformat.read(NOTEBOOK, as_version=4)
    last = next(i for i, c in enumerate(book.cells) if c.source.startswith("## 5."))
    book.cells = book.cells[:last]
    nbformat.write(book, tmp_path / "short.ipynb")
    changes = [("MODEL = None", f"MODEL = {str(model)!r}"), ("CLIP = None", f"CLIP = {str(clip)!r}")]
    done, _ = execute(tmp_path / "short.ipynb", *changes, folder=NOTEBOOKS)
    assert_clean(done)
    said = printed(cell(done, "midpoint_indices"))
    assert "6 frames of 80x48, 5 a second" in said and said.count(",") >= 6, (
        "six frames are six, never repeated"
    )


def test_the_stand_in_is_an_ordinary_folder_with_words_for_tokens(tmp_path):
    folder = rehearsal_host(tmp_path / "a", [QUESTION, *CHOICES])
    model, processor = load_model(folder)
    assert sum(p.numel() for p in model.parameters()) < 500_000
    assert [len(processor.answer_ids(choice)) for choice in CHOICES] == [1, 1, 1]
    stock = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    assert {n for n, _ in stock.named_parameters()} == {
        n.removeprefix("host.") for n, _ in model.named_parameters()
    }
    again, other = (
        load_model(rehearsal_host(tmp_path / name, [QUESTION], seed=s))[0] for name, s in (("b", 0), ("c", 1))
    )
    assert not torch.equal(next(again.parameters()), next(other.parameters()))
    frames = np.zeros((4, 48, 64, 3), np.uint8)
    clip = Clip(frames, (0, 1, 2, 3), (0.0, 0.5, 1.0, 1.5))
    prepared = processor.prepare(Sample("a", (Turn(QUESTION, "red", CHOICES),), VideoRef(folder)), clip)
    text = processor.tokenizer.decode(prepared.input_ids.tolist())
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n")
    assert text.rstrip().endswith("<|im_start|>assistant\nred<|im_end|>")


def test_a_recipe_starts_from_a_folder_a_checkpoint_or_says_what_is_wrong(executed, environment, tmp_path):
    recipe = load_recipe(environment / "own-model" / "own-model.yaml")
    check_inputs(recipe)
    saved = Run.open(environment / "own-model-sft" / "runs" / "video-sft-s0").latest_checkpoint()
    for good in (saved, saved / "model"):
        check_inputs(
            recipe.model_copy(update={"model": recipe.model.model_copy(update={"checkpoint": str(good)})})
        )
    for bad, message in ((tmp_path, "no config.json"), (tmp_path / "gone", "no such folder")):
        with pytest.raises(WorkbenchError, match=message):
            check_inputs(
                recipe.model_copy(update={"model": recipe.model.model_copy(update={"checkpoint": str(bad)})})
            )


def test_it_is_stored_clean_and_downloads_nothing_by_itself():
    assert_stored_clean(NOTEBOOK)
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "MODEL = None" in text and "random weights" in text
