"""Token maps tell the truth: what a box encloses in the source frame is what moves the patches of its token; text
columns follow the chat template."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.hosts.tiny import KINDS, clip, sample, tiny_host
from workbench.models.hosts.anyres import bilinear_sources
from workbench.models.tokenmap import TokenMap
from workbench.samples.sample import Clip

torch.set_num_threads(1)
HOSTS = {kind: tiny_host(kind) for kind in KINDS}
SIZES = {"qwen2_5_vl": (32, 24), "qwen3_vl": (32, 24), "llava": (24, 16), "llava_next_video": (32, 16)}


def patch_rows(kind: str, prepared, patch: int, frame: int) -> torch.Tensor:
    """The pixels of a patch of the token map in ``pixel_values``, flattened."""
    values, (_, rows, cols) = prepared.pixel_values, prepared.token_map.grid
    if kind.startswith("qwen"):
        cells = torch.arange(rows * cols).view(rows // 2, 2, cols // 2, 2).transpose(1, 2).flatten()
        place = int((cells == patch).nonzero())
        return values[(frame // 2) * rows * cols + place]
    side = cols
    view = frame if prepared.grid[0] > 1 or rows == side else patch // (side * side)
    row, col = patch // side % side, patch % side
    return values[view, :, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4].flatten()


@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_boxes_frames_and_patches_are_where_they_say(kind, video):
    """Paint one token's box in one source frame: exactly that token's patches must change most, in that frame."""
    processor = HOSTS[kind][1]
    width, height = SIZES.get(kind, (40, 20))
    n = 4 if video else 1
    grey = Clip(
        np.full((n, height, width, 3), 100, dtype=np.uint8), tuple(range(n)), tuple(map(float, range(n)))
    )
    before = processor.prepare(sample(n), grey)
    table = before.token_map
    rng = np.random.default_rng(0)
    visual = table.visual
    assert len(visual) and table.grid is not None and table.frame_size == (width, height)
    for position in rng.choice(visual, size=min(12, len(visual)), replace=False):
        x0, y0, x1, y1 = table.boxes[position]
        if (x1 - x0) * (y1 - y0) < 1:  # in the padding of a tiled picture
            continue
        first, stop = table.frame_span[position]
        frame = int(rng.integers(first, stop))
        painted = grey.frames.copy()
        painted[
            frame, round(y0) : max(round(y1), round(y0) + 1), round(x0) : max(round(x1), round(x0) + 1)
        ] = 250
        after = processor.prepare(sample(n), dataclasses.replace(grey, frames=painted))
        assert after.token_map == table and torch.equal(after.input_ids, before.input_ids)
        moved = (after.pixel_values - before.pixel_values).abs()
        own = [int(p) for p in table.patches[position] if p >= 0]
        change = [
            float((patch_rows(kind, after, p, frame) - patch_rows(kind, before, p, frame)).abs().mean())
            for p in own
        ]
        assert min(change) > 0.1 * float(moved.max()), (position, change)
        # and no patch of another frame moved
        if video and not kind.startswith("qwen"):
            others = [f for f in range(n) if f != frame]
            assert not moved[others].any()
        if video and kind.startswith("qwen"):
            _, rows, cols = table.grid
            assert not moved.view(-1, rows * cols, moved.shape[-1])[1 - frame // 2].any()


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_two_source_frames_a_token(kind, frames):
    p = HOSTS[kind][1].prepare(sample(frames, video=True), clip(frames))
    spans = {tuple(int(i) for i in p.token_map.frame_span[i]) for i in p.token_map.visual}
    assert spans == {(i, min(i + 2, frames)) for i in range(0, frames, 2)}
    last = p.token_map.visual[-1]
    assert p.token_map.frames(last) == clip(frames).indices[(frames - 1) // 2 * 2 :]
    assert p.token_map.time_span(last) == (0.5 * ((frames - 1) // 2 * 2), 0.5 * (frames - 1))


@pytest.mark.parametrize("kind", KINDS)
def test_text_columns(kind):
    processor = HOSTS[kind][1]
    asked = sample(4, turns=3)
    p = processor.prepare(asked, clip(4))
    table, tokenizer = p.token_map, processor.tokenizer

    def text(name, turn):
        where = [i for i in table.where(name) if table.turn[i] == turn]
        return tokenizer.decode(p.input_ids[where]).strip()

    for i, turn in enumerate(asked.turns):
        assert text("question", i) == turn.question and text("answer", i) == turn.answer
    learned = (p.labels != -100).numpy()
    assert (p.labels[learned] == p.input_ids[learned]).all()
    ends = np.flatnonzero(learned & (table.kind != 2))
    assert len(ends) == 3 and set(p.input_ids[ends].tolist()) == {processor.end_token_id}
    assert learned.sum() == len(table.where("answer")) + 3
    assert (len(table.where("system")) > 0) == (kind == "qwen2_5_vl")
    assert "helpful assistant" in text("system", -1) or kind != "qwen2_5_vl"
    assert (table.turn[table.visual] == -1).all() and TokenMap.from_json(table.to_json()) == table
    # the third turn on its own, and left open
    one = processor.prepare(asked, clip(4), turns=(2,), with_answers=False)
    assert set(one.token_map.turn.tolist()) == {-1, 2} and not (one.labels != -100).any()
    assert not len(one.token_map.where("answer"))
    whole = processor.prepare(asked, clip(4), turns=(2,))
    assert whole.input_ids[: len(one)].tolist() == one.input_ids.tolist()
    tail = [*processor.answer_ids(asked.turns[2].answer), processor.end_token_id]
    assert whole.input_ids[len(one) :].tolist() == tail


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl", "llava_onevision"])
def test_conversations_equal_the_whole_template(kind):
    """Where the template ends answers with a token of its own, several turns are its text, tokenised as one."""
    processor = HOSTS[kind][1]
    asked = sample(0, turns=3)
    messages = []
    for turn in asked.turns:
        for role, said in (("user", turn.question), ("assistant", turn.answer)):
            messages.append({"role": role, "content": [{"type": "text", "text": said}]})
    tokenizer = processor.tokenizer
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    if kind == "llava_onevision":  # its generation prompt lacks the space its past answers have
        whole = whole.replace("assistant \n", "assistant\n")
    got = processor.prepare(asked, None).input_ids.tolist()
    assert got == tokenizer(whole.rstrip())["input_ids"]


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 30), to=st.integers(1, 30))
def test_bilinear_sources(size, to):
    """Against torch's own weights: one-hot signals through ``interpolate``."""
    to = min(to, size)
    signal = torch.eye(size, dtype=torch.float64)[:, None]  # [size, 1, size]
    out = torch.nn.functional.interpolate(signal, to, mode="linear")[:, 0]
    got = bilinear_sources(size, to)
    for j in range(to):
        read = set(torch.nonzero(out[:, j] > 1e-9).flatten().tolist())
        assert read <= set(got[j].tolist()) and (
            len(read) == len(set(got[j].tolist())) or out[:, j].max() > 1 - 1e-6
        )


def test_newlines_of_tiled_pictures():
    """A newline behind every row of the tiled picture, none behind the whole view; counts as the published rule."""
    for kind in ("llava_next_video", "llava_onevision"):
        model, processor = HOSTS[kind]
        for width, height in ((64, 16), (16, 64), (30, 31), (90, 40)):
            p = processor.prepare(sample(1), clip(1, width, height))
            counted = model.media_tokens(torch.tensor([p.grid]))[0]
            assert counted == p.visual_tokens
            newline = p.token_map.where("newline")
            assert (p.token_map.frame_span[newline] == [0, 1]).all() and (
                p.token_map.patches[newline] == -1
            ).all()
            rest = counted - model.side**2
            assert rest % len(newline) == 0  # rows of equal length
    p = HOSTS["llava_onevision"][1].prepare(sample(4), clip(4))
    assert len(p.token_map.where("newline")) == 1  # one behind the last frame of a video
