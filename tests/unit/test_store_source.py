"""Bytes on their way into a store: cut, counted, hashed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_jupyter.errors import ArtifactAltered, StoreError
from kafka_jupyter.protocol.topics import CHUNK
from kafka_jupyter.store import digest
from kafka_jupyter.store.source import Source, pieces_of


@given(st.lists(st.integers(0, 2 * CHUNK + 3), max_size=5))
def test_chunks_of_any_size_become_pieces_of_one_size_and_the_same_bytes(sizes: list[int]) -> None:
    chunks = [bytes([i + 1]) * size for i, size in enumerate(sizes)]
    whole = b"".join(chunks)
    source = Source("x", len(whole), chunks)
    pieces = list(source)
    assert b"".join(pieces) == whole
    assert all(len(piece) == CHUNK for piece in pieces[:-1])
    assert len(pieces) == pieces_of(len(whole))
    assert source.sha256 == hashlib.sha256(whole).hexdigest()


def test_arrays_pass_as_memoryviews_whatever_their_shape_and_type() -> None:
    array = np.arange(300_000, dtype=np.float64).reshape(300, 1000)
    chunks = [memoryview(np.empty((0, 3), np.float32)), memoryview(array), bytearray(b"end")]
    pieces = list(Source("x", array.nbytes + 3, chunks))
    assert b"".join(pieces) == array.tobytes() + b"end"
    assert digest(chunks) == (hashlib.sha256(array.tobytes() + b"end").hexdigest(), array.nbytes + 3)


@pytest.mark.parametrize("announced", [9, 11])
def test_a_source_that_gives_more_or_less_than_it_announced_is_an_error(announced: int) -> None:
    with pytest.raises(StoreError, match=f"x_train was announced with {announced} bytes and g(ives more|ave only 10)"):
        list(Source("x_train", announced, [b"0123456789"]))


def test_an_array_that_changes_while_it_is_sent_is_an_error() -> None:
    promised, _ = digest([b"before"])
    with pytest.raises(ArtifactAltered, match="changed while it was being sent"):
        list(Source("x_train", 5, [b"after"], promised))


def test_progress_is_told_after_each_piece() -> None:
    told: list[tuple[int, int]] = []
    size = CHUNK + 1
    list(Source("x", size, [bytes(size)], progress=lambda done, total: told.append((done, total))))
    assert told == [(CHUNK, size), (size, size)]
