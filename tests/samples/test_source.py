"""The loader: good rows become samples, bad rows are named by file and line."""

from __future__ import annotations

import json
import os
import time

import pytest

from workbench.cli.data import register
from workbench.errors import DataError
from workbench.samples.sample import ImageRef, Sample, Turn, VideoRef
from workbench.samples.source import load_source

IMAGE = "<image>\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "media").mkdir()
    for name in ("a.png", "b.png", "c.mov"):
        (tmp_path / "media" / name).write_bytes(b"x")
    (tmp_path / "media" / "frames").mkdir()
    return tmp_path


def talk(*values, roles=("human", "gpt")):
    return [{"from": roles[i % 2], "value": value} for i, value in enumerate(values)]


def good(name="r", **more):
    row = {"id": name, "image": "media/a.png", "skill": "ocr", "choices": ["one", "two"]}
    return row | {"conversations": talk(IMAGE + "what digit?", "two")} | more


def write(folder, *rows):
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return folder / "rows.jsonl"


def without(key, row=None):
    return {k: v for k, v in (row or good()).items() if k != key}


def test_a_row_becomes_a_sample(folder):
    path = write(
        folder,
        good(min_frames=1),
        b"",
        {"id": "t", "conversations": talk("hello?", "hi")},
        {"id": "v", "video": "media/c.mov", "frames": 4, "conversations": talk("see <video> well?", "yes")},
        good("f", video="media/frames", image=None, conversations=talk("what?\n<video>", "one")),
    )
    first, text, video, frames = load_source(path)
    turn = Turn("what digit?", "two", ("one", "two"), "ocr")
    media = ImageRef(folder / "media/a.png")
    assert first == Sample("r", (turn,), media, "rows", None, 1, f"{path}:1")
    assert text.media is None and text.skill == "unknown" and text.where.endswith(":3") and text.choices == ()
    assert video.question == "see well?" and video.frames_column == 4
    assert (
        frames.media == VideoRef(folder / "media/frames") and frames.question == "what?" and frames.is_video
    )


def test_several_turns_keep_their_skills_and_choices(folder):
    row = good(
        skill=["ocr", "count"],
        choices=[["one", "two"], ["three", "four"]],
        conversations=talk(IMAGE + "what?", "two", "how many?", "four"),
    )
    path = write(folder, row, good("other"))
    assert [t.choices for t in load_source(path)[0].turns] == [("one", "two"), ("three", "four")]
    (only,) = load_source(path, skills=["count"])
    assert only.turns == (Turn("how many?", "four", ("three", "four"), "count"),) and only.media is not None
    assert [len(s.turns) for s in load_source(path, skills=["ocr"])] == [1, 1]
    assert len(load_source(path, limit=1)) == 1
    with pytest.raises(DataError, match="its skills are count, ocr"):
        load_source(path, skills=["speed"])


