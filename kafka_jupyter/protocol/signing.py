"""What a writer signs, and in which bytes: the form of a record's two headers. Pure; keys and trust are in `trust`.

A statement says what is signed: the record's type, the key that signs it, from when until when, for which topic of which cluster, and
that it is this record and no other. It travels as JSON in `kj-statement`, and is signed together with the exact bytes of the record's
key and value in the pre-authentication encoding of DSSE (https://github.com/secure-systems-lab/dsse, protocol.md):

    PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body

with LEN the length in bytes, in decimal. The body is statement, key and value, each as its length, a space, and its bytes, so that no
two records have the same body; a part that is absent (the value of a tombstone) is `-`. The signature (Ed25519, 64 bytes) is
`kj-signature`.

Both are looked at before anything reads the value: what an unknown writer wrote never reaches a parser but this one, which is strict and
reads `LIMIT` bytes at most.
"""

from __future__ import annotations

import re
import secrets

import msgspec

from kafka_jupyter.errors import BadSignature
from kafka_jupyter.protocol.headers import SIGNATURE, STATEMENT, Headers

PAYLOAD_TYPE = b"application/vnd.kafka-jupyter.record.v1"
ALGORITHM = "Ed25519"
TOMBSTONE = "-tombstone"  # behind the type of what it ends: the type of a record without a value
LIMIT = 1024  # bytes of a statement
SIGNATURE_BYTES = 64

KID = re.compile(r"[0-9a-f]{16}\Z")
_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,39}\Z")
_AUDIENCE = re.compile(r"[A-Za-z0-9_-]{1,64}/[A-Za-z0-9._-]{1,249}\Z")
_NONCE = re.compile(r"[0-9a-f]{16}\Z")
_TIME_LIMIT = 1 << 53  # ms; what every JSON reader can tell from its neighbours


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`iat`, `exp`: milliseconds since 1970 by the writer's clock. `aud`: `<cluster id>/<topic>`."""

    type: str
    kid: str
    iat: int
    exp: int
    aud: str
    nonce: str
    alg: str


class Envelope(msgspec.Struct, frozen=True):
    """The two headers of a record, taken apart and well-formed; whether they are true is another question."""

    statement: Statement
    signature: bytes
    signed: bytes  # what the signature must fit


_decoder = msgspec.json.Decoder(Statement, strict=True)


def pae(payload_type: bytes, body: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type, len(body), body)


def signed_bytes(statement: bytes, key: bytes | None, value: bytes | None) -> bytes:
    """What a signature of this record has to fit."""
    parts = (b"-" if part is None else b"%d %b" % (len(part), part) for part in (statement, key, value))
    return pae(PAYLOAD_TYPE, b" ".join(parts))


def tombstone(type_: str) -> str:
    return type_ + TOMBSTONE


def audience(cluster_id: str, topic: str) -> str:
    return f"{cluster_id}/{topic}"


def new_statement(type_: str, kid: str, audience_: str, now_ms: int, life_ms: int) -> bytes:
    """As it is signed and sent."""
    made = Statement(type_, kid, now_ms, now_ms + life_ms, audience_, secrets.token_hex(8), ALGORITHM)
    return msgspec.json.encode(made)


def open_envelope(headers: Headers, key: bytes | None, value: bytes | None) -> Envelope | None:
    """The signature of a record, or None if it has none. Raises BadSignature for anything that is not exactly one well-formed pair."""
    statements = [content for name, content in headers if name == STATEMENT]
    signatures = [content for name, content in headers if name == SIGNATURE]
    if not statements and not signatures:
        return None
    if len(statements) != 1 or len(signatures) != 1:
        raise BadSignature(why="it has not one statement and one signature")
    said, signature = statements[0], signatures[0]
    if said is None or len(said) > LIMIT:
        raise BadSignature(why="its statement is missing or too long")
    if signature is None or len(signature) != SIGNATURE_BYTES:
        raise BadSignature(why=f"its signature does not have {SIGNATURE_BYTES} bytes")
    try:
        found = _decoder.decode(said)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadSignature(why=f"its statement cannot be read: {error}"[:200]) from None
    if found.alg != ALGORITHM:
        raise BadSignature(why=f"it is not signed by {ALGORITHM}")
    for form, text in ((_TYPE, found.type), (KID, found.kid), (_AUDIENCE, found.aud), (_NONCE, found.nonce)):
        if not form.match(text):
            raise BadSignature(why="its statement is malformed")
    if not 0 <= found.iat <= found.exp < _TIME_LIMIT:
        raise BadSignature(why="its times are none")
    return Envelope(found, signature, signed_bytes(said, key, value))
