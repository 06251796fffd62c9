"""Cursors are text from outside: they come back as they went, or are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.cursor import CONTROL, LOG, Cursor, tag_of

PLACES = st.tuples(st.sampled_from([CONTROL, LOG]), st.integers(0, 999))


@given(st.dictionaries(PLACES, st.tuples(st.integers(0, 10**18 - 1), st.integers(0, 999_999))), st.sampled_from(["", "5d41402a"]))
def test_a_cursor_comes_back_as_it_went(entries: dict[tuple[str, int], tuple[int, int]], tag: str) -> None:
    cursor = Cursor(tag)
    for place, (offset, part) in entries.items():
        cursor.set(place, offset, part)
    again = Cursor.parse(str(cursor))
    assert (again.tag, again.offsets, str(again)) == (tag, cursor.offsets, str(cursor))
    assert all(again.part(place) == part for place, (_, part) in entries.items())
    assert str(cursor).isascii()
    assert not set(str(cursor)) & set("\r\n\0 ")


@given(st.text())
def test_any_text_is_a_cursor_or_a_value_error(text: str) -> None:
    try:
        assert isinstance(str(Cursor.parse(text)), str)
    except ValueError:
        return


@pytest.mark.parametrize(
    "text", ["c.0", "c.0:", "x.0:1", "c.0:-1", "c.0:1+", "c.0:1 ,l.0:1", "c.00000:1", "c.0:1\n", "c.0:\u0661", "l.0:1," * 9000]
)
def test_what_is_nearly_a_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        Cursor.parse(f"{text},l.1:1")


def test_it_only_moves_forward_and_knows_two_topics() -> None:
    cursor = Cursor.at([(topics.RUN_CONTROL, 0, 5), (topics.TRAINING_LOG, 0, 7), (topics.WORKER_STATE, 0, 9)])
    cursor.advance([(topics.RUN_CONTROL, 0, 4), (topics.TRAINING_LOG, 0, 8)])
    assert str(cursor) == "c.0:5,l.0:8"


def test_a_part_is_forgotten_when_its_record_is_done() -> None:
    cursor = Cursor.parse("l.0:7+1")
    assert cursor.part((LOG, 0)) == 1
    cursor.set((LOG, 0), 8)
    assert str(cursor) == "l.0:8"


def test_another_cluster_or_prefix_has_another_tag() -> None:
    assert len({tag_of("a", ""), tag_of("b", ""), tag_of("a", "team1.")}) == 3