BAD = {
    "not JSON": (b'{"id": "x",', "not JSON"),
    "not UTF-8": (b'{"id": "caf\xe9"}', r"byte 161 of the file is not UTF-8"),
    "not an object": (b"[1, 2]", "a JSON list, not an object"),
    "deep": (b"[" * 200_000, "not JSON|nested too deeply"),
    "lone surrogate": (good(conversations=talk(IMAGE + "what \ud800?", "two")), "half a character"),
    "null byte in path": (good(image="a\0b/c.png"), "does not exist"),
    "no id": (without("id"), "no id"),
    "id twice": (good("first"), "id 'first' was used in line 1"),
    "missing image": (good(image="media/z.png"), r"media/z\.png does not exist"),
    "missing folder": (good(image="nowhere/a.png"), r"nowhere/a\.png does not exist"),
    "two images": (good(image=["media/a.png", "media/b.png"]), "not one path"),
    "image and video": (good(video="media/c.mov"), "an image and a video"),
    "no conversation": (without("conversations"), "conversation is empty"),
    "empty conversation": (good(conversations=[]), "conversation is empty"),
    "no gpt turn": (good(conversations=talk(IMAGE + "what?")), "last question has no answer"),
    "empty answer": (good(conversations=talk(IMAGE + "what?", " \n")), "turn 2 has no answer"),
    "answer not text": (good(conversations=talk(IMAGE + "what?", 2)), "turn 2 has no answer"),
    "roles turned": (good(conversations=talk("a", "b", roles=("gpt", "human"))), "turn 1 is from 'gpt'"),
    "two humans": (good(conversations=talk("a", "b", roles=("human", "human"))), "turn 2 is from 'human'"),
    "turn is text": (good(conversations=["what?", "two"]), "turn 1 is from None"),
    "no mark": (good(conversations=talk("what?", "two")), "0 <image> marks for 1 image"),
    "two marks": (good(conversations=talk(IMAGE * 2 + "what?", "two")), "2 <image> marks for 1 image"),
    "mark in a later turn too": (
        good(conversations=talk(IMAGE + "what?", "two", IMAGE + "and?", "two")),
        "2 <image> marks for 1 image",
    ),
    "wrong mark": (good(conversations=talk("<video>\nwhat?", "two")), "0 <image> marks for 1 image"),
    "mark without media": (without("image"), "1 <image> marks for 0 image"),
    "only a mark": (good(conversations=talk(IMAGE, "two")), "question is only <image>"),
    "answer not a choice": (good(choices=["one", "three"]), "'two' is not among the choices one, three"),
    "choices are text": (good(choices="one"), "not a list"),
    "choices are numbers": (good(choices=[1, 2]), "2 entries of choices for 1 answers"),
    "nested numbers": (good(choices=[[1, 2]]), "choices are not texts"),
    "skills too many": (good(skill=["ocr", "count"]), "2 entries of skill for 1 answers"),
    "skill not text": (good(skill=7), "skill 7 is not a word"),
    "no frames": (good(min_frames=0), "min_frames is 0"),
    "frames true": (good(frames=True), "frames is True"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_name_file_and_line(folder, case):
    row, message = BAD[case]
    path = write(folder, good("first"), row)
    if case == "not UTF-8":
        start = len(json.dumps(good("first"))) + 1
        message = f"byte {start + 11} of the file is not UTF-8"
    with pytest.raises(DataError, match=message) as caught:
        load_source(path)
    assert caught.value.where == f"{path}:2" and str(caught.value).startswith(f"{path}:2: ")


def test_skills_are_checked_only_where_they_are_declared(folder):
    path = write(folder, good(skill="juggling"))
    assert load_source(path)[0].skill == "juggling"
    (folder / "skills.json").write_text('["ocr", "count"]')
    with pytest.raises(DataError, match=r"unknown skill 'juggling'.*count, ocr"):
        load_source(path)
    assert load_source(write(folder, good()))[0].skill == "ocr"
    with pytest.raises(DataError, match="unknown skill speed"):
        load_source(path, skills=["speed"])
    (folder / "skills.json").write_text("{}")
    with pytest.raises(DataError, match="no list of skills"):
        load_source(path)


def test_a_world_declares_skills_for_the_folders_below(world):
    file = world / "test/videos.jsonl"
    with pytest.raises(DataError, match=r"unknown skill juggling.*brief"):
        load_source(file, skills=["juggling"])


@pytest.mark.parametrize("content", [b"", b"\n\n", None])
def test_empty_and_missing_files(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="no rows" if content is not None else "No such file"):
        load_source(path)


def test_byte_order_mark_and_windows_line_ends(folder):
    path = folder / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(good()).encode() + b"\r\n")
    assert load_source(path)[0].answer == "two"


def test_ten_thousand_rows_in_a_second(folder):
    rows = [good(f"r{i}", image=f"media/{i}.png") for i in range(10_000)]
    for row in rows:
        os.link(folder / "media/a.png", folder / row["image"])
    path = write(folder, *rows)
    start = time.process_time()
    assert len(load_source(path)) == 10_000
    assert time.process_time() - start < 1


def run_cli(arguments):
    import argparse

    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(["data", *map(str, arguments)])
    return args.func(args)


def test_check_reports_every_bad_row(folder, capsys):
    assert run_cli(["check", write(folder, good("a"), good("b", image="media/c.png"), b"{", good("d"))]) == 2
    out, err = capsys.readouterr()
    assert "2 good rows, 2 bad; 1 media files" in out and "2 ocr" in out
    assert "rows.jsonl:2:" in err and "rows.jsonl:3:" in err
    assert run_cli(["check", write(folder, good("a"))]) == 0


def test_make_says_what_it_did(tmp_path, capsys):
    counts = [f"--{name}=11" for name in ("train-images", "train-video-questions", "calibration-questions")]
    make = ["make", "glyphworld", "--out", tmp_path / "w", "--seed", 4, *counts]
    make += ["--test-images=11", "--test-video-questions=11", "--no-progress"]
    assert run_cli(make) == 0 and "11 rows in train/images.jsonl" in capsys.readouterr().out
    assert run_cli(make) == 0 and "nothing to do" in capsys.readouterr().out
    assert run_cli(["check", tmp_path / "w/train/videos.jsonl"]) == 0
