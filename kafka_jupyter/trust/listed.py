"""Whom we trust with what, and from when until when: the trust file as values. TOML, tables `[[key]]`:

[[key]]
kid = "5f0c…"                       # 16 digits; must be that of `public`
public = "3q2+7w…="                 # the 32 bytes of the key in base64
name = "ada@laptop"                 # for people
roles = ["submitter", "code"]       # submitter | worker | code
not_before = 2026-11-27T20:00:00Z
not_after = 2027-11-27T20:00:00Z    # may be missing, as the two below
revoked_at = 2026-12-24T12:00:00Z   # its records count until then
distrusted_from = 2026-12-01T00:00:00Z  # stolen: what it signed from then on never counted
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import hashlib
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kafka_jupyter.errors import BadTrustFile
from kafka_jupyter.protocol.signing import KID
from kafka_jupyter.trust.keys import kid_of, public_of

FILE_LIMIT = 4 << 20  # bytes
NAME_LIMIT = 200
_TIMES = ("not_before", "not_after", "revoked_at", "distrusted_from")
_FIELDS = frozenset({"kid", "public", "name", "roles", *_TIMES})


class Role(enum.StrEnum):
    """What a key may be trusted with."""

    SUBMITTER = "submitter"  # writes tasks and asks things of runs
    WORKER = "worker"  # claims runs and says what became of them
    CODE = "code"  # its tasks may bring Python code


@dataclasses.dataclass(frozen=True)
class Grant:
    """Roles for a time, in milliseconds since 1970."""

    roles: frozenset[Role]
    not_before_ms: int
    not_after_ms: int | None = None


@dataclasses.dataclass(frozen=True)
class TrustedKey:
    """`end_ms`: when it was revoked or distrusted; what is appended from then on does not count, whatever its grants say."""

    kid: str
    public: bytes
    name: str
    grants: tuple[Grant, ...]
    end_ms: int | None = None
    distrusted_ms: int | None = None

    @functools.cached_property
    def verifier(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.public)

    def roles_at(self, time_ms: int) -> frozenset[Role]:
        """What it may write that is appended then."""
        if self.end_ms is not None and time_ms >= self.end_ms:
            return frozenset()
        return frozenset[Role]().union(
            *(
                grant.roles
                for grant in self.grants
                if grant.not_before_ms <= time_ms and (grant.not_after_ms is None or time_ms < grant.not_after_ms)
            )
        )


class TrustList:
    """All trusted keys, by kid. A value."""

    def __init__(self, keys: Mapping[str, TrustedKey]) -> None:
        self.keys = dict(keys)

    @property
    def distrust(self) -> str:
        """Names what is to be forgotten: two lists with the same one give the same state for the same log. Empty if that is nothing."""
        lines = sorted(f"{key.kid} {key.distrusted_ms}" for key in self.keys.values() if key.distrusted_ms is not None)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] if lines else ""


def parse(text: str, file: pathlib.Path) -> TrustList:
    """Raises BadTrustFile naming the key and the field."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadTrustFile(file=file, why=f"it is no TOML: {error}") from error
    tables = document.pop("key", [])
    if document or not isinstance(tables, list):
        raise BadTrustFile(file=file, why=f"it may hold tables [[key]] only, not {', '.join(document) or 'key'}")
    keys: dict[str, TrustedKey] = {}
    for number, table in enumerate(tables, 1):
        try:
            key = _key(table)
        except ValueError as why:
            raise BadTrustFile(file=file, why=f"key {number}: {why}") from why
        before = keys.get(key.kid)
        keys[key.kid] = key if before is None else _together(before, key)
    return TrustList(keys)


def _key(table: Any) -> TrustedKey:
    if not isinstance(table, dict):
        raise ValueError("it is no table")
    if unknown := table.keys() - _FIELDS:
        raise ValueError(f"there is no field {', '.join(sorted(unknown))} (known: {', '.join(sorted(_FIELDS))})")
    kid, public_text, name, roles = (table.get(field) for field in ("kid", "public", "name", "roles"))
    if not isinstance(kid, str) or not KID.match(kid):
        raise ValueError("kid must have 16 hexadecimal digits")
    try:
        public = public_of(public_text if isinstance(public_text, str) else "")
    except ValueError as why:
        raise ValueError(f"public: {why}") from None
    if kid != kid_of(public):
        raise ValueError(f"the kid of this public key is {kid_of(public)}, not {kid}")
    if not isinstance(roles, list) or not roles or not all(role in list(Role) for role in roles):
        raise ValueError(f"roles must be some of {', '.join(Role)}")
    if name is not None and not (isinstance(name, str) and len(name) <= NAME_LIMIT and name.isprintable()):
        raise ValueError(f"name must be printable text of at most {NAME_LIMIT} characters")
    not_before, not_after, revoked, distrusted = (_time(table, field) for field in _TIMES)
    if not_before is None:
        raise ValueError("not_before is missing")
    grant = Grant(frozenset(map(Role, roles)), not_before, not_after)
    return TrustedKey(kid, public, name or "", (grant,), _earlier(revoked, distrusted), distrusted)


def _together(one: TrustedKey, other: TrustedKey) -> TrustedKey:
    """Two tables of the same key: what either grants, but for what either ends."""
    return dataclasses.replace(
        one,
        grants=one.grants + other.grants,
        end_ms=_earlier(one.end_ms, other.end_ms),
        distrusted_ms=_earlier(one.distrusted_ms, other.distrusted_ms),
    )


def _earlier(*times: int | None) -> int | None:
    return min((at for at in times if at is not None), default=None)


def _time(table: Mapping[str, Any], field: str) -> int | None:
    value = table.get(field)
    if value is None:
        return None
    if not isinstance(value, datetime.datetime) or value.tzinfo is None:
        raise ValueError(f"{field} must be a time with its zone, such as 2026-11-27T20:00:00Z")
    return int(value.timestamp() * 1000)
