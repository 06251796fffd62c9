"""Signs what this process writes: with the newest of its keys that is surely trusted by now."""

from __future__ import annotations

import collections
import threading
import time

from kafka_jupyter.protocol import signing
from kafka_jupyter.protocol.headers import SIGNATURE, STATEMENT, Headers
from kafka_jupyter.trust.file import TrustFile
from kafka_jupyter.trust.judge import LIFE_LIMIT_MS
from kafka_jupyter.trust.keys import KeyFolder, OwnKey
from kafka_jupyter.trust.listed import Role

BOUND = 4096  # attempts whose key is remembered


class Signer:
    """Thread-safe. Without a key it signs nothing."""

    def __init__(self, folder: KeyFolder, trusted: TrustFile | None, skew_ms: int, patience_ms: int, reload_s: float) -> None:
        """`patience_ms`: how long a record may be on its way to Kafka."""
        self._folder, self._trusted = folder, trusted
        self._skew_ms, self._reload_s = skew_ms, reload_s
        self._life_ms = min(LIFE_LIMIT_MS, patience_ms + skew_ms)
        self._lock = threading.Lock()
        self._keys: list[OwnKey] = []
        self._names: tuple[str, ...] | None = None
        self._look_at_s = 0.0
        self._bound: collections.OrderedDict[str, str] = collections.OrderedDict()  # nonce of an attempt → kid

    def headers(self, type_: str, audience: str, key: bytes | None, value: bytes | None, nonce: str = "") -> Headers:
        """`nonce`: of the attempt that the record belongs to, if it does. Raises BadKey for a key file that cannot be used."""
        own = self._key(nonce)
        if own is None:
            return ()
        said = signing.new_statement(type_, own.kid, audience, int(time.time() * 1000), self._life_ms)
        return ((STATEMENT, said), (SIGNATURE, own.private.sign(signing.signed_bytes(said, key, value))))

    def bind(self, nonce: str, kid: str) -> None:
        """All records of an attempt bear the key of its winning Claimed, whatever key is used by then for others."""
        if kid:
            with self._lock:
                self._bound[nonce] = kid
                if len(self._bound) > BOUND:
                    self._bound.popitem(last=False)

    def current(self) -> OwnKey | None:
        return self._key("")

    def _key(self, nonce: str) -> OwnKey | None:
        with self._lock:
            keys = self._own()
            bound = self._bound.get(nonce) if nonce else None
            return next((key for key in keys if key.kid == bound), None) or self._best(keys, int(time.time() * 1000))

    def _own(self) -> list[OwnKey]:
        now = time.monotonic()
        if now >= self._look_at_s:
            names = tuple(file.name for file in self._folder.files())
            if names != self._names:
                self._keys, self._names = self._folder.all(), names
            self._look_at_s = now + self._reload_s
        return self._keys

    def _best(self, keys: list[OwnKey], now_ms: int) -> OwnKey | None:
        """The newest that counts by every clock within the skew, else the newest that counts by ours, else the newest whose time has come.
        Where a trust file is, only keys that it lists are looked at, if it lists any."""
        listed = self._trusted.current().keys if self._trusted is not None else {}
        known = [key for key in keys if key.kid in listed]
        early, late = now_ms - self._skew_ms, now_ms + self._skew_ms + self._life_ms
        for counts in (
            [key for key in known if listed[key.kid].roles_at(early) and listed[key.kid].roles_at(late)],
            [key for key in known if listed[key.kid].roles_at(now_ms)],
            [key for key in known or keys if key.from_ms <= now_ms],
            keys[:1],
        ):
            if counts:
                return counts[-1]
        return None

    def roles(self) -> frozenset[Role]:
        """What the trust file trusts our key with, now."""
        own = self.current()
        listed = self._trusted.current().keys.get(own.kid) if self._trusted is not None and own is not None else None
        return frozenset() if listed is None else listed.roles_at(int(time.time() * 1000))
