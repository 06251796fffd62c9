"""Outside bytes are hostile: they become a record or one of two named errors, and a record survives all that is done with it."""

from __future__ import annotations

import json
import random
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_jupyter import errors
from kafka_jupyter.protocol import codec, control
from kafka_jupyter.protocol.rows import EpochEnded, RowBatch
from kafka_jupyter.protocol.task import Task
from kafka_jupyter.protocol.workers import WorkerInfo
from kafka_jupyter.runs.snapshots import Snapshot
from kafka_jupyter.runs.snapshots import decode as decode_snapshot
from kafka_jupyter.runs.state import Placed, apply
from tests.support.records import RUN, of_attempt, submitted

KINDS: tuple[type[msgspec.Struct], ...] = (*control.CONTROL_RECORDS, RowBatch, Task, WorkerInfo)
HOSTILE = 10_000

FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    Any: JSON, int: st.integers(), float: FINITE, str: st.text(max_size=20), bool: st.booleans(), bytes: st.binary(max_size=20),
    type(None): st.none(),
}  # fmt: skip


def _values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that records use."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return st.one_of([_values(argument) for argument in arguments])
    if origin is list:
        return st.lists(_values(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(_values(arguments[0]), _values(arguments[1]), max_size=2)
    return PLAIN[kind] if kind in PLAIN else _records(kind)


def _records(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    fixed = {"run_id": st.just(RUN), "worker_id": st.just("cpu-1"), "v": st.just(1)}
    every = msgspec.structs.fields(kind)
    return st.builds(kind, **{field.name: fixed[field.name] if field.name in fixed else _values(field.type) for field in every})


def _decoded(value: bytes | None, **where: Any) -> Any:
    return codec.decode(value, topic="run_control", partition=2, offset=41, **where)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_record_of_every_type_comes_back_as_it_was(kind: type[msgspec.Struct]) -> None:
    @settings(max_examples=25)
    @given(_records(kind))
    def check(record: Any) -> None:
        value = codec.encode(record)
        assert json.loads(value)["type"] == kind.__struct_config__.tag
        assert json.loads(value)["v"] == 1, "the version is always written"
        assert _decoded(value) == record

    check()


def _samples() -> list[bytes]:
    """A full record of every type: all fields set."""
    strategy_seed = random.Random(3)
    full: list[bytes] = []
    for kind in KINDS:
        fields = {f.name: _example(f.type, f.name, strategy_seed) for f in msgspec.structs.fields(kind)}
        full.append(codec.encode(typing.cast(Any, kind(**fields))))
    return full


def _example(kind: Any, name: str, chance: random.Random) -> Any:
    fixed = {"run_id": RUN, "worker_id": "cpu-1", "v": 1}
    if name in fixed:
        return fixed[name]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _example(arguments[0], "", chance)
    if origin is list:
        return [_example(arguments[0], "", chance)]
    if origin is dict:
        return {"key": _example(arguments[1], "", chance)}
    plain = {Any: [1, {"a": None}], int: chance.randrange(100), float: 0.5, str: "tëxt", bool: True, bytes: b"\0\xff"}
    if kind in plain:
        return plain[kind]
    return kind(**{f.name: _example(f.type, f.name, chance) for f in msgspec.structs.fields(kind)})


def _mutated(value: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    data = bytearray(value)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(data) + 1)
        what = chance.randrange(6)
        if what == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif what == 1:
            del data[at : at + chance.randrange(1, 20)]
        elif what == 2:
            data[at:at] = chance.choice((b"9" * 400, b"[" * 2000, b"null", b"-1", b"1e999", b'"', b"\\", b"\xed\xa0\x80", b"{}", b"NaN"))
        elif what == 3:
            other = chance.choice(others)
            data[at:] = other[chance.randrange(len(other)) :]
        elif what == 4:
            data = data.replace(b'"key"', chance.choice((b'"v"', b'"type"', b"1")))
        else:
            digits = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
            if digits:
                i = chance.choice(digits)
                data[i : i + 1] = chance.choice((b"-1", b"1e3", b"0.5", b'"1"', b"true", b"null", b"18446744073709551616", b"9" * 300))
    return bytes(data)


def _hostile() -> Iterator[bytes]:
    chance = random.Random(20_240_611)
    samples = _samples()
    for i in range(HOSTILE):
        if i % 5 == 0:
            yield chance.randbytes(chance.randrange(200))
        else:
            yield _mutated(chance.choice(samples), chance, samples)


def test_ten_thousand_hostile_records_become_records_or_named_errors() -> None:
    outcomes = {"record": 0, "BadRecord": 0, "NewerRecord": 0}
    for value in _hostile():
        try:
            record = _decoded(value)
        except (errors.BadRecord, errors.NewerRecord) as error:
            outcomes[type(error).__name__] += "run_control[2]@41" in str(error)
            continue
        outcomes["record"] += 1
        assert _decoded(codec.encode(record)) == record
        if isinstance(record, control.Record):
            state = apply(apply(None, Placed(record, 0, 0)), Placed(record, 1, 1))
            key = f"{state.run_id}/{'end' if state.terminal else 'live'}".encode()
            assert decode_snapshot(msgspec.json.encode(Snapshot(0, state)), key) == Snapshot(0, state)
    assert sum(outcomes.values()) == HOSTILE, "each error names the place"
    assert min(outcomes["record"], outcomes["BadRecord"]) > HOSTILE / 10, outcomes
    assert outcomes["NewerRecord"] > 0, outcomes


HEARTBEAT = {"type": "heartbeat", "run_id": RUN, "n": 1, "worker": "w", "nonce": "x", "v": 1}
NOTHING = object()


def _changed(**fields: Any) -> bytes:
    return json.dumps({name: value for name, value in {**HEARTBEAT, **fields}.items() if value is not NOTHING}).encode()


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"null", b"[]", b"{}", b"nonsense", b"\xff\xfe", b'"heartbeat"', b"1", b"[" * 100_000, b'{"a":' * 100_000,
        _changed(type=NOTHING), _changed(type=None), _changed(type=7), _changed(run_id=NOTHING), _changed(run_id=""), _changed(run_id=4),
        _changed(run_id="Big"), _changed(run_id="../up"), _changed(run_id="a" * 81), _changed(run_id="a\n"), _changed(worker_id="/"),
        _changed(n="1"), _changed(n=1.5), _changed(n=None), _changed(nonce=NOTHING), _changed(worker=["w"]),
        _changed(v=0), _changed(v=-1), _changed(v="1"), _changed(v=None), _changed(v=1.5), _changed(type="unknown", run_id=NOTHING),
        _changed(n="\udc80").replace(b"\\udc80", b"\xff"), b"\xef\xbb\xbf" + _changed(), _changed() + b"{}", _changed()[:-1],
        _changed(type="settings", request_id="r", settings=[]), _changed(type="failed", retryable="no", reason="x"),
    ],
    ids=lambda value: repr(value)[:60],
)  # fmt: skip
def test_what_is_no_record_is_a_bad_record(value: bytes | None) -> None:
    with pytest.raises(errors.BadRecord) as caught:
        _decoded(value)
    assert caught.value.fields["value"] == value


@pytest.mark.parametrize(
    "fields", [{"v": 2}, {"v": 2**70}, {"type": "merged"}, {"type": "merged", "v": 9}, {"v": 2, "n": "other"}], ids=str
)
def test_a_newer_record_says_whose_it_is(fields: dict[str, Any]) -> None:
    with pytest.raises(errors.NewerRecord, match="Upgrade") as caught:
        _decoded(_changed(**fields))
    assert caught.value.fields["run_id"] == RUN


def test_unknown_fields_are_skipped() -> None:
    assert _decoded(_changed(colour={"deep": [1, {"er": None}]})) == _decoded(_changed())


def test_a_key_must_be_the_id_of_its_record() -> None:
    assert _decoded(_changed(), key=RUN.encode()).run_id == RUN
    worker = codec.encode(WorkerInfo("cpu-1", "cpu"))
    assert _decoded(worker, key=b"cpu-1").worker_id == "cpu-1"
    for key in (b"", b"other", RUN.encode() + b"x", b"\xff"):
        with pytest.raises(errors.BadRecord, match="key"):
            _decoded(_changed(), key=key)


def test_a_topic_holds_only_its_own_types() -> None:
    with pytest.raises(errors.BadRecord, match="no place here"):
        _decoded(codec.encode(WorkerInfo("cpu-1", "cpu")), types=codec.CONTROL_TYPES)
    assert _decoded(_changed(), types=codec.CONTROL_TYPES).n == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_become_null(number: float) -> None:
    batch = RowBatch(RUN, 1, "w", "x", [EpochEnded(0, 0, metrics={"loss": number, "accuracy": 0.5})])
    assert _decoded(codec.encode(batch)).rows[0].metrics == {"loss": None, "accuracy": 0.5}
    end = of_attempt(control.Succeeded, metrics={"loss": number})
    assert _decoded(codec.encode(end)).metrics == {"loss": None}


@pytest.mark.parametrize("kind", ["settings", "applied", "failed"])
@pytest.mark.parametrize("nested", ["[" * 62 + "]" * 62, "[" * 70 + "]" * 70, '{"a":' * 900 + "1" + "}" * 900], ids=["62", "70", "900"])
def test_values_of_any_shape_are_nested_only_so_deep(kind: str, nested: str) -> None:
    where = "fields" if kind == "failed" else "settings"
    fields = {"type": kind, "request_id": "r", "retryable": False, "reason": "exception", where: {"a": "HERE", "text": '[{"\\' * 99}}
    value = _changed(**fields).replace(b'"HERE"', nested.encode())
    if nested.startswith(("[" * 63, "{")):
        with pytest.raises(errors.BadRecord, match="nested deeper"):
            _decoded(value)
    else:
        assert _decoded(value).run_id == RUN


def test_a_record_of_the_first_version_can_be_read_for_ever() -> None:
    """Wire format: these bytes stand in people's logs."""
    assert (
        _decoded(b'{"type":"submitted","task":{"topic":"task","partition":0,"offset":5},"run_id":"digits-3f2a9c01b7d4","v":1}')
        == submitted()
    )
    assert _decoded(
        b'{"type":"failed","n":2,"worker":"cpu-1","nonce":"x","retryable":true,"reason":"memory","memory":7,"run_id":"digits-3f2a9c01b7d4"}'
    ) == of_attempt(control.Failed, 2, reason="memory", memory=7)
    assert _decoded(
        b'{"type":"rows","run_id":"a","n":1,"worker":"w","nonce":"x","rows":[{"type":"epoch","seq":3,"epoch":0,"metrics":{"loss":null}}],"v":1}'
    ) == RowBatch("a", 1, "w", "x", [EpochEnded(3, 0, metrics={"loss": None})])
