"""Signed records as an enemy changes them who can write to every topic: one function for each kind of forgery, and as many by chance.

Each gives a message as Kafka would hand it over; all of them are to be refused before anything reads the value.
"""

from __future__ import annotations

import base64
import dataclasses
import hmac
import json
import pathlib
import random
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kafka_jupyter.brokers.kafka import Cluster, Message
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.brokers.topics import Topics
from kafka_jupyter.protocol import codec, control, signing
from kafka_jupyter.protocol.headers import CONTENT_TYPE, JSON, SIGNATURE, STATEMENT, Headers
from kafka_jupyter.protocol.rows import EpochEnded, RowBatch
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.settings import Settings
from kafka_jupyter.trust import edit
from kafka_jupyter.trust.keys import kid_of
from kafka_jupyter.trust.listed import Role

CLUSTER, PREFIX = "MkU3OEVBNTcwNTJENDM2Qg", "forged."
NOW_MS = 1_800_000_000_000
MINUTE_MS = 60_000
RUN = "digits-3f2a9c01b7d4"
WHO: dict[str, Any] = {"run_id": RUN, "n": 1, "worker": "cpu-1", "nonce": "00ff00ff00ff00ff"}
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group


def _key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


SUBMITTER, WORKER, STRANGER, REVOKED, STOLEN, OVER, EARLY = map(_key, range(1, 8))


def trust(folder: pathlib.Path) -> Settings:
    """Settings with a trust file that knows the keys above, each for what its name says."""
    file = folder / "trust.toml"
    for key, role in ((SUBMITTER, Role.SUBMITTER), (WORKER, Role.WORKER), (REVOKED, Role.WORKER), (STOLEN, Role.WORKER)):
        edit.add(file, public(key), "", [role], NOW_MS - 60 * MINUTE_MS)
    edit.add(file, public(OVER), "", [Role.WORKER], NOW_MS - 60 * MINUTE_MS, NOW_MS - MINUTE_MS)
    edit.add(file, public(EARLY), "", [Role.WORKER], NOW_MS + MINUTE_MS)
    edit.end(file, kid_of(public(REVOKED)), "revoked_at", NOW_MS)
    edit.end(file, kid_of(public(STOLEN)), "distrusted_from", NOW_MS - 30 * MINUTE_MS)
    return Settings(
        bootstrap_servers="127.0.0.1:1", topic_prefix=PREFIX, trust_file=file, key_dir=folder / "keys", data_dir=folder, cache_dir=folder
    )


def log_of(settings: Settings) -> Log:
    """Reads what it is given; there is no Kafka behind it."""
    return Log(Cluster(settings), Topics(PREFIX, 3, CLUSTER))


@dataclasses.dataclass(frozen=True)
class Forgery:
    """A record with all that its signature depends on. `raw`: the statement's bytes, whatever they are, instead of one made of `said`."""

    record: Any
    topic: str = "run_control"
    signer: Ed25519PrivateKey = WORKER
    said: dict[str, Any] = dataclasses.field(default_factory=dict)
    raw: Callable[[bytes], bytes] = lambda statement: statement

    def statement(self) -> dict[str, Any]:
        type_ = str(self.record.__struct_config__.tag)
        times = {"iat": NOW_MS, "exp": NOW_MS + 5 * MINUTE_MS}
        aud = signing.audience(CLUSTER, PREFIX + self.topic)
        made = {"type": type_, "kid": kid_of(public(self.signer)), **times, "aud": aud, "nonce": "0123456789abcdef", "alg": "Ed25519"}
        return {name: value for name, value in (made | self.said).items() if value is not ...}

    def message(self, **changes: Any) -> Message:
        """As it stands in the log; `changes` are made behind the signer's back."""
        statement = self.raw(json.dumps(self.statement(), separators=(",", ":")).encode())
        key, value = self.key(), codec.encode(self.record)
        signature = self.signer.sign(signing.signed_bytes(statement, key, value))
        headers: Headers = ((CONTENT_TYPE, JSON), (STATEMENT, statement), (SIGNATURE, signature))
        topics = Topics(PREFIX, 3, CLUSTER)
        topic, partition = topics.place(self.topic, key.decode())
        made = Message(topic, partition, 7, NOW_MS, key, value, headers)
        return dataclasses.replace(made, **changes)

    def key(self) -> bytes:
        owner: str = self.record.worker_id if isinstance(self.record, WorkerInfo) else self.record.run_id
        return owner.encode()


