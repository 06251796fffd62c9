"""S1: whatever an enemy makes of signed records, nothing of it is read; what is sound is."""

from __future__ import annotations

import collections
import os
import pathlib
import random
import subprocess
import sys

import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.errors import BadSignature
from kafka_jupyter.protocol import codec
from tests.support import forging
from tests.support.forging import FORGERIES, GOOD

FUZZED = int(os.environ.get("KAFKA_JUPYTER_TEST_FUZZED", "10000"))  # `make soak`: 100,000


@pytest.fixture
def log(tmp_path: pathlib.Path) -> Log:
    return forging.log_of(forging.trust(tmp_path))


@pytest.fixture
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a value fails the test."""

    def read(*_args: object, **_more: object) -> None:
        raise AssertionError("a value was read")

    monkeypatch.setattr(codec, "decode", read)


@pytest.mark.parametrize("good", GOOD, ids=lambda forgery: type(forgery.record).__name__)
def test_what_is_signed_by_one_who_may_is_read(log: Log, good: forging.Forgery) -> None:
    read = log.read(good.message())
    assert read is not None
    assert read.record == good.record
    assert (read.origin.proved, read.origin.kid) == (True, good.statement()["kid"])


# The value has to be opened to see that it is not what it is signed as: the key may write the type that it names.
_SIGNED_AS_SOMETHING_ELSE = {"a submitter who calls a claim a request", "a type of the newer kind around an old record"}


@pytest.mark.parametrize("name", [name for name in FORGERIES if name not in _SIGNED_AS_SOMETHING_ELSE])
@pytest.mark.usefixtures("nothing_is_read")
def test_no_forgery_is_read(log: Log, name: str) -> None:
    message = FORGERIES[name]()
    with pytest.raises(BadSignature):
        log.origin(message)
    assert log.read(message) is None


@pytest.mark.parametrize("name", sorted(_SIGNED_AS_SOMETHING_ELSE))
def test_what_is_signed_as_something_else_changes_nothing(log: Log, name: str) -> None:
    message = FORGERIES[name]()
    assert log.read(message) is None
    assert log.junk.total() == 1


@pytest.mark.usefixtures("nothing_is_read")
def test_nothing_that_chance_makes_of_a_signed_record_is_read(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(FUZZED)
    why: collections.Counter[str] = collections.Counter()
    for _ in range(FUZZED):
        good, changed = forging.by_chance(chance)
        with pytest.raises(BadSignature) as refused:
            log.origin(changed)
        why[str(refused.value.fields["why"])[:28]] += 1
    assert log.origin(good).proved
    with capsys.disabled():
        print(f"\nS1: {len(FORGERIES)} kinds of forgery and {FUZZED} by chance, {why.total()} refused: {why.most_common(4)}")


def test_whoever_reads_forgeries_loads_no_keras_and_unpickles_nothing(tmp_path: pathlib.Path) -> None:
    program = """
import pathlib, sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event in ("pickle.find_class", "marshal.loads.code", "exec.user") else None)
from tests.support import forging
log = forging.log_of(forging.trust(pathlib.Path(sys.argv[1])))
for make in forging.FORGERIES.values():
    assert log.read(make()) is None
assert log.junk.total() == len(forging.FORGERIES)
loaded = {"keras", "tensorflow", "cloudpickle", "pickle"} & set(sys.modules)
print(sorted(loaded), seen)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded, _, seen = done.stdout.strip().partition("] ")
    assert "keras" not in loaded
    assert "tensorflow" not in loaded
    assert seen == "[]"
