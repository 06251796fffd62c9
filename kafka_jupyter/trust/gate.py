"""The gate of one process to one Kafka: signs what goes out, judges what comes in, by the settings."""

from __future__ import annotations

import datetime
import threading
import time

from kafka_jupyter import redact
from kafka_jupyter.errors import BadSignature, BadTrustFile, NotTrusted
from kafka_jupyter.protocol.headers import Headers
from kafka_jupyter.settings import Settings
from kafka_jupyter.trust import judge
from kafka_jupyter.trust.file import TrustFile
from kafka_jupyter.trust.judge import Origin, Policy
from kafka_jupyter.trust.keys import KeyFolder
from kafka_jupyter.trust.listed import Role
from kafka_jupyter.trust.signer import Signer

logger = redact.logger(__name__)

LOGGED = 20  # records that are read all the same are logged one by one up to here


def policy_of(settings: Settings) -> Policy:
    """`require` wherever there is a trust file, unless the settings say otherwise."""
    if settings.trust_policy:
        return Policy(settings.trust_policy)
    return Policy.REQUIRE if settings.trust_file.exists() else Policy.OFF


class Gate:
    """Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Raises BadTrustFile where one is needed and cannot be read."""
        self.policy = policy_of(settings)
        self._skew_ms = int(settings.clock_skew_s * 1000)
        self._file = None
        if self.policy is not Policy.OFF:
            self._file = TrustFile(settings.trust_file, settings.trust_reload_s)
        elif settings.trust_file.exists():  # it still says which of our keys is to be used
            try:
                self._file = TrustFile(settings.trust_file, settings.trust_reload_s)
            except BadTrustFile as failure:
                logger.info("not used, for the policy is off: %s", failure)
        self.signer = Signer(
            KeyFolder(settings.key_dir), self._file, self._skew_ms, int(settings.delivery_timeout_s * 1000), settings.trust_reload_s
        )
        self._lock = threading.Lock()
        self.let_through = 0  # records that `require` would not have read

    def sign(self, type_: str, audience: str, key: bytes | None, value: bytes | None, nonce: str = "") -> Headers:
        return self.signer.headers(type_, audience, key, value, nonce)

    def origin(self, headers: Headers, key: bytes | None, value: bytes | None, audience: str, time_ms: int) -> Origin:
        """Of a record that stands in the log. Raises BadSignature if it is not to be read."""
        if self.policy is Policy.OFF or self._file is None:
            return judge.claimed_origin(headers)
        try:
            return judge.origin(self._file.current(), self._skew_ms, headers, key, value, audience, time_ms)
        except BadSignature as bad:
            if self.policy is Policy.REQUIRE:
                raise
            with self._lock:
                self.let_through += 1
            if self.let_through <= LOGGED:
                logger.warning("read all the same (trust_policy is warn), a record of %s: %s", audience, bad.fields.get("why"))
            return judge.claimed_origin(headers)

    @property
    def distrust(self) -> str:
        """Names what a state may not be made of: one that was folded under another name is no beginning for ours. None but where
        signatures are required."""
        if self.policy is not Policy.REQUIRE or self._file is None:
            return ""
        return f"require {self._file.current().distrust}".strip()

    def check_own(self, type_: str, servers: str) -> None:
        """Raises NotTrusted if nobody with our trust file would read a record of that type from us."""
        roles = judge.WRITERS[type_]
        if self.policy is Policy.REQUIRE and self._file is not None and not roles & self.signer.roles():
            raise self._not_trusted(self._file, min(roles), servers)

    def check_code(self, servers: str) -> None:
        """Raises NotTrusted if no worker with our trust file would run code that we bring."""
        if self.policy is Policy.REQUIRE and self._file is not None and Role.CODE not in self.signer.roles():
            raise self._not_trusted(self._file, Role.CODE, servers)

    def _not_trusted(self, file: TrustFile, role: Role, servers: str) -> NotTrusted:
        own = self.signer.current()
        way_out = f"Give what `kafka-jupyter keys export` prints to whoever keeps that file: `kafka-jupyter keys trust FILE --role {role}`."
        if own is None:
            why, way_out = "you have no key", f"`kafka-jupyter keys init` makes one. {way_out}"
        else:
            why = f"your key {own.kid} is not trusted as {role}"
            if begins := self._begins(own.kid, role):
                why, way_out = f"{why} before {begins}", "Try again then."
        return NotTrusted(servers=servers, file=file.path, why=why, way_out=way_out)

    def _begins(self, kid: str, role: Role) -> str:
        """When it will be trusted with that; empty if that is not known."""
        assert self._file is not None
        now_ms, key = int(time.time() * 1000), self._file.current().keys.get(kid)
        if key is None or key.end_ms is not None:
            return ""
        times = [grant.not_before_ms for grant in key.grants if role in grant.roles and grant.not_before_ms > now_ms]
        return datetime.datetime.fromtimestamp(min(times) / 1000).astimezone().isoformat(" ", "seconds") if times else ""
