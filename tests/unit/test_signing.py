"""What is signed, byte by byte."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_jupyter.errors import BadSignature
from kafka_jupyter.protocol import signing

BYTES = st.binary(max_size=12) | st.none()


def test_the_encoding_is_that_of_dsse() -> None:
    """The example of its protocol.md."""
    assert signing.pae(b"http://example.com/HelloWorld", b"hello world") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(st.tuples(BYTES, BYTES), st.tuples(BYTES, BYTES), st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12))
def test_two_records_never_have_the_same_bytes(
    one: tuple[bytes | None, bytes | None], other: tuple[bytes | None, bytes | None], said: bytes, said_too: bytes
) -> None:
    same = signing.signed_bytes(said, *one) == signing.signed_bytes(said_too, *other)
    assert same == ((said, one) == (said_too, other))


def test_where_a_part_ends_is_signed_too() -> None:
    parts = [(b"ab", b"c"), (b"a", b"bc"), (b"abc", b""), (b"", b"abc"), (b"abc", None), (None, b"abc"), (b"1 a", b"b"), (b"a 1", b"b")]
    signed = [signing.signed_bytes(b"{}", key, value) for key, value in parts]
    assert all(one != other for one, other in itertools.combinations(signed, 2))


def test_a_record_without_both_headers_is_unsigned_and_that_is_no_error() -> None:
    assert signing.open_envelope((("content-type", b"application/json"),), b"k", b"v") is None


def test_a_new_statement_says_all_and_never_the_same() -> None:
    said = [signing.new_statement("task", "0123456789abcdef", "c/task", 1000, 500) for _ in range(2)]
    headers = [((signing.STATEMENT, one), (signing.SIGNATURE, bytes(64))) for one in said]
    first, second = (signing.open_envelope(each, b"k", None) for each in headers)
    assert first is not None
    assert second is not None
    found = first.statement
    assert (found.type, found.kid, found.iat, found.exp, found.aud, found.alg) == (
        "task", "0123456789abcdef", 1000, 1500, "c/task", "Ed25519",
    )  # fmt: skip
    assert found.nonce != second.statement.nonce
    assert len(said[0]) < signing.LIMIT


@given(st.binary(max_size=1200), st.binary(max_size=80))
def test_whatever_stands_in_the_headers_is_a_named_error(said: bytes, signature: bytes) -> None:
    with pytest.raises(BadSignature):
        signing.open_envelope(((signing.STATEMENT, said), (signing.SIGNATURE, signature)), b"k", b"v")