BEAT = Forgery(control.Heartbeat(**WHO, epoch=3, beat=9))
CANCEL = Forgery(control.CancelRequested(run_id=RUN, request_id="r1", by="ada"), signer=SUBMITTER)
ROWS = Forgery(RowBatch(RUN, 1, "cpu-1", WHO["nonce"], [EpochEnded(1, 0, 4, {"loss": 0.5})]), "training_log")
INFO = Forgery(WorkerInfo("cpu-1", "cpu"), "worker_state")
SUBMITTED = Forgery(control.Submitted(run_id=RUN, task=control.TaskPlace("forged.task", 0, 1)), signer=SUBMITTER)
GOOD = (BEAT, CANCEL, ROWS, INFO, SUBMITTED, Forgery(control.Succeeded(**WHO, epochs=3)))


def _headers(forgery: Forgery, change: Callable[[bytes, bytes], Headers]) -> Message:
    message = forgery.message()
    found = dict(message.headers)
    statement, signature = found[STATEMENT], found[SIGNATURE]
    assert statement is not None
    assert signature is not None
    return dataclasses.replace(message, headers=change(statement, signature))


def _said(**fields: Any) -> Message:
    """Signed as it is: only what the statement says is wrong."""
    return dataclasses.replace(BEAT, said=fields).message()


def _raw(change: Callable[[bytes], bytes]) -> Message:
    return dataclasses.replace(BEAT, raw=change).message()


def _by(signer: Ed25519PrivateKey, forgery: Forgery = BEAT, **said: Any) -> Message:
    return dataclasses.replace(forgery, signer=signer, said=said).message()


def _malleable(statement: bytes, signature: bytes) -> Headers:
    """The other signature that fits the same equation, if S is not checked."""
    s = int.from_bytes(signature[32:], "little") + ORDER
    return ((STATEMENT, statement), (SIGNATURE, signature[:32] + s.to_bytes(32, "little")))


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _pair(statement: bytes | None, signature: bytes | None) -> Headers:
    return ((STATEMENT, statement), (SIGNATURE, signature))


def _hmac(statement: bytes, _signature: bytes) -> Headers:
    """The public key taken for a secret, as verifiers were made to do that believed the record's own algorithm."""
    statement = statement.replace(b"Ed25519", b"HS256")
    signed = signing.signed_bytes(statement, BEAT.key(), codec.encode(BEAT.record))
    return _pair(statement, hmac.digest(public(WORKER), signed, "sha512"))


_VALUE = codec.encode(BEAT.record)
_OTHER = codec.encode(control.Succeeded(**WHO, epochs=3))
_STATEMENT_FIELDS = ("type", "kid", "iat", "exp", "aud", "nonce", "alg")

