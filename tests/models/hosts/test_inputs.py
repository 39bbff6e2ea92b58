"""What goes into a host equals what its published processor makes, token by token and pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.video_utils import VideoMetadata

from tests.models.hosts.published import published
from tests.models.hosts.tiny import KINDS, clip, sample, tiny_host
from workbench.errors import DataError
from workbench.models.hosts.qwen import bounded_size, patchify

torch.set_num_threads(1)
HOSTS = {kind: tiny_host(kind)[1] for kind in KINDS}
PUBLISHED = {kind: published(kind, processor) for kind, processor in HOSTS.items()}
VIDEO_KINDS = [kind for kind in KINDS if kind != "llava"]


def prompt(kind: str, media: list[dict], question: str) -> str:
    message = {"role": "user", "content": [*media, {"type": "text", "text": question}]}
    return PUBLISHED[kind].tokenizer.apply_chat_template(
        [message], tokenize=False, add_generation_prompt=True
    )


def ours(kind: str, asked, shown):
    return HOSTS[kind].prepare(asked, shown, turns=(0,), with_answers=False)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(width=st.integers(7, 90), height=st.integers(7, 90))
def test_an_image(kind, width, height):
    shown, asked = clip(1, width, height), sample(1)
    prepared = ours(kind, asked, shown)
    picture = Image.fromarray(shown.frames[0])
    theirs = PUBLISHED[kind](
        text=[prompt(kind, [{"type": "image"}], asked.question)], images=[picture], return_tensors="pt"
    )
    assert prepared.input_ids.tolist() == theirs["input_ids"][0].tolist()
    pixels = theirs["pixel_values"]
    if pixels.dim() == 5:
        pixels = pixels[0]
        assert theirs["image_sizes"].tolist() == [list(prepared.grid[3:])]
    if "image_grid_thw" in theirs:
        assert list(prepared.grid[:3]) == theirs["image_grid_thw"][0].tolist()
    torch.testing.assert_close(prepared.pixel_values, pixels, rtol=1e-6, atol=2e-6)


def test_frames_as_several_pictures():
    """LLaVA-1.5 knows no video: its frames equal several images of the published processor."""
    shown, asked = clip(4, 40, 24), sample(4)
    prepared = ours("llava", asked, shown)
    pictures = [Image.fromarray(frame) for frame in shown.frames]
    text = prompt("llava", [{"type": "image"}] * 4, asked.question)
    theirs = PUBLISHED["llava"](text=[text], images=[pictures], return_tensors="pt")
    assert prepared.input_ids.tolist() == theirs["input_ids"][0].tolist()
    torch.testing.assert_close(prepared.pixel_values, theirs["pixel_values"], rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("kind", VIDEO_KINDS)
@settings(max_examples=15, deadline=None)
@given(
    frames=st.integers(1, 9),
    width=st.integers(9, 60),
    height=st.integers(9, 60),
    fps=st.sampled_from([1, 2.5, 24]),
)
def test_the_text_of_a_video(kind, frames, width, height, fps):
    """Placeholders, times and their order, by the published processor's own methods."""
    shown = clip(frames, width, height, spacing_s=3 / fps)
    prepared = ours(kind, asked := sample(frames, video=True), shown)
    processor = PUBLISHED[kind]
    inputs = {
        "pixel_values_videos": [prepared.pixel_values.numpy()],
        "video_grid_thw": torch.tensor([prepared.grid[:3]]),
        "video_metadata": [
            VideoMetadata(total_num_frames=99, fps=fps, frames_indices=np.array(shown.indices))
        ],
    }
    expanded = processor.replace_video_token(inputs, video_idx=0)
    text, _ = processor.get_text_with_replacements(
        [prompt(kind, [{"type": "video"}], asked.question)], videos_replacements=[expanded]
    )
    assert prepared.input_ids.tolist() == processor.tokenizer(text[0])["input_ids"]


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
@settings(max_examples=15, deadline=None)
@given(frames=st.integers(1, 7), width=st.integers(9, 60), height=st.integers(9, 60))
def test_the_pixels_of_a_qwen_video(kind, frames, width, height):
    """Sizes as published; every frame as the published image processor treats one of that size; patches in the order of
    the published video processor."""
    processor, shown = HOSTS[kind], clip(frames, width, height)
    prepared = ours(kind, sample(frames, video=True), shown)
    t, rows, cols = prepared.grid[:3]
    if kind == "qwen3_vl":
        theirs = Qwen3VLVideoProcessor(**processor.files.video())
        patches = theirs.get_num_of_video_patches(max(frames, 2), height, width)
        assert t * rows * cols == patches
    assert t == -(-frames // 2)
    frames_px = []
    for frame in shown.frames:
        exact = np.asarray(Image.fromarray(frame).resize((cols * 4, rows * 4), Image.Resampling.BICUBIC))
        frames_px.append(torch.from_numpy(exact.transpose(2, 0, 1).copy()).float() / 255 * 2 - 1)
    video = Qwen3VLVideoProcessor(**processor.files.video())
    patches, *grid = video.patchify(torch.stack(frames_px)[None], 4, 2, 2)
    assert grid == [t, rows, cols]
    torch.testing.assert_close(prepared.pixel_values, patches[0], rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("kind", ["llava_next_video", "llava_onevision"])
def test_the_pixels_of_a_llava_video(kind):
    """The published video processors do to each frame what the image processors do to a whole picture."""
    shown = clip(3, 50, 30)
    prepared = ours(kind, sample(3), shown)
    if kind == "llava_onevision":
        each = [
            PUBLISHED[kind].image_processor(Image.fromarray(f), return_tensors="pt") for f in shown.frames
        ]
        expected = torch.stack(
            [out["pixel_values"][0][0] for out in each]
        )  # the first view: the whole, stretched
    else:
        pictures = [Image.fromarray(frame) for frame in shown.frames]
        expected = PUBLISHED["llava"].image_processor(pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(prepared.pixel_values, expected, rtol=1e-6, atol=2e-6)


def test_pillow_and_torch_resize_alike():
    """The published *video* processors resize with torch's antialiased bicubic filter, ours with Pillow's: on a
    photo-like picture they differ by at most two grey levels."""
    y, x = np.mgrid[0:360, 0:640]
    scene = np.stack([128 + 90 * np.sin(x / 23 + y / 31), x * 255 / 640, y * 255 / 360], -1).clip(0, 255)
    frame = scene.astype(np.uint8)
    pil = np.asarray(Image.fromarray(frame).resize((252, 140), Image.Resampling.BICUBIC)).astype(int)
    tensor = torch.from_numpy(frame.transpose(2, 0, 1).copy())[None]
    other = torch.nn.functional.interpolate(tensor, (140, 252), mode="bicubic", antialias=True)
    assert np.abs(pil - other[0].numpy().transpose(1, 2, 0).astype(int)).max() <= 2


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_sizes_of_qwen_images(height, width):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    try:
        expected = smart_resize(height, width, 28, 3136, 1_003_520)
    except ValueError:
        with pytest.raises(ValueError, match="200 times"):
            bounded_size(height, width, 28, 3136, 1_003_520)
    else:
        assert bounded_size(height, width, 28, 3136, 1_003_520) == expected


def test_patchify_repeats_the_last_frame():
    frames = torch.randn(3, 3, 16, 16)
    assert torch.equal(patchify(frames, 4, 2, 2), patchify(torch.cat([frames, frames[-1:]]), 4, 2, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_bad_samples(kind):
    import dataclasses

    processor, asked = HOSTS[kind], sample(1)
    with pytest.raises(DataError, match="no frames were given"):
        processor.prepare(asked, None)
    with pytest.raises(DataError, match="no turn is kept"):
        processor.prepare(asked, clip(1), turns=())
    mark = processor.tokenizer.convert_ids_to_tokens(processor.mark_ids["image"])
    if mark != "<image>":  # that one is taken out of questions
        bad = dataclasses.replace(
            asked, turns=(dataclasses.replace(asked.turns[0], question=f"what is {mark} ?"),)
        )
        with pytest.raises(DataError, match="placeholder"):
            processor.prepare(bad, clip(1))
    bad = dataclasses.replace(asked, turns=(dataclasses.replace(asked.turns[0], answer=f"a {mark}"),))
    with pytest.raises(DataError, match="placeholder"):
        processor.prepare(bad, clip(1))
    if kind.startswith("qwen"):
        with pytest.raises(DataError, match="200 times"):
            processor.prepare(asked, clip(1, width=2100, height=8))
