"""Every answer, box and ``min_frames`` is checked against the pixels and by slow rules of its own."""

from __future__ import annotations

import json
import re

import av
import numpy as np
import pytest
from PIL import Image

from workbench.samples.glyphworld.words import COLOURS, CORNERS, COUNTS, DIGITS, TEMPORAL_SKILLS

VIDEO_SPLITS = ("train", "calibration", "test")
SAMPLED = {
    1: [16],
    2: [8, 24],
    4: [4, 12, 20, 28],
    8: [2, 6, 10, 14, 18, 22, 26, 30],
    16: list(range(1, 32, 2)),
    32: list(range(32)),
}


def rows(file):
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def sidecar(folder):
    return {row["media"]: row for row in rows(folder / "objects.jsonl")}


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def turns(row):
    conversation = row["conversations"]
    skills = row["skill"] if isinstance(row["skill"], list) else [row["skill"]]
    for i, skill in enumerate(skills):
        yield skill, conversation[2 * i]["value"], conversation[2 * i + 1]["value"]


def digits(row):
    return [o for o in row["objects"] if o["kind"] == "digit"]


def box_at(digit, frame):
    if not digit["first_frame"] <= frame <= digit["last_frame"]:
        return None
    return digit["boxes"][frame - digit["first_frame"]] if "boxes" in digit else digit["box"]


def colour_at(digit, frame):
    changed = "new_colour" in digit and frame >= digit["change_frame"]
    return digit["new_colour"] if changed else digit["colour"]