FORGERIES: dict[str, Callable[[], Message]] = {
    # headers
    "no signature at all": lambda: BEAT.message(headers=((CONTENT_TYPE, JSON),)),
    "no headers": lambda: BEAT.message(headers=()),
    "no statement": lambda: _headers(BEAT, lambda _, s: ((SIGNATURE, s),)),
    "no signature": lambda: _headers(BEAT, lambda t, _: ((STATEMENT, t),)),
    "two statements": lambda: _headers(BEAT, lambda t, s: ((STATEMENT, t), *_pair(t, s))),
    "two signatures": lambda: _headers(BEAT, lambda t, s: (*_pair(t, s), (SIGNATURE, s))),
    "the pair twice": lambda: _headers(BEAT, lambda t, s: _pair(t, s) * 2),
    "a statement that is absent": lambda: _headers(BEAT, lambda _, s: _pair(None, s)),
    "a signature that is absent": lambda: _headers(BEAT, lambda t, _: _pair(t, None)),
    "names in capitals": lambda: _headers(BEAT, lambda t, s: ((STATEMENT.upper(), t), (SIGNATURE.upper(), s))),
    # the signature
    "an empty signature": lambda: _headers(BEAT, lambda t, _: _pair(t, b"")),
    "a signature cut off": lambda: _headers(BEAT, lambda t, s: _pair(t, s[:-1])),
    "a signature with a byte more": lambda: _headers(BEAT, lambda t, s: _pair(t, s + b"\0")),
    "a signature of zeros": lambda: _headers(BEAT, lambda t, _: _pair(t, bytes(64))),
    "a signature in base64": lambda: _headers(BEAT, lambda t, s: _pair(t, base64.b64encode(s))),
    "a bit of R flipped": lambda: _headers(BEAT, lambda t, s: _pair(t, _flipped(s, 0))),
    "a bit of S flipped": lambda: _headers(BEAT, lambda t, s: _pair(t, _flipped(s, 40))),
    "S plus the group's order": lambda: _headers(BEAT, _malleable),
    "the signature of another record": lambda: _headers(BEAT, lambda t, _: _pair(t, dict(ROWS.message().headers)[SIGNATURE])),
    # the statement's form
    "an empty statement": lambda: _raw(lambda _: b""),
    "a statement that is no JSON": lambda: _raw(lambda _: b"{not json"),
    "a statement that is no UTF-8": lambda: _raw(lambda t: t.replace(b"Ed25519", b"\xff\xfe")),
    "a list": lambda: _raw(lambda t: b"[" + t + b"]"),
    "null": lambda: _raw(lambda _: b"null"),
    "two statements in one": lambda: _raw(lambda t: t + t),
    "a statement that is too long": lambda: _raw(lambda t: t + b" " * 1024),
    "a statement nested deeply": lambda: _raw(lambda t: t[:-1] + b',"x":' + b"[" * 400 + b"]" * 400 + b"}"),
    "a field that nobody knows": lambda: _said(roles=["worker"]),
    **{f"no {field}": (lambda field=field: _said(**{field: ...})) for field in _STATEMENT_FIELDS},  # type: ignore[misc]
    **{f"{field} is null": (lambda field=field: _said(**{field: None})) for field in _STATEMENT_FIELDS},  # type: ignore[misc]
    "a time as text": lambda: _said(iat=str(NOW_MS)),
    "a time with a fraction": lambda: _said(iat=NOW_MS + 0.5),
    "a time before time": lambda: _said(iat=-1),
    "a time beyond all": lambda: _said(exp=1 << 63),
    "a time that is true": lambda: _said(iat=True),
    "an expiry before the beginning": lambda: _said(exp=NOW_MS - 1, iat=NOW_MS),
    "the same said in another order": lambda: _headers(
        BEAT, lambda t, s: _pair(json.dumps(dict(sorted(json.loads(t).items()))).encode(), s)
    ),
    # the key
    "a key that nobody trusts": lambda: _by(STRANGER),
    "a stranger who says he is the worker": lambda: _by(STRANGER, kid=kid_of(public(WORKER))),
    "the submitter who says he is the worker": lambda: _by(SUBMITTER, kid=kid_of(public(WORKER))),
    "a kid in capitals": lambda: _said(kid=kid_of(public(WORKER)).upper()),
    "a kid with a line's end": lambda: _said(kid=kid_of(public(WORKER)) + "\n"),
    "a kid that is a path": lambda: _said(kid="../../../../keys"),
    "an empty kid": lambda: _said(kid=""),
    "a revoked key": lambda: _by(REVOKED),
    "a stolen key": lambda: _by(STOLEN),
    "a key whose time is over": lambda: _by(OVER),
    "a key whose time has not come": lambda: _by(EARLY),
    # the algorithm
    "the algorithm none": lambda: _said(alg="none"),
    "an empty algorithm": lambda: _said(alg=""),
    "another spelling of the algorithm": lambda: _said(alg="ed25519"),
    "RSA": lambda: _said(alg="RS256"),
    "the public key as the secret of an HMAC": lambda: _headers(BEAT, _hmac),
    # where it was to stand
    "a copy in another topic": lambda: dataclasses.replace(BEAT.message(), topic=f"{PREFIX}training_log"),
    "a copy in a topic of another team": lambda: dataclasses.replace(BEAT.message(), topic="other.run_control"),
    "a copy of another cluster's record": lambda: _said(aud=f"another_cluster/{PREFIX}run_control"),
    "no cluster": lambda: _said(aud=f"/{PREFIX}run_control"),
    "any audience": lambda: _said(aud="*/*"),
    "an audience with a line's end": lambda: _said(aud=f"{CLUSTER}/{PREFIX}run_control\n"),
    # when
    "expired before it was appended": lambda: _said(iat=NOW_MS - 60 * MINUTE_MS, exp=NOW_MS - 1),
    "dated ahead": lambda: _said(iat=NOW_MS + 6 * MINUTE_MS, exp=NOW_MS + 9 * MINUTE_MS),
    "an expiry in a hundred years": lambda: _said(exp=NOW_MS + 100 * 365 * 86_400_000),
    "appended long after": lambda: BEAT.message(time_ms=NOW_MS + 600 * MINUTE_MS),
    "appended long before": lambda: BEAT.message(time_ms=NOW_MS - 600 * MINUTE_MS),
    "a topic that believes its writers' clocks": lambda: BEAT.message(dated=True),
    # who may say what
    "a submitter who claims": lambda: _by(SUBMITTER, Forgery(control.Claimed(**WHO, task=control.TaskPlace("task", 0, 0)))),
    "a submitter whose heart beats": lambda: _by(SUBMITTER),
    "a submitter who succeeds": lambda: _by(SUBMITTER, Forgery(control.Succeeded(**WHO))),
    "a submitter who buries": lambda: _by(SUBMITTER, Forgery(control.Expired(run_id=RUN, n=1, after=3))),
    "a submitter who writes rows": lambda: _by(SUBMITTER, ROWS),
    "a submitter who says he is a worker's record": lambda: _by(SUBMITTER, INFO),
    "a worker who submits": lambda: _by(WORKER, Forgery(control.Submitted(run_id=RUN, task=control.TaskPlace("task", 0, 0)))),
    "a worker who cancels": lambda: _by(WORKER, CANCEL),
    "a worker who changes settings": lambda: _by(WORKER, Forgery(control.SettingsRequested(run_id=RUN, request_id="s"))),
    "a submitter who calls a claim a request": lambda: _by(SUBMITTER, Forgery(control.Heartbeat(**WHO)), type="cancel"),
    "a type of the newer kind around an old record": lambda: _said(type="newer_kind"),
    "a type that is none": lambda: _said(type="Heart Beat!"),
    "a tombstone that has a value": lambda: _said(type=signing.tombstone("heartbeat")),
    "a value taken away": lambda: BEAT.message(value=None),
    # key and value
    "another key": lambda: BEAT.message(key=b"another-run"),
    "no key": lambda: BEAT.message(key=None),
    "an empty key": lambda: BEAT.message(key=b""),
    "a bit of the value": lambda: BEAT.message(value=_flipped(_VALUE, 30)),
    "the value cut off": lambda: BEAT.message(value=_VALUE[:-1]),
    "an empty value": lambda: BEAT.message(value=b""),
    "a space behind the value": lambda: BEAT.message(value=_VALUE + b" "),
    "another record's value": lambda: BEAT.message(value=_OTHER),
    "a byte moved from the value to the key": lambda: BEAT.message(key=BEAT.key() + _VALUE[:1], value=_VALUE[1:]),
    "a byte moved from the key to the value": lambda: BEAT.message(key=BEAT.key()[:-1], value=BEAT.key()[-1:] + _VALUE),
}


