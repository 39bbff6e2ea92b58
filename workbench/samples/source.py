"""LLaVA-style JSONL: one conversation a line, about at most one image or video.

A row: ``id``; ``image`` or ``video`` (a path relative to the file's folder) or neither; ``conversations``,
human and gpt in turn; optionally ``skill`` and ``choices`` (lists, one entry a gpt turn, when there are
several), ``min_frames`` and ``frames``. The mark ``<image>`` or ``<video>`` must occur exactly once in a
row with media; it is taken out of the question, because media always come first. About 30 us a row: one
pass, one directory listing a media folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

from workbench.errors import DataError

from .sample import ImageRef, MediaRef, Sample, Turn, VideoRef

MARKS = {"image": "<image>", "video": "<video>"}


def load_source(
    path: Path | str, limit: int | None = None, skills: Collection[str] | None = None
) -> list[Sample]:
    """The samples of a JSONL file, in file order.

    Args:
        path: the file. Skills are checked against a ``skills.json`` (a list) or ``world.json`` (key
            ``skills``) in its folder or the folder above; without one any word is a skill.
        limit: at most so many samples; rows after the last one needed are not looked at.
        skills: keep only turns of these skills, and only samples with such a turn.

    Raises:
        DataError: the first row that cannot be used, named as ``file:line``; a file that is missing or empty;
            skills that no row has.
    """
    path = Path(path)
    declared = declared_skills(path)
    wanted = None if skills is None else frozenset(skills)
    asked = f"load {path}" if wanted is None else f"load {path} for {', '.join(sorted(wanted))}"
    if wanted is not None and declared is not None and not wanted <= declared:
        unknown = ", ".join(sorted(wanted - declared))
        raise DataError(
            asked, f"unknown skill {unknown}", f"Choose among {', '.join(sorted(declared))}", where=str(path)
        )
    samples: list[Sample] = []
    seen: set[str] = set()
    for result in scan_source(path, declared):
        if isinstance(result, DataError):
            raise result
        seen.update(turn.skill for turn in result.turns)
        sample = result if wanted is None else _keep(result, wanted)
        if sample is not None:
            samples.append(sample)
            if limit is not None and len(samples) >= limit:
                break
    if not samples:
        found = f"its skills are {', '.join(sorted(seen))}" if seen else "it has no rows"
        raise DataError(asked, found, "Check the path and the skills", where=str(path))
    return samples


def scan_source(path: Path, declared: frozenset[str] | None) -> Iterator[Sample | DataError]:
    """Every row as a sample or as the error that makes it useless, in file order.

    ``declared`` are the skills allowed (None: any). Raises DataError when the file itself cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"load {path}", error.strerror or str(error), "Check the path", where=str(path)
        ) from None
    media = _Listing(path.parent)
    first_line: dict[str, int] = {}
    offset = 0
    for number, line in enumerate(content.split(b"\n"), start=1):
        start, offset = offset, offset + len(line) + 1
        if number == 1 and line.startswith(b"\xef\xbb\xbf"):
            line, start = line[3:], start + 3
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            sample = _sample(_parse(line, start), where, path.stem, media, declared)
            if sample.id in first_line:
                _bad(
                    f"the id {sample.id!r} was used in line {first_line[sample.id]}",
                    "Give every row an id of its own",
                )
        except _BadRow as bad:
            yield DataError("use this row", bad.found, bad.todo, where=where)
            continue
        first_line[sample.id] = number
        yield sample


def declared_skills(path: Path) -> frozenset[str] | None:
    """The skills that a ``skills.json`` or ``world.json`` beside or above the file declares, or None."""
    for folder in (path.parent, path.parent.parent):
        for name in ("skills.json", "world.json"):
            file = folder / name
            if not file.is_file():
                continue
            try:
                found = json.loads(file.read_text("utf-8"))
                found = found if isinstance(found, list) else found["skills"]
                if not all(isinstance(skill, str) for skill in found):
                    raise TypeError
            except (OSError, ValueError, KeyError, TypeError):
                raise DataError(
                    "read the declared skills", "no list of skills in it", "Mend or remove it", str(file)
                ) from None
            return frozenset(found)
    return None


class _BadRow(Exception):
    def __init__(self, found: str, todo: str) -> None:
        self.found, self.todo = found, todo


def _bad(found: str, todo: str) -> NoReturn:
    raise _BadRow(found, todo)


