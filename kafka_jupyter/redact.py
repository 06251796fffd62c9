"""No secret in a message: what a profile or the environment holds of them is known here by value, and is taken out of every text of ours.

One place for all: errors (errors.py), what our loggers say (`logger`), representations of settings (`Guarded`). A secret is found by its
value, because whoever echoes it (librdkafka a bad one, a store its URL) does not say that it is one; the user:password@ of any URL by
its form.
"""

from __future__ import annotations

import base64
import logging
import re
import threading
import urllib.parse
from collections.abc import Mapping
from typing import Any

MASK = "•••"
LEAST = 4  # characters; a shorter one would be found everywhere, and hides nothing
LEAST_FOREIGN = 8  # of what stands in the environment, most of it not ours: TOKENS=true is no secret
_SECRET = re.compile(
    r"passw|secret|token|credential|private|jaas|userinfo|oauthbearer\.config|(^|[._-])key($|[._-](pem|string)$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(location|file|path|dir|url|uri|mechanism|method|type)$|public", re.IGNORECASE)
# A password may hold a slash, which nobody has encoded; behind a port begins a path.
_USERINFO = re.compile(r"(?<=://)(?:[^/\s@'\"]+|[^/\s@'\":]*:(?!\d+/)[^\s@'\"]+)(?=@)")

_lock = threading.Lock()
_known: set[str] = set()
_pattern: re.Pattern[str] | None = None


def is_secret(name: str) -> bool:
    """Whether what is set under this name (of librdkafka, or of a variable) opens a door."""
    return bool(_SECRET.search(name)) and not _NO_SECRET.search(name)


def know(values: Mapping[str, str], least: int = LEAST) -> None:
    """Remembers those of these settings or variables that are secret by their name and have at least `least` characters."""
    remember(*(value for name, value in values.items() if is_secret(name) and len(value) >= least))


def remember(*secrets: str) -> None:
    """Remembers secrets, and the forms in which others may write them: line by line, in a URL, as a literal, in base64."""
    global _pattern
    forms: set[str] = set()
    for secret in secrets:
        if len(secret) >= LEAST:
            plain = [secret, *(line for line in secret.splitlines() if len(line) >= 16)]
            forms.update(plain, map(urllib.parse.quote, plain), map(urllib.parse.quote_plus, plain), (repr(text)[1:-1] for text in plain))
            forms.add(base64.b64encode(secret.encode()).decode())
    with _lock:
        if not forms <= _known:
            _known.update(forms)
            _pattern = re.compile("|".join(map(re.escape, sorted(_known, key=len, reverse=True))))


def know_address(url: str) -> None:
    """Remembers the user:password@ of a URL, and the password alone."""
    found = _USERINFO.search(url)
    if found:
        remember(found[0], urllib.parse.unquote(found[0].partition(":")[2]))


def clean(text: str) -> str:
    """The text without what is known to be secret."""
    if _pattern is not None:
        text = _pattern.sub(MASK, text)
    return _USERINFO.sub(MASK, text) if "://" in text else text


def cleaned(value: Any) -> Any:
    """As `clean`, of all texts in a value of plain dicts, lists and tuples; others stay as they are."""
    if type(value) is str:
        return clean(value)
    if type(value) is dict:
        return {key: cleaned(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(cleaned, value))
    return value


class Guarded(dict[str, Any]):
    """Settings of librdkafka, whose representation (a traceback's, a debugger's) does not tell the secret ones."""

    def __repr__(self) -> str:
        return repr({name: MASK if is_secret(name) else cleaned(value) for name, value in self.items()})


class _Cleaner(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        text = clean(said)
        if text != said:
            record.msg, record.args = text, ()
        if record.exc_info:
            record.exc_text = clean(logging.Formatter().formatException(record.exc_info))  # formatters take it where it is there
        return True


_cleaner = _Cleaner()


def logger(name: str) -> logging.Logger:
    """`logging.getLogger(name)`, whose records hold no secret, whoever handles them."""
    found = logging.getLogger(name)
    found.addFilter(_cleaner)  # once: it is not added again
    return found
