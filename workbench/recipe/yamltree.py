"""YAML with line numbers: plain data only, every key and value knows the file and line it was written on.

Nothing in a file is ever executed: nodes become text, numbers, booleans, null, lists and mappings, and any
tag beyond those is refused. Anchors and merge keys (``<<``) work; a key that is written twice does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import RecipeError

PLAIN = "tag:yaml.org,2002:"
SCALARS = {PLAIN + name for name in ("null", "bool", "int", "float", "str")}
MOST_NODES = 100_000  # aliases of aliases can make a short file explode


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: a file and a line from 1, or a command-line flag without a line."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(slots=True)
class Node:
    """A value with its place. Mappings hold nodes and, in ``keys``, the places of their keys."""

    value: Any
    place: Place
    keys: dict[str, Place] = field(default_factory=dict)

    def plain(self) -> Any:
        """The value as ordinary Python data."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def find(self, loc: tuple[str | int, ...]) -> tuple[Place, Any]:
        """The place of the deepest existing part of ``loc`` (its key, for a mapping) and the value there."""
        place, node = self.place, self
        for step in loc:
            if isinstance(node.value, dict) and str(step) in node.value:
                place, node = node.keys[str(step)], node.value[str(step)]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                place = node.place
            else:
                break
        return place, node.plain()


def bad(found: str, todo: str, place: Place | str) -> RecipeError:
    """The one error of this room."""
    return RecipeError("load the recipe", found, todo, str(place))


class _Builder:
    def __init__(self, file: str, loader: yaml.SafeLoader) -> None:
        self.file, self.loader = file, loader
        self.open: set[int] = set()  # nodes being built: an alias to one of them is a loop
        self.count = 0

    def place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1)

    def build(self, node: yaml.Node) -> Node:
        place = self.place(node)
        self.count += 1
        if id(node) in self.open or self.count > MOST_NODES:
            raise bad("an alias contains itself, or aliases multiply", "Write the values out", place)
        if isinstance(node, yaml.ScalarNode):
            return Node(self.scalar(node), place)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == PLAIN + "seq":
                return Node([self.build(item) for item in node.value], place)
            if isinstance(node, yaml.MappingNode) and node.tag == PLAIN + "map":
                return self.mapping(node, place)
        finally:
            self.open.discard(id(node))
        raise self.tag(node)

    def tag(self, node: yaml.Node) -> RecipeError:
        name = node.tag.removeprefix(PLAIN)
        return bad(
            f"the tag or type {name!r} is not allowed",
            "Use plain text, numbers, lists, mappings",
            self.place(node),
        )

    def scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag == PLAIN + "timestamp":
            return node.value  # a date is text to us
        if node.tag not in SCALARS:
            raise self.tag(node)
        try:
            value = self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise bad(
                f"{node.value!r} is not a value of its type", "Correct or quote it", self.place(node)
            ) from error
        if isinstance(value, float) and not math.isfinite(value):
            raise bad(f"{node.value} is not a finite number", "Write a number", self.place(node))
        return value

    def mapping(self, node: yaml.MappingNode, place: Place) -> Node:
        own, merged = Node({}, place), Node({}, place)
        for key_node, value_node in node.value:
            if key_node.tag == PLAIN + "merge":
                self.merge_key(value_node, merged)
                continue
            where = self.place(key_node)
            key = self.scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                shown = getattr(key_node, "value", key)
                raise bad(f"the key {shown!r} is not text", f'Write it in quotes: "{shown}"', where)
            if key in own.value:
                first = own.keys[key].line
                raise bad(
                    f"the key {key!r} is written twice (first in line {first})", "Keep one of them", where
                )
            own.value[key], own.keys[key] = self.build(value_node), where
        for key, value in merged.value.items():
            if key not in own.value:
                own.value[key], own.keys[key] = value, merged.keys[key]
        return own

    def merge_key(self, node: yaml.Node, into: Node) -> None:
        """``<<: *one`` or ``<<: [*one, *two]``; earlier ones win, as YAML says."""
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            built = self.build(part)
            if not isinstance(built.value, dict):
                raise bad(
                    "`<<` can only take a mapping", "Point it at an anchor of a mapping", self.place(node)
                )
            for key, value in built.value.items():
                if key not in into.value:
                    into.value[key], into.keys[key] = value, built.keys[key]


def parse(text: str, file: str) -> Node:
    """One YAML document as a tree. Raises ``RecipeError`` with the line."""
    loader = yaml.SafeLoader(text) if _readable(text, file) else None
    assert loader is not None
    try:
        root = loader.get_single_node()
        if root is None:
            raise bad("the file is empty", "Write a recipe; recipes/ has examples", Place(file, 1))
        return _Builder(file, loader).build(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise bad(
            f"this is not YAML ({error.problem or error.context})",
            "Check the indentation, quotes and brackets here and just above",
            Place(file, mark.line + 1 if mark else 1),
        ) from error
    except RecursionError as error:
        raise bad("the nesting is too deep", "Flatten it", Place(file, 1)) from error
    finally:
        loader.dispose()


def _readable(text: str, file: str) -> bool:
    """YAML forbids control characters; the parser's own error for them has no line."""
    match = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if match is None:
        return True
    line = text.count("\n", 0, match.start()) + 1
    raise bad(f"the character U+{ord(match.group()):04X} is not allowed", "Remove it", Place(file, line))


def read(path: Path, asked_at: Place | None = None) -> Node:
    """Read and parse a file.

    Args:
        path: the file.
        asked_at: where another file or the user asked for it.

    Raises:
        RecipeError: missing, unreadable, not UTF-8, not YAML, or not a mapping.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise bad(f"there is no file {path}", "Correct the path", asked_at or Place(str(path))) from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise bad("the file is not UTF-8 text", "Save it as UTF-8", Place(str(path), line)) from error
    except OSError as error:
        raise bad(
            f"{path} cannot be read ({error.strerror})", "Name a readable file", asked_at or Place(str(path))
        ) from error
    root = parse(text, str(path))
    if not isinstance(root.value, dict):
        raise bad("the file is not a mapping", "Begin with lines such as `name: my-recipe`", root.place)
    return root


def merge(base: Node, over: Node) -> Node:
    """``over`` on top of ``base``: mappings merge level by level, everything else is replaced."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    value, keys = dict(base.value), dict(base.keys)
    for key, node in over.value.items():
        value[key] = merge(value[key], node) if key in value else node
        keys[key] = over.keys[key]
    return Node(value, over.place, keys)
