"""Artifacts as records name them: small ones inline, large ones by a reference with size and sha256."""

from __future__ import annotations

import hashlib

import msgspec

from kafka_jupyter.protocol.ids import version_1

INLINE_LIMIT = 64 << 10  # bytes; a part up to this size stands in the record itself and costs no round trip


class InlineText(msgspec.Struct, frozen=True, tag_field="kind", tag="text"):
    """UTF-8 text in the record, readable by any Kafka tool."""

    text: str

    @property
    def size(self) -> int:
        return len(self.text.encode())

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class InlineBytes(msgspec.Struct, frozen=True, tag_field="kind", tag="bytes"):
    """Bytes in the record (base64 in JSON)."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class KafkaRef(msgspec.Struct, frozen=True, tag_field="kind", tag="kafka"):
    """Bytes in the `artifact` topic: `chunks` records `<upload>/<i>` of one partition, the first of them at `offset`."""

    topic: str
    partition: int
    offset: int
    chunks: int
    upload: str
    size: int  # bytes
    sha256: str
    last: int = -1  # offset of the last chunk, where a reader may stop; -1: unknown


class UrlRef(msgspec.Struct, frozen=True, tag_field="kind", tag="url"):
    """Bytes at an fsspec URL."""

    url: str
    size: int  # bytes
    sha256: str


class IndexEntry(msgspec.Struct, frozen=True, tag_field="type", tag="artifact"):
    """A record of `artifact_index`: `data/<sha256>` names a data set whose chunks are all acked, `upload/<id>` any upload, written
    as it begins (no offsets and no sha256 yet), so that what was given up half way can be listed and deleted too."""

    name: str
    ref: KafkaRef
    v: int = msgspec.field(default_factory=version_1)


Inline = InlineText | InlineBytes
Ref = KafkaRef | UrlRef
Part = InlineText | InlineBytes | KafkaRef | UrlRef


def inline(data: bytes, text: bool = False) -> Inline:
    return InlineText(data.decode()) if text else InlineBytes(data)
