"""Who may write what. The answer for one record depends on its bytes, the time at which Kafka appended it, and the trust list: not on
when it is asked, nor by whom. So all readers with the same list fold the same state, today and in ten days."""

from __future__ import annotations

import dataclasses
import enum

from cryptography.exceptions import InvalidSignature

from kafka_jupyter.errors import BadSignature
from kafka_jupyter.protocol import signing
from kafka_jupyter.protocol.headers import Headers
from kafka_jupyter.trust.listed import Role, TrustList

LIFE_LIMIT_MS = 2 * 3_600_000  # of a signature: one that may be used for ever would have no expiry

_SUBMITTER, _WORKER = frozenset({Role.SUBMITTER}), frozenset({Role.WORKER})
_EITHER = _SUBMITTER | _WORKER
_VALUES: dict[str, frozenset[Role]] = {
    **dict.fromkeys(("task", "submitted", "stop", "cancel", "pause", "resume", "settings"), _SUBMITTER),
    **dict.fromkeys(
        ("claimed", "started", "heartbeat", "checkpointed", "applied", "released", "failed", "succeeded", "cancelled",
         "expired", "tooold", "dead", "rows", "worker", "snapshot", "page", "mark", "dead_letter"), _WORKER,
    ),
    **dict.fromkeys(("artifact", "chunk"), _EITHER),
}  # fmt: skip
WRITERS = _VALUES | {signing.tombstone(type_): roles for type_, roles in _VALUES.items()}


class Policy(enum.StrEnum):
    REQUIRE = "require"  # what is not signed by a trusted key is not read
    WARN = "warn"  # it is read, and counted
    OFF = "off"  # nobody looks


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where a record comes from. `kid` and `issued_ms` are what it says itself unless `proved`; empty and 0 if it says nothing."""

    kid: str = ""
    type: str = ""
    issued_ms: int = 0
    proved: bool = False
    code: bool = False  # proved, and its key may bring code


def origin(trusted: TrustList, skew_ms: int, headers: Headers, key: bytes | None, value: bytes | None, aud: str, time_ms: int) -> Origin:
    """Of a record that stands in the log. `aud`: where it was read, `time_ms`: Kafka's append time. Raises BadSignature."""
    envelope = signing.open_envelope(headers, key, value)
    if envelope is None:
        raise BadSignature(why="it is not signed")
    said = envelope.statement
    if said.aud != aud:
        raise BadSignature(why="it was signed for another topic or cluster")
    if said.type.endswith(signing.TOMBSTONE) is not (value is None):
        raise BadSignature(why="a value was added or taken away")
    signer = trusted.keys.get(said.kid)
    if signer is None:
        raise BadSignature(why=f"its key {said.kid} is not in the trust file")
    _check_times(said, skew_ms, time_ms)
    roles = signer.roles_at(time_ms)
    if not roles:
        raise BadSignature(why=f"its key {said.kid} was not trusted when it was appended")
    # A type that we do not know: a newer version's. Any role may bring it, its run becomes read-only for us.
    if not WRITERS.get(said.type, frozenset(Role)) & roles:
        raise BadSignature(why=f"its key {said.kid} may not write records of type {said.type!r}: it is no {' or '.join(_names(said.type))}")
    try:
        signer.verifier.verify(envelope.signature, envelope.signed)
    except InvalidSignature:
        raise BadSignature(why="its signature does not fit") from None
    return Origin(said.kid, said.type, said.iat, True, Role.CODE in roles)


def claimed_origin(headers: Headers) -> Origin:
    """What a record says of itself, not proved."""
    try:
        envelope = signing.open_envelope(headers, None, None)
    except BadSignature:
        return Origin()
    return Origin() if envelope is None else Origin(envelope.statement.kid, envelope.statement.type, envelope.statement.iat)


def _check_times(said: signing.Statement, skew_ms: int, time_ms: int) -> None:
    if said.exp - said.iat > LIFE_LIMIT_MS:
        raise BadSignature(why="its signature would hold for too long")
    if said.iat > time_ms + skew_ms:
        raise BadSignature(why=f"it is dated {(said.iat - time_ms) / 1000:.0f} s ahead of Kafka's clock")
    if time_ms > said.exp:
        raise BadSignature(why=f"its signature expired {(time_ms - said.exp) / 1000:.0f} s before it was appended")


def _names(type_: str) -> list[str]:
    return [str(role) for role in Role if role in WRITERS.get(type_, ())]
