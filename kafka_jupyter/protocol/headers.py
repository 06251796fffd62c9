"""Record headers. The signature of a later version has its slot here: it covers the exact key and value bytes."""

from __future__ import annotations

CONTENT_TYPE = "content-type"
JSON = b"application/json"
SIGNATURE = "kj-signature"  # DSSE envelope over key and value; written by nobody and ignored by all in this version

Headers = tuple[tuple[str, bytes], ...]
