"""Edits in a JSON text that leave every other byte as it is. Pure.

`json` gives values without their places. Here only what is on the way to an edit is opened; all else is read as one value by the decoder of
`json`, at its speed: a notebook may hold hundreds of MiB of pictures.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

Path = tuple[str | int, ...]

_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


@dataclasses.dataclass(frozen=True)
class Node:
    """A value and where it stands, `text[start:end]`. What was opened has members (an object) or items (a list), all else a value."""

    start: int
    end: int
    value: Any = None
    members: tuple[Member, ...] | None = None
    items: tuple[Node, ...] | None = None

    def get(self, key: str) -> Node | None:
        """None too if this is no object that was opened."""
        return next((member.node for member in self.members or () if member.key == key), None)


@dataclasses.dataclass(frozen=True)
class Member:
    """`text[start:end]` is its key, the quotes included."""

    key: str
    start: int
    end: int
    node: Node


@dataclasses.dataclass(frozen=True)
class Edit:
    start: int
    end: int
    text: str


def parse(text: str, opened: Callable[[Path], bool]) -> Node:
    """The whole text; `opened(path)` says which objects and lists are looked into. Raises ValueError: no JSON, nested too deeply, or a
    key that stands twice in an object that was opened (readers differ in which one they take)."""
    try:
        node = _value(text, _skip(text, 0), (), opened)
    except RecursionError as deep:
        raise ValueError("it is nested too deeply") from deep
    if _skip(text, node.end) != len(text):
        raise json.JSONDecodeError("Extra data", text, node.end)
    return node


def applied(text: str, edits: Iterable[Edit]) -> str:
    """The text with all edits, which do not overlap."""
    parts, at = [], 0
    for edit in sorted(edits, key=lambda each: each.start):
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]])


def without(text: str, node: Node, keys: Collection[str]) -> Edit:
    """Takes these members out of an object that was opened. Those that stay keep their bytes and what stands before them."""
    members = node.members or ()
    parts: list[str] = []
    end = node.start + 1
    for member in members:
        if member.key not in keys:
            # The first one that stays stands where the first one stood: it has no comma before it.
            begin = end if parts or member is members[0] else member.start
            parts.append(text[begin : member.node.end])
        end = member.node.end
    if not parts:
        return Edit(node.start, node.end, "{}")
    lead = "" if members[0].key not in keys else text[node.start + 1 : members[0].start]
    return Edit(node.start, node.end, "{" + lead + "".join(parts) + text[end : node.end])


def written(text: str, node: Node, value: Any, sort_keys: bool, ensure_ascii: bool) -> str:
    """`value` as JSON, laid out as the object `node` (opened, and not empty) is that it will stand for."""
    first, *others = node.members or ()
    lead, tail = text[node.start + 1 : first.start], text[(others or [first])[-1].node.end : node.end - 1]
    colon = text[first.end : first.node.start]
    if "\n" not in lead:
        gap = text[first.node.end : others[0].start] if others else ""
        comma = gap if gap.isprintable() and gap else ", " if colon.endswith(" ") else ","
        return json.dumps(value, sort_keys=sort_keys, ensure_ascii=ensure_ascii, separators=(comma, colon))
    newline = "\r\n" if "\r\n" in lead else "\n"
    inner, outer = lead.rpartition("\n")[2], tail.rpartition("\n")[2]
    step = inner.removeprefix(outer) if inner.startswith(outer) else " "
    lines = json.dumps(value, indent=step, sort_keys=sort_keys, ensure_ascii=ensure_ascii, separators=(",", colon))
    return lines.replace("\n", newline + outer)  # a string in JSON holds no line break


def _value(text: str, at: int, path: Path, opened: Callable[[Path], bool]) -> Node:
    begin = text[at : at + 1]
    if begin == "{" and opened(path):
        return _object(text, at, path, opened)
    if begin == "[" and opened(path):
        return _list(text, at, path, opened)
    value, end = _decode(text, at)
    return Node(at, end, value)


def _object(text: str, start: int, path: Path, opened: Callable[[Path], bool]) -> Node:
    members: dict[str, Member] = {}
    at = _skip(text, start + 1)
    while members or text[at : at + 1] != "}":
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        key, end = _decode(text, at)
        if key in members:
            raise ValueError(f"a key stands twice in one object: {key[:80]!a}")
        colon = _expect(text, end, ":")
        node = _value(text, _skip(text, colon + 1), (*path, key), opened)
        members[key] = Member(key, at, end, node)
        at = _skip(text, node.end)
        if text[at : at + 1] == "}":
            break
        at = _skip(text, _expect(text, at, ",") + 1)
    return Node(start, at + 1, members=tuple(members.values()))


def _list(text: str, start: int, path: Path, opened: Callable[[Path], bool]) -> Node:
    items: list[Node] = []
    at = _skip(text, start + 1)
    while items or text[at : at + 1] != "]":
        items.append(_value(text, at, (*path, len(items)), opened))
        at = _skip(text, items[-1].end)
        if text[at : at + 1] == "]":
            break
        at = _skip(text, _expect(text, at, ",") + 1)
    return Node(start, at + 1, items=tuple(items))


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, mark: str) -> int:
    """Where the mark stands, white space before it passed over."""
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise json.JSONDecodeError(f"Expecting {mark!r} delimiter", text, at)
    return at
