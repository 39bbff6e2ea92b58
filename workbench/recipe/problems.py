"""From pydantic's findings to one sentence: what is wrong, what belongs there, the nearest valid key."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

Loc = tuple[str | int, ...]

KINDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text (put numbers in quotes)",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list ([a, b] or lines that begin with '-')",
    "list_type": "a list ([a, b] or lines that begin with '-')",
    "dict_type": "a mapping (`key: value` lines)",
    "model_type": "a mapping (`key: value` lines)",
    "model_attributes_type": "a mapping (`key: value` lines)",
}
BOUNDS = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
}
BOUNDS |= {"less_than_equal": "at most {le}"}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at ``loc`` and what to do about it."""

    loc: Loc
    found: str
    todo: str


def shown(value: Any) -> str:
    """A value as it goes into a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(key: str, valid: Iterable[str]) -> str:
    """``"Did you mean 'stages'?"``-like advice for a name that is not among ``valid``."""
    names = list(valid)
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    if close:
        return f"The nearest valid one is '{close[0]}'"
    return f"Valid here: {', '.join(sorted(names))}" if names else "Nothing is defined there"


def _inner(annotation: Any, step: str | int) -> Any:
    """The type one step inside ``annotation``; None when it cannot be told."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _inner(typing.get_args(annotation)[0], step)
    if origin in (typing.Union, types.UnionType):
        found = (_inner(part, step) for part in typing.get_args(annotation))
        return next((part for part in found if part is not None), None)
    if origin is dict:
        return typing.get_args(annotation)[1]
    if origin in (tuple, list):
        return typing.get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(step))
        return field.annotation if field is not None else None
    return None


def _fields(annotation: Any) -> list[str]:
    """The keys a section may have; empty when ``annotation`` is not a section."""
    for part in (annotation, *typing.get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return list(part.model_fields)
    return []


def _describe(error: Any, root: type[BaseModel]) -> Problem:
    loc, kind, context = tuple(error["loc"]), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        parent: Any = root
        for step in loc[:-1]:
            parent = _inner(parent, step)
        return Problem(loc, f"the key {str(loc[-1])!r} is unknown", nearest(str(loc[-1]), _fields(parent)))
    if loc and loc[-1] == "[key]":  # a mapping whose keys are a fixed set, such as `train`
        return Problem(
            loc[:-1], f"the key {str(loc[-2])!r} is unknown", f"Use {context.get('expected', 'another')}"
        )
    name = ".".join(str(step) for step in loc)
    if kind == "missing":
        return Problem(loc, f"`{name}` is missing", f"Add `{loc[-1]}:`")
    if kind == "literal_error":
        near = difflib.get_close_matches(
            str(error["input"]), context["expected"].replace("'", "").split(), n=1
        )
        todo = f"Use {context['expected']}" + (f" (nearest: {near[0].strip(',')})" if near else "")
    elif kind in KINDS:
        todo = f"Write {KINDS[kind]}"
    elif kind in BOUNDS:
        todo = f"Write {BOUNDS[kind].format(**context)}"
    else:
        todo = f"What is expected: {error['msg'][:1].lower()}{error['msg'][1:]}"
    return Problem(loc, f"`{name}` is {shown(error['input'])}", todo)


def from_validation(error: ValidationError, root: type[BaseModel]) -> list[Problem]:
    """Every finding; unknown keys first, missing ones last: a misspelt key is also a missing one."""
    rank = {"extra_forbidden": 0, "missing": 2}
    found = sorted(error.errors(include_url=False), key=lambda item: rank.get(item["type"], 1))
    return [_describe(item, root) for item in found]
