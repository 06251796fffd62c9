"""Edits the trust file, without losing what people have written beside the keys. Readers do not import this."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import pathlib
from collections.abc import Iterable, Iterator

import tomlkit

from kafka_jupyter.errors import TrustError
from kafka_jupyter.trust import listed
from kafka_jupyter.trust.keys import encoded, kid_of, write_whole
from kafka_jupyter.trust.listed import Role


@contextlib.contextmanager
def _edited(path: pathlib.Path) -> Iterator[tomlkit.TOMLDocument]:
    """The document, written back at the end if it is still a trust file then. Two editors wait for each other."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text = path.read_text("utf-8") if path.exists() else "# Whom the workers and notebooks here believe. See docs/security.md.\n"
            listed.parse(text, path)
            document = tomlkit.parse(text)
            yield document
            listed.parse(changed := tomlkit.dumps(document), path)
            write_whole(path, changed.encode(), 0o644)
    except OSError as error:
        raise TrustError(detail=f"{path} cannot be changed: {error}") from error


def add(path: pathlib.Path, public: bytes, name: str, roles: Iterable[Role], not_before_ms: int, not_after_ms: int | None = None) -> None:
    """Trusts a key from then on, beside what it is trusted with already. Raises TrustError, BadTrustFile."""
    wanted = set(roles)
    with _edited(path) as document:
        table = tomlkit.table()
        table["kid"], table["public"], table["name"] = kid_of(public), encoded(public), name
        table["roles"] = [str(role) for role in Role if role in wanted]
        table["not_before"] = _date(not_before_ms)
        if not_after_ms is not None:
            table["not_after"] = _date(not_after_ms)
        table.add(tomlkit.nl())
        document.setdefault("key", tomlkit.aot()).append(table)


def end(path: pathlib.Path, kid: str, field: str, at_ms: int) -> None:
    """Sets `not_after`, `revoked_at` or `distrusted_from`, unless it is earlier already. Raises TrustError, BadTrustFile."""
    with _edited(path) as document:
        tables = [table for table in document.get("key", []) if table["kid"] == kid]
        if not tables:
            raise TrustError(detail=f"{path} has no key {kid}")
        for table in tables:
            if field not in table or table[field].timestamp() * 1000 > at_ms:
                table[field] = _date(at_ms)


def _date(at_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC)
