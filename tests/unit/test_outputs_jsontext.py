"""Edits in a JSON text: all that is not edited stays to the byte, and what is new is laid out as its writer lays out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_jupyter.outputs.jsontext import Node, applied, parse, without, written

KEYS = st.text(alphabet='ab"\\{}[]:,é ', max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=5)
LAYOUTS: list[dict[str, Any]] = [
    {"indent": 1},
    {"indent": 4, "ensure_ascii": False},
    {"indent": "\t"},
    {"indent": 0},
    {"indent": 2, "separators": (",", " : ")},
    {},
    {"separators": (",", ":")},
]


def everything(_path: object) -> bool:
    return True


def value_of(node: Node) -> Any:
    if node.members is not None:
        return {member.key: value_of(member.node) for member in node.members}
    return [value_of(item) for item in node.items] if node.items is not None else node.value


def inside(document: dict[str, Any]) -> dict[str, Any]:
    """The document with more of its kind around it, so that what is edited has a place."""
    return {"before": [1.50, {"x": ""}], "here": document, "after": {"y": [[]]}}


@settings(max_examples=150)
@given(OBJECTS, st.sampled_from(LAYOUTS))
def test_a_text_is_read_as_json_reads_it_and_every_value_stands_where_it_says(document: dict[str, Any], layout: dict[str, Any]) -> None:
    text = " " + json.dumps(document, **layout) + "\n"

    def right(node: Node) -> bool:
        inner = [member.node for member in node.members or ()] + list(node.items or ())
        return json.loads(text[node.start : node.end]) == value_of(node) and all(map(right, inner))

    assert right(parse(text, everything))
    assert value_of(parse(text, lambda path: path == ())) == document


@settings(max_examples=150)
@given(OBJECTS, st.sampled_from(LAYOUTS), st.data())
def test_what_is_taken_out_leaves_the_text_as_if_it_had_never_been_in_it(
    document: dict[str, Any], layout: dict[str, Any], data: st.DataObject
) -> None:
    gone = data.draw(st.sets(st.sampled_from(sorted(document))))
    text = json.dumps(inside(document), **layout)
    here = parse(text, everything).get("here")
    assert here is not None
    left = {key: value for key, value in document.items() if key not in gone}
    assert applied(text, [without(text, here, gone)]) == json.dumps(inside(left), **layout)


@settings(max_examples=150)
@given(OBJECTS, OBJECTS, st.sampled_from(LAYOUTS))
def test_a_new_value_is_laid_out_as_the_old_one_was(old: dict[str, Any], new: dict[str, Any], layout: dict[str, Any]) -> None:
    text = json.dumps(inside(old), **layout)
    here = parse(text, everything).get("here")
    assert here is not None
    found = text[: here.start] + written(text, here, new, False, layout.get("ensure_ascii", True)) + text[here.end :]
    assert found == json.dumps(inside(new), **layout)


def test_line_ends_stay_those_of_the_text() -> None:
    text = json.dumps(inside({"a": 1}), indent=1).replace("\n", "\r\n")
    here = parse(text, everything).get("here")
    assert here is not None
    assert written(text, here, {"b": [2]}, False, True) == '{\r\n  "b": [\r\n   2\r\n  ]\r\n }'


BROKEN: list[Callable[[str], str]] = [
    lambda text: text[:-1],
    lambda text: text + "}",
    lambda text: text.replace(",", "", 1),
    lambda text: text.replace(":", "", 1),
    lambda text: text.replace("}", ",}", 1),
    lambda text: text.replace("]", ",]", 1),
    lambda text: text.replace('"', "'"),
    lambda text: text.replace("1", "\x00", 1),
    lambda _text: "",
    lambda text: "\ufeff" + text,
    lambda _text: '{"a"',
    lambda _text: "[",
    lambda _text: '{"a": 1',
    lambda _text: "[1",
]


@pytest.mark.parametrize("broken", range(len(BROKEN)))
def test_what_is_no_json_is_refused(broken: int) -> None:
    text = BROKEN[broken](json.dumps({"a": [1, 2], "b": {"c": "d"}}))
    with pytest.raises(ValueError):
        json.loads(text)
    with pytest.raises(ValueError):
        parse(text, everything)


def test_a_key_that_stands_twice_is_refused_where_it_matters_and_passed_over_elsewhere() -> None:
    with pytest.raises(ValueError, match="twice in one object: 'a'"):
        parse('{"a": 1, "a": 2}', everything)
    assert parse('{"x": {"a": 1, "a": 2}}', lambda path: path == ()).members is not None


def test_a_text_that_is_nested_too_deeply_is_refused() -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse(text, lambda path: len(path) < 3)