def by_chance(chance: random.Random) -> tuple[Message, Message]:
    """A good message, and the same with something in it changed."""
    good = chance.choice(GOOD).message()
    while True:
        changed = good
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            changed = _changed(changed, chance)
        if _essence(changed) != _essence(good):
            return good, changed


def _essence(message: Message) -> Message:
    """Headers are found by their names: in another order they say the same."""
    return dataclasses.replace(message, headers=tuple(sorted(message.headers)))


def _changed(message: Message, chance: random.Random) -> Message:
    where = chance.choice(("key", "value", "headers", "headers", "headers", "topic", "time_ms"))
    if where == "topic":
        return dataclasses.replace(message, topic=chance.choice((f"{PREFIX}task", f"{PREFIX}run_control", f"{PREFIX}training_log", "task")))
    if where == "time_ms":
        return dataclasses.replace(message, time_ms=message.time_ms + chance.choice((-1, 1)) * chance.randrange(10**7, 10**11))
    if where != "headers":
        return dataclasses.replace(message, **{where: _mangled(getattr(message, where) or b"", chance)})
    headers = list(message.headers)
    i = chance.randrange(len(headers))
    if headers[i][0] == CONTENT_TYPE:  # which is nobody's business
        return message
    kind = chance.random()
    if kind < 0.1:
        del headers[i]
    elif kind < 0.2:
        headers.append(headers[i])
    else:
        headers[i] = (headers[i][0], _mangled(headers[i][1] or b"", chance))
    return dataclasses.replace(message, headers=tuple(headers))


def _mangled(data: bytes, chance: random.Random) -> bytes:
    at, length = chance.randrange(len(data) + 1), chance.randrange(1, 9)
    return chance.choice((
        lambda: data[:at] + chance.randbytes(length) + data[at + length :],
        lambda: data[:at] + chance.randbytes(length) + data[at:],
        lambda: data[:at] + data[at + length :],
        lambda: data[:at] + data[at : at + length] + data[at:],
        lambda: _flipped(data, at) if at < len(data) else data[:-1],
        lambda: data[:at],
        lambda: chance.randbytes(len(data)),
    ))()  # fmt: skip
