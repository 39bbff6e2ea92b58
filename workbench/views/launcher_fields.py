"""The recipe's schema as form fields: type, choices, bounds and the schema's own comment of each key."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import BaseModel

from workbench.recipe.checks import FRAME_PARAMETERS
from workbench.recipe.schema import Recipe

Kind = Literal["choice", "number", "switch", "text"]
_COMMENT = re.compile(r"^    (\w+): .*?#\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a recipe.

    Attributes:
        key: dotted, from the recipe's root.
        label: what stands beside the control.
        kind: ``text`` is YAML: lists, mappings, and numbers that may be left out (empty: null).
        choices: of a ``choice``.
        whole: a ``number`` without fraction.
        note: bounds and the schema's comment.
    """

    key: str
    label: str
    kind: Kind
    choices: tuple[str, ...] = ()
    whole: bool = False
    note: str = ""


@functools.cache
def comments(section: type[BaseModel]) -> dict[str, str]:
    """The comments behind the fields of a section, in its source."""
    return {name: text.strip() for name, text in _COMMENT.findall(inspect.getsource(section))}


def field_of(key: str, label: str | None = None) -> Field:
    """The field of a dotted key, for example ``arms.hybrid.stages.0.frames.policy``.

    Raises:
        KeyError: the schema has no such key.
    """
    section: type[BaseModel] | None = None
    annotation: Any = Recipe
    metadata: list[Any] = []
    comment = ""
    for step in key.split("."):
        inner = _section(annotation)
        if inner is not None:
            if step not in inner.model_fields:
                raise KeyError(key)
            found = inner.model_fields[step]
            section, annotation, metadata = inner, found.annotation, list(found.metadata)
            comment = comments(section).get(step, "")
        else:
            annotation, metadata = _item(annotation, key), []
            comment = ""
    kind, choices, whole, bounds = _kind(annotation, metadata)
    note = "; ".join(part for part in (bounds, comment) if part)
    return Field(key, label or key.rpartition(".")[2].replace("_", " "), kind, choices, whole, note)


def stage_fields(stage: str, values: Mapping[str, Any]) -> list[Field]:
    """The fields of one training stage whose dotted place is ``stage`` and whose values are ``values``."""
    names = ["steps" if values.get("steps") is not None else "epochs", "batch", "tokens_per_row"]
    rates = [
        field_of(f"{stage}.train.{group}", f"rate of {group}")
        for group, rate in (values.get("train") or {}).items()
        if rate is not None
    ]
    return [*(field_of(f"{stage}.{name}") for name in names), field_of(f"{stage}.optimizer.schedule"), *rates]


def frame_fields(stage: str, policy: str) -> list[Field]:
    """The policy's own parameters; the others mean nothing to it."""
    needed, optional = FRAME_PARAMETERS.get(policy, ((), ()))
    return [field_of(f"{stage}.frames.{name}") for name in (*needed, *optional)]


def general_fields() -> list[Field]:
    """What concerns all stages."""
    keys = (
        "evaluation.limit",
        "evaluation.copies",
        "machine.workers",
        "machine.precision",
        "machine.restarts",
    )
    return [field_of(key) for key in keys]


def value_at(values: Any, key: str) -> Any:
    """What stands at a dotted key of plain data; None where nothing does."""
    for step in key.split("."):
        if isinstance(values, Mapping):
            values = values.get(step)
        elif isinstance(values, Sequence) and not isinstance(values, str) and step.isdigit():
            values = values[int(step)] if int(step) < len(values) else None
        else:
            return None
    return values


def shown(value: Any) -> str:
    """A value as one line of YAML; null is empty."""
    if value is None:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def typed(text: str) -> Any:
    """The value that one line of YAML stands for; what is not YAML stays text, for the schema to refuse."""
    try:
        return yaml.safe_load(text) if text.strip() else None
    except yaml.YAMLError:
        return text


def frames_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """A frames section with the keys of its policy only."""
    needed, optional = FRAME_PARAMETERS.get(str(values.get("policy")), ((), ()))
    kept = {name: values.get(name) for name in (*needed, *optional) if values.get(name) is not None}
    return {"policy": values.get("policy"), **kept}


# -- types -----------------------------------------------------------------------------------------------------


def _plain(annotation: Any) -> tuple[Any, list[Any], bool]:
    """An annotation without ``Annotated`` and ``| None``; its metadata; whether None is allowed."""
    metadata: list[Any] = []
    optional = False
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation, *more = typing.get_args(annotation)
            metadata += more
        elif origin in (typing.Union, types.UnionType) and type(None) in typing.get_args(annotation):
            rest = [part for part in typing.get_args(annotation) if part is not type(None)]
            optional = True
            if len(rest) > 1:
                return annotation, metadata, True
            annotation = rest[0]
        else:
            return annotation, metadata, optional


def _section(annotation: Any) -> type[BaseModel] | None:
    plain = _plain(annotation)[0]
    return plain if isinstance(plain, type) and issubclass(plain, BaseModel) else None


def _item(annotation: Any, key: str) -> Any:
    plain = _plain(annotation)[0]
    origin, arguments = typing.get_origin(plain), typing.get_args(plain)
    if origin is dict:
        return arguments[1]
    if origin in (tuple, list):
        return arguments[0]
    raise KeyError(key)


def _kind(annotation: Any, metadata: list[Any]) -> tuple[Kind, tuple[str, ...], bool, str]:
    plain, more, optional = _plain(annotation)
    bounds = _bounds([*metadata, *more])
    if typing.get_origin(plain) is Literal:
        return "choice", tuple(map(str, typing.get_args(plain))), False, ""
    if plain is bool:
        return "switch", (), False, ""
    if plain in (int, float) and not optional:
        return "number", (), plain is int, bounds
    if optional:
        bounds = "; ".join(part for part in (bounds, "may be left empty") if part)
    return "text", (), False, bounds


def _bounds(metadata: list[Any]) -> str:
    words = {"gt": "more than {}", "ge": "{} or more", "lt": "less than {}", "le": "at most {}"}
    flat = [item for outer in metadata for item in (outer, *getattr(outer, "metadata", ()))]
    found = [
        text.format(getattr(item, name))
        for item in flat
        for name, text in words.items()
        if getattr(item, name, None) is not None
    ]
    return ", ".join(dict.fromkeys(found))
