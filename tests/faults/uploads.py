"""What lies in the store, by the raw topic or the raw folder, and which of it a record names."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

from tests.faults import checker
from tests.faults.checker import Verdict


@dataclasses.dataclass(frozen=True)
class Shelf:
    """Uploads, by their ids. `kept`: by the records that count; `superseded`: named by a record, and needed by nobody any more; `orphans`:
    named by none."""

    kept: set[str]
    superseded: set[str]
    orphans: set[str]


def shelf(verdict: Verdict, store: pathlib.Path | None = None) -> Shelf:
    """`store`: the folder of a store that is not Kafka itself."""
    there = _files(store) if store is not None else {key.partition("/")[0] for key in verdict.topics.chunks}
    needed = {upload for run in verdict.runs.values() for _, part in checker.named_parts(run) for upload in _upload(part)}
    named: set[str] = set(needed)
    for log in verdict.topics.runs.values():
        named |= {upload for record in (*log.tasks, *(entry.record for entry in log.control)) for upload in _uploads(record)}
    return Shelf(there & needed, (there & named) - needed, there - named)


def _files(store: pathlib.Path) -> set[str]:
    """Also what was never finished."""
    return {file.name for folder in ("runs", "incoming") for file in (store / folder).glob("*")}


def _uploads(value: Any) -> Iterator[str]:
    """Wherever a part stands in a record."""
    if isinstance(value, dict):
        yield from _upload(value)
        for each in value.values():
            yield from _uploads(each)
    elif isinstance(value, list):
        for each in value:
            yield from _uploads(each)


def _upload(part: dict[str, Any]) -> Iterator[str]:
    if part.get("kind") == "kafka":
        yield str(part["upload"])
    elif part.get("kind") == "url":
        yield str(part["url"]).rpartition("/")[2]
