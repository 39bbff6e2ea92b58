"""Write a whole world: render beside the target, then rename, so a half-made world is never seen."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import DataError, DiskFullError, WorkbenchError

from .clips import ClipPlan, compose
from .phrasings import VIDEO_CAPTION
from .questions import Question, image_caption, static_question, static_skills
from .render import render, write_clip, write_image
from .scene import Deck, Scene, glyph_split, image_scene
from .sidecar import describe
from .timing import FPS, FRAMES
from .words import IMAGE_SKILLS, SKILLS, STATIC_SKILLS, TEMPORAL_SKILLS

VERSION = 6  # raise it whenever the same arguments give other bytes
SIZES = {
    "small": 32,
    "large": 64,
}  # canvas side in pixels; patches of 8, merged 2x2: 4 and 16 visual tokens an image
STATIC_SHARE = 0.4  # of the training and calibration video questions
ROWS_PER_CLIP = 4


@dataclass(frozen=True)
class World:
    """A world on disk. ``manifest`` is its ``world.json``; ``created`` is False if it was there already."""

    path: Path
    manifest: dict[str, Any]
    created: bool


def make_glyphworld(
    out: Path,
    seed: int,
    size: str = "small",
    train_images: int = 12000,
    train_video_questions: int = 8000,
    calibration_questions: int = 400,
    test_images: int = 500,
    test_video_questions: int = 550,
    progress: bool = True,
) -> World:
    """Render glyphworld into ``out`` (made whole or not at all); the same arguments give the same bytes.

    Args:
        out: the folder to make. If it holds this very world, nothing is done; anything else is an error.
        seed: of everything but the split of the glyphs, which is the same in every world.
        size: "small" (32x32 pixels) or "large" (64x64).
        train_images: images, each with four or five questions of different skills and a caption.
        train_video_questions: about four share a clip; 40 % static, 60 % temporal, balanced over skills.
        calibration_questions: like the training ones, on clips of their own.
        test_images, test_video_questions: one question a row, balanced, with held-out glyphs and phrasings.

    Raises:
        DataError: a bad argument, or ``out`` holds something else.
        DiskFullError: no space left; nothing remains of the attempt.
    """
    out = Path(out)
    counts = {
        "train_images": train_images,
        "train_video_questions": train_video_questions,
        "calibration_questions": calibration_questions,
        "test_images": test_images,
        "test_video_questions": test_video_questions,
    }
    request = {"name": "glyphworld", "version": VERSION, "seed": seed, "size": size, "arguments": counts}
    _check(request)
    there = _existing(out, request)
    if there is not None:
        return World(out, there, created=False)
    with _atomically(out, request) as folder:
        manifest = _write(folder, request, progress)
    return World(out, manifest, created=True)


def _check(request: dict[str, Any]) -> None:
    asked = f"make a glyphworld of size {request['size']!r} with seed {request['seed']!r}"
    if request["size"] not in SIZES:
        raise DataError(asked, "no such size", f"Choose one of {', '.join(SIZES)}")
    if request["seed"] < 0:
        raise DataError(asked, "a seed is never negative", "Give 0 or more")
    for name, count in request["arguments"].items():
        if count < 1:
            raise DataError(asked, f"{name} is {count}", "Give 1 or more")


def _existing(out: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of this very world in ``out``; None if ``out`` is free; an error for anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    asked = f"make a glyphworld in {out}"
    elsewhere = "Choose another folder, or remove this one first"
    try:
        there = json.loads((out / "world.json").read_text("utf-8"))
    except (OSError, ValueError):
        raise DataError(
            asked, "something is there that is not a glyphworld", elsewhere, where=str(out)
        ) from None
    different = [key for key in request if not isinstance(there, dict) or there.get(key) != request[key]]
    if different:
        found = (
            ", ".join(f"{key} {there.get(key)!r}" for key in different)
            if isinstance(there, dict)
            else "no manifest"
        )
        wanted = ", ".join(f"{key} {request[key]!r}" for key in different)
        raise DataError(
            asked, f"another world is there, with {found} where {wanted} was asked", elsewhere, where=str(out)
        )
    lost = [name for name in there.get("files", {}) if not (out / name).is_file()]
    if lost:
        raise DataError(asked, f"the world there has lost {', '.join(lost)}", elsewhere, where=str(out))
    return there


@contextmanager
def _atomically(out: Path, request: dict[str, Any]) -> Iterator[Path]:
    """A temporary sibling of ``out`` that takes its place if the block succeeds and vanishes otherwise."""
    asked = f"make a glyphworld in {out}"
    temporary = out.parent / f".{out.name}.making-{os.getpid()}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                asked, "no space is left on the disk", "Free some space and run it again", str(out)
            ) from None
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and _existing(out, request) is not None:
            return  # another process made the same world meanwhile
        raise WorkbenchError(asked, str(error), "Choose a folder that can be written", str(out)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, request: dict[str, Any], progress: bool) -> dict[str, Any]:
    from tqdm import tqdm

    train, test = glyph_split()
    counts, size, seed = request["arguments"], SIZES[request["size"]], request["seed"]
    clips = sum(counts[k] for k in counts if k.endswith("questions")) // ROWS_PER_CLIP
    total = counts["train_images"] + counts["test_images"] + clips
    files: dict[str, int] = {}
    with tqdm(total=total, desc="glyphworld", unit="file", disable=not progress) as bar:
        for number, split in enumerate(("train", "calibration", "test")):
            held_out = split == "test"
            glyphs = test if held_out else train
            part = _Split(folder / split, split, size, held_out, bar)
            if split != "calibration":
                deck = Deck(glyphs, np.random.default_rng([seed, number, 0]))
                part.images(counts[f"{split}_images"], deck)
            name = "calibration_questions" if split == "calibration" else f"{split}_video_questions"
            share = (
                len(STATIC_SKILLS) / (len(STATIC_SKILLS) + len(TEMPORAL_SKILLS)) if held_out else STATIC_SHARE
            )
            part.clips(quotas(counts[name], share), Deck(glyphs, np.random.default_rng([seed, number, 1])))
            files |= part.finish()
        bar.total = bar.n
    manifest = request | {
        "skills": list(SKILLS),
        "canvas": size,
        "frames": FRAMES,
        "fps": FPS,
        "glyphs": {"train": sum(map(len, train.values())), "test": sum(map(len, test.values()))},
        "files": files,
    }
    (folder / "world.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    return manifest


def quotas(questions: int, static_share: float) -> dict[str, int]:
    """Questions a skill: ``static_share`` of them static, equal within each kind up to rounding."""
    static = round(questions * static_share)
    return _even(static, STATIC_SKILLS) | _even(questions - static, TEMPORAL_SKILLS)


def _even(count: int, skills: tuple[str, ...]) -> dict[str, int]:
    return {skill: (count + i) // len(skills) for i, skill in enumerate(skills)}


class _Split:
    """Writes the files of one split and counts their rows."""

    def __init__(self, folder: Path, name: str, size: int, held_out: bool, bar) -> None:
        self.folder, self.name, self.size, self.held_out, self.bar = folder, name, size, held_out, bar
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def add(self, file: str, row: dict[str, Any]) -> None:
        self.rows.setdefault(file, []).append(row)

    def images(self, count: int, deck: Deck) -> None:
        """Training: all questions of an image in one row, and a caption row. Test: one question an image."""
        (self.folder / "images").mkdir(parents=True)
        for index in range(count):
            skill = IMAGE_SKILLS[index % len(IMAGE_SKILLS)]
            least = 2 if self.held_out and skill == "comparison" else 1
            scene = image_scene(deck, deck.balanced(skill if self.held_out else "", range(least, 5)))
            media = f"images/{index:05d}.png"
            pixels = render(scene, self.size, deck.rng)[0]
            write_image(self.folder / media, pixels)
            self._seen(media, scene)
            asked = [skill] if self.held_out else deck.rng.permutation(static_skills(scene)).tolist()
            questions = [static_question(scene, s, self.held_out, deck.rng) for s in asked]
            self.add("images.jsonl", _row(f"{self.name}-i-{index:05d}", "image", media, questions))
            if not self.held_out:
                caption = Question("caption", *image_caption(scene, deck.rng), ())
                self.add("captions.jsonl", _row(f"{self.name}-ic-{index:05d}", "image", media, [caption]))

    def clips(self, quota: dict[str, int], deck: Deck) -> None:
        """One row a question; training clips also have a caption row."""
        (self.folder / "clips").mkdir(parents=True)
        for index, plan in enumerate(compose(quota, deck, self.held_out, ROWS_PER_CLIP)):
            media = f"clips/{index:05d}.mov"
            write_clip(self.folder / media, render(plan.scene, self.size, deck.rng))
            self._seen(media, plan.scene)
            self._ask(f"{self.name}-v-{index:05d}", media, plan)

    def _ask(self, name: str, media: str, plan: ClipPlan) -> None:
        for number, question in enumerate(plan.questions):
            self.add("videos.jsonl", _row(f"{name}-{number}", "video", media, [question]))
        if self.name == "train":
            caption = Question("caption", VIDEO_CAPTION, plan.caption, (), plan.caption_min_frames)
            self.add("video_captions.jsonl", _row(f"{name}-c", "video", media, [caption]))

    def _seen(self, media: str, scene: Scene) -> None:
        self.add("objects.jsonl", describe(media, scene, self.size))
        self.bar.update()

    def finish(self) -> dict[str, int]:
        """Write the JSONL files; their row counts by path relative to the world."""
        for file, rows in self.rows.items():
            text = "".join(json.dumps(row, separators=(", ", ": ")) + "\n" for row in rows)
            (self.folder / file).write_text(text, "utf-8")
        return {f"{self.name}/{file}": len(rows) for file, rows in self.rows.items()}


def _row(name: str, kind: str, media: str, questions: list[Question]) -> dict[str, Any]:
    """One LLaVA-style row; lists for skill and choices when there are several turns."""
    conversation = []
    for number, question in enumerate(questions):
        mark = f"<{kind}>\n" if number == 0 else ""
        conversation += [
            {"from": "human", "value": mark + question.text},
            {"from": "gpt", "value": question.answer},
        ]
    skills = [q.skill for q in questions]
    choices = [list(q.choices) for q in questions]
    several = len(questions) > 1
    row: dict[str, Any] = {"id": name, kind: media, "skill": skills if several else skills[0]}
    row["min_frames"] = max(q.min_frames for q in questions)
    if any(choices):
        row["choices"] = choices if several else choices[0]
    return row | {"conversations": conversation}