class _Listing:
    """Does a media file exist? One directory listing a folder instead of one system call a row."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.names: dict[str, frozenset[str]] = {}

    def find(self, relative: str) -> Path | None:
        folder, name = os.path.split(os.path.join(self.root, relative))
        if folder not in self.names:
            try:
                self.names[folder] = frozenset(os.listdir(folder))
            except (OSError, ValueError):  # not a folder, or a name that no folder can have
                self.names[folder] = frozenset()
        return Path(folder, name) if name in self.names[folder] else None


def _parse(line: bytes, start: int) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        _bad(f"byte {start + error.start} of the file is not UTF-8", "Save the file as UTF-8")
    except ValueError as error:
        _bad(f"it is not JSON ({error})", "Write one JSON object a line")
    except RecursionError:
        _bad("its JSON is nested too deeply", "Write one flat JSON object a line")
    if b"\\ud" in line and any("\ud800" <= c <= "\udfff" for c in json.dumps(row, ensure_ascii=False)):
        _bad("an escape like \\ud800 in it is half a character", "Write both halves, or the character itself")
    if not isinstance(row, dict):
        _bad(f"it is a JSON {type(row).__name__}, not an object", "Write one JSON object a line")
    return row


def _sample(
    row: dict[str, Any], where: str, source: str, media: _Listing, declared: frozenset[str] | None
) -> Sample:
    name = row.get("id")
    if not isinstance(name, str) or not name:
        _bad("it has no id", 'Add "id" with a unique text')
    kind, ref = _media(row, media)
    values = _conversation(row, kind)
    count = len(values) // 2
    skills = _per_turn(row, "skill", count, "unknown")
    choices = _choices(row, count)
    turns = []
    for i in range(count):
        skill, answer = skills[i], values[2 * i + 1]
        if not isinstance(skill, str) or not skill:
            _bad(f"skill {skill!r} is not a word", "Name the skill as text")
        if declared is not None and skill not in declared and "skill" in row:
            _bad(f"unknown skill {skill!r}", f"Use one of {', '.join(sorted(declared))}")
        if choices[i] and answer not in choices[i]:
            _bad(
                f"the answer {answer!r} is not among the choices {', '.join(choices[i])}",
                "Mend the answer or the choices",
            )
        turns.append(Turn(values[2 * i], answer, choices[i], skill))
    return Sample(
        id=name,
        turns=tuple(turns),
        media=ref,
        source=source,
        frames_column=_frames(row, "frames"),
        min_frames=_frames(row, "min_frames"),
        where=where,
    )


def _media(row: dict[str, Any], listing: _Listing) -> tuple[str | None, MediaRef | None]:
    kinds = [kind for kind in MARKS if row.get(kind) is not None]
    if not kinds:
        return None, None
    if len(kinds) > 1:
        _bad("it has an image and a video", "Keep one of them")
    (kind,) = kinds
    relative = row[kind]
    if not isinstance(relative, str) or not relative:
        _bad(
            f"its {kind} is {relative!r}, not one path",
            f"Give one path, relative to the file's folder, as {kind!r}",
        )
    path = listing.find(relative)
    if path is None:
        _bad(
            f"the {kind} file {relative} does not exist in {listing.root}",
            "Restore the file or remove the row",
        )
    return kind, ImageRef(path) if kind == "image" else VideoRef(path)


def _conversation(row: dict[str, Any], kind: str | None) -> list[str]:
    """The texts of the turns, human and gpt in turn, without the media mark."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        _bad("its conversation is empty", 'Add "conversations" with a human and a gpt turn')
    values: list[str] = []
    for i, turn in enumerate(turns):
        role = ("human", "gpt")[i % 2]
        found = turn.get("from") if isinstance(turn, dict) else None
        if found != role:
            _bad(
                f"turn {i + 1} is from {found!r} where {role!r} is due",
                "Alternate human and gpt, human first",
            )
        value = turn.get("value")
        if not isinstance(value, str) or not value.strip():
            _bad(
                f"turn {i + 1} has no answer" if i % 2 else f"turn {i + 1} has no question",
                "Write its value or remove the row",
            )
        values.append(value)
    if len(values) % 2:
        _bad("its last question has no answer", "Add the gpt turn or remove the question")
    for name, mark in MARKS.items():
        media, marks = int(kind == name), sum(value.count(mark) for value in values)
        if marks != media:
            _bad(
                f"it has {marks} {mark} marks for {media} {name} files",
                f"Write {mark} once for each {name} file",
            )
    if kind is not None:
        values = [_unmark(value, MARKS[kind]) if MARKS[kind] in value else value for value in values]
    return values


def _unmark(value: str, mark: str) -> str:
    """The text around the mark, which may stand before, after or within it."""
    before, after = (part.strip() for part in value.split(mark))
    text = f"{before} {after}".strip()
    if not text:
        _bad(f"its question is only {mark}", "Write a question")
    return text


def _per_turn(row: dict[str, Any], key: str, count: int, default: Any) -> list[Any]:
    value = row.get(key, default)
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        _bad(f"it has {len(value)} entries of {key} for {count} answers", f"Give one {key} entry an answer")
    return value


def _choices(row: dict[str, Any], count: int) -> list[tuple[str, ...]]:
    """Choices a turn: a flat list belongs to every turn, a list of lists has one entry a turn."""
    value = row.get("choices") or []
    if not isinstance(value, list):
        _bad(f"its choices are {value!r}, not a list", "Write a list of texts")
    if value and all(isinstance(entry, str) for entry in value):
        return [tuple(value)] * count
    if not value:
        return [()] * count
    nested = _per_turn(row, "choices", count, [])
    if not all(isinstance(entry, list) and all(isinstance(c, str) for c in entry) for entry in nested):
        _bad("its choices are not texts", "Write a list of texts for every answer")
    return [tuple(entry) for entry in nested]


def _frames(row: dict[str, Any], key: str) -> int | None:
    value = row.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        _bad(f"{key} is {value!r}", f"Give {key} as a whole number of 1 or more, or leave it out")
    return value


def _keep(sample: Sample, wanted: frozenset[str]) -> Sample | None:
    """The sample with only the turns of these skills; None if there are none."""
    turns = tuple(turn for turn in sample.turns if turn.skill in wanted)
    if len(turns) == len(sample.turns):
        return sample
    if not turns:
        return None
    return Sample(
        sample.id, turns, sample.media, sample.source, sample.frames_column, sample.min_frames, sample.where
    )