def facts(row, frame):
    """What one frame shows: list of (digit word, colour, corner)."""
    found = []
    for digit in digits(row):
        box = box_at(digit, frame)
        if box is not None:
            side = row["width"] // 2
            corner = CORNERS[2 * (box[1] // side) + box[0] // side]
            found.append((digit["digit"], colour_at(digit, frame), corner))
    return found


def answer_static(skill, text, shown):
    """Answer from one frame's facts and the words of the question alone."""
    words = re.findall(r"[a-z]+", text)
    named = [f for f in shown if not set(f).isdisjoint(words)]
    if skill == "count":
        return COUNTS[len(shown) - 1]
    if skill == "comparison":
        assert len(named) == 2
        key = max if "larger" in words else min
        return key(named, key=lambda f: DIGITS.index(f[0]))[1]
    if skill == "colour" or skill == "where":
        assert len(named) == 1
        return named[0][1 if skill == "colour" else 2]
    assert skill == "ocr" and len(named) == 1
    return named[0][0]


def looks_like(patch, colour):
    """Mean colour of the inked half of a patch is nearest to the palette colour of that name."""
    pixels = patch.reshape(-1, 3).astype(float) / 255
    brightest = pixels[np.argsort(pixels.max(axis=1))[-max(4, len(pixels) // 6) :]].mean(axis=0)
    names = list(COLOURS)
    distance = [np.linalg.norm(brightest - np.array(COLOURS[name])) for name in names]
    return names[int(np.argmin(distance))] == colour


def check_pixels(frames, row):
    lights = [o for o in row["objects"] if o["kind"] == "light"]
    for f, pixels in enumerate(frames):
        for digit in digits(row):
            box = box_at(digit, f)
            if box is not None:
                x0, y0, x1, y1 = box
                assert looks_like(pixels[y0:y1, x0:x1], colour_at(digit, f)), (row["media"], f, digit)
        side = row["width"] // 2
        for quadrant in range(4):  # a quadrant without ink is dark, or bright while the light is on
            y, x = side * (quadrant // 2), side * (quadrant % 2)
            inside = [box_at(d, f) for d in digits(row)]
            if any(b and x <= b[0] < x + side and y <= b[1] < y + side for b in inside):
                continue
            on = any(o["box"][:2] == [x, y] and any(a <= f <= b for a, b in o["flashes"]) for o in lights)
            level = pixels[y : y + side, x : x + side].mean() / 255
            assert abs(level - (0.45 if on else 0.1)) < 0.04, (row["media"], f, quadrant)


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_show_what_the_sidecar_says(world, split):
    for media, row in sidecar(world / split).items():
        if media.startswith("images/"):
            check_pixels([np.asarray(Image.open(world / split / media))], row)


@pytest.mark.parametrize("split", ["calibration", "test"])
def test_clips_show_what_the_sidecar_says(world, split):
    for media, row in sidecar(world / split).items():
        if media.startswith("clips/"):
            frames = decode(world / split / media)
            assert frames.shape == (32, 32, 32, 3) and row["frames"] == 32
            check_pixels(frames, row)


@pytest.mark.parametrize("split", VIDEO_SPLITS)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_static_answers_follow_from_every_single_frame(world, split, kind):
    file = world / split / f"{kind}s.jsonl"
    if split == "calibration" and kind == "image":
        assert not file.exists()
        return
    truth, checked = sidecar(world / split), 0
    for row in rows(file):
        scene = truth[row[kind]]
        for skill, text, answer in turns(row):
            if skill not in TEMPORAL_SKILLS:
                assert row["min_frames"] == 1
                for frame in range(scene["frames"]):
                    assert answer_static(skill, text, facts(scene, frame)) == answer
                checked += 1
    assert checked > 15


def speed_alternatives():
    """Positions in 32 frames of every mover that changes speed, by slow counting: (answer, positions)."""
    for long in range(10, 15):
        for short in range(3, 6):
            for answer, first, second in (("faster", long, short), ("slower", short, long)):
                for start in range(2, 32 - 2 - long - short):
                    hops = (start, start + first, start + first + second)
                    path = [sum(f >= h for h in hops) for f in range(32)]
                    yield answer, path
                    yield answer, [3 - p for p in path]


ALTERNATIVES = list(speed_alternatives())


def answer_temporal(skill, text, scene, at):
    """The answer a careful viewer gives from the frames ``at`` alone, or None if they do not settle it."""
    words = re.findall(r"[a-z]+", text)
    by_role = {d["role"]: d for d in digits(scene)}
    if skill == "direction":
        boxes = [by_role["mover"]["boxes"][f] for f in at]
        dx, dy = boxes[-1][0] - boxes[0][0], boxes[-1][1] - boxes[0][1]
        return "right" if dx > 0 else "left" if dx < 0 else "down" if dy > 0 else "up" if dy < 0 else None
    if skill == "speed":
        boxes = by_role["mover"]["boxes"]
        axis = 0 if boxes[0][0] != boxes[-1][0] else 1
        seen = [boxes[f][axis] * 4 // scene["width"] for f in at]
        answers = {answer for answer, path in ALTERNATIVES if [path[f] for f in at] == seen}
        return answers.pop() if len(answers) == 1 else None
    if skill == "order":
        one, two = (d for d in digits(scene) if d["role"] == "order")
        for f in at:
            here = [d for d in (one, two) if d["first_frame"] <= f]
            if len(here) == 1:
                first, last = (one, two) if here[0] is one else (two, one)
                return (first if "first" in words else last)["colour"]
        return None
    if skill == "change":
        seen = [colour_at(by_role["change"], f) for f in at]
        return seen[-1] if len(set(seen)) == 2 else None
    if skill == "brief":
        digit = by_role["brief"]
        seen = [digit["first_frame"] <= f <= digit["last_frame"] for f in at]
        assert digit["colour"] in words
        return digit["digit"] if any(seen) else None
    (light,) = (o for o in scene["objects"] if o["kind"] == "light")
    on = [any(a <= f <= b for a, b in light["flashes"]) for f in at]
    count = sum(now and not before for before, now in zip([False, *on], on, strict=False))
    return COUNTS[count - 1] if count == len(light["flashes"]) else None


@pytest.mark.parametrize("split", VIDEO_SPLITS)
def test_temporal_answers_need_exactly_min_frames(world, split):
    truth, needs = sidecar(world / split), {}
    for row in rows(world / split / "videos.jsonl"):
        ((skill, text, answer),) = turns(row)
        if skill not in TEMPORAL_SKILLS:
            continue
        told = {n: answer_temporal(skill, text, truth[row["video"]], at) for n, at in SAMPLED.items()}
        assert set(told.values()) <= {answer, None}
        enough = [n for n in SAMPLED if all(told[m] == answer for m in SAMPLED if m >= n)]
        assert row["min_frames"] == min(enough), (row["id"], told)
        needs.setdefault(skill, []).append(row["min_frames"])
    assert set(needs) == set(TEMPORAL_SKILLS)
    assert min(min(needs[skill]) for skill in TEMPORAL_SKILLS) >= 2  # no temporal question falls to one frame
    if split == "train":
        assert (
            np.mean(needs["brief"]) > 8 and np.mean(needs["flash"]) > 8 and np.mean(needs["direction"]) <= 3
        )


def test_image_captions_come_in_both_forms_and_in_any_order(world):
    truth = sidecar(world / "train")
    forms, shuffled = set(), 0
    for row in rows(world / "train" / "captions.jsonl"):
        request, text = (turn["value"] for turn in row["conversations"])
        form = request.removeprefix("<image>\ndescribe the image by ").removesuffix(".")
        said = [tuple(part.split()) for part in text.removesuffix(".").split(", ")]
        seen = [facts(truth[row["image"]], 0)[i] for i in range(len(said))]
        places = [corner for _, _, corner in seen]
        order = [places.index(part[0] if form == "place" else part[2]) for part in said]
        assert sorted(order) == list(range(len(seen)))  # every object once
        for index, part in zip(order, said, strict=True):
            colour, digit = (digits(truth[row["image"]])[index][key] for key in ("colour", "digit"))
            assert part == (
                (places[index], colour, digit) if form == "place" else (colour, digit, places[index])
            )
        forms.add(form)
        shuffled += order != sorted(order)
    assert forms == {"place", "colour"} and shuffled > 0


def test_captions_name_every_object(world):
    truth = sidecar(world / "train")
    for file, kind in (("captions.jsonl", "image"), ("video_captions.jsonl", "video")):
        for row in rows(world / "train" / file):
            text = row["conversations"][1]["value"]
            for digit in digits(truth[row[kind]]):
                assert f"{digit['colour']} {digit['digit']}" in text
                assert digit.get("new_colour", "") in text
            if kind == "image":
                assert text.count(",") + 1 == len(digits(truth[row[kind]]))
                assert all(facts(truth[row[kind]], 0)[i][2] in text for i in range(text.count(",") + 1))
            assert row["min_frames"] == 1 or kind == "video"
