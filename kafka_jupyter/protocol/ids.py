"""Names of runs, attempts and uploads, and the version that every record carries."""

from __future__ import annotations

import hashlib
import re
import secrets

_SLUG = re.compile(r"[^a-z0-9]+")
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,79}\Z")
SHORT = 4  # characters of the random part that a card shows


def version_1() -> int:
    """Default of every record's `v`. A factory, because `omit_defaults` would leave a plain default out of the JSON."""
    return 1


def new_run_id(name: str) -> str:
    """`"Digits, wide"` → `digits-wide-3f2a9c01b7d4`: a slug for people, 48 random bits for uniqueness."""
    return f"{_slug(name)}-{secrets.token_hex(6)}"


def retry_id(run_id: str, offset: int) -> str:
    """The id of the run that goes on after `run_id`, which ended at `offset`: the same for everybody who asks (rule 11)."""
    return f"{_slug(run_id.rpartition('-')[0] or run_id)}-{hashlib.sha256(f'{run_id}@{offset}'.encode()).hexdigest()[:12]}"


def _slug(name: str) -> str:
    return _SLUG.sub("-", name.lower()).strip("-")[:40].strip("-") or "run"


def short(run_id: str) -> str:
    """The part of a run id that tells it from its namesakes: the first characters behind the last dash."""
    return run_id.rpartition("-")[2][:SHORT]


def new_nonce() -> str:
    """64 random bits that tell two claims of the same worker for the same attempt apart."""
    return secrets.token_hex(8)


def new_upload_id(owner: str = "") -> str:
    """24 hexadecimal digits; those of one owner begin alike."""
    return upload_prefix(owner) + secrets.token_hex(4) if owner else secrets.token_hex(12)


def upload_prefix(owner: str) -> str:
    """16 hexadecimal digits. An owner is whoever may delete what nobody has named: `<run>/<attempt>`."""
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def new_request_id() -> str:
    return secrets.token_hex(8)
