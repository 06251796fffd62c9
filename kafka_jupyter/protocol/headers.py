"""Record headers. What is signed, and in which bytes, is in signing.py."""

from __future__ import annotations

CONTENT_TYPE = "content-type"
JSON = b"application/json"
STATEMENT = "kj-statement"
SIGNATURE = "kj-signature"

Headers = tuple[tuple[str, bytes | None], ...]
