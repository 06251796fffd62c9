"""S3: what a child sees of what it should not, and what it cannot do. (docs/security.md says what is not stopped.)"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kafka_jupyter.protocol import frames
from kafka_jupyter.settings import Settings
from kafka_jupyter.training import cage
from kafka_jupyter.training.cage import Cage
from kafka_jupyter.worker.caging import ROOM, cage_of
from kafka_jupyter.worker.children import Children
from tests.support.watching import Watched

ENTRIES = {"train": "tests.support.prisoner:main", "equipment": "tests.support.prisoner:equipment"}
MIB = 1 << 20


def _found(confined: Cage, where: dict[str, Any], environ: dict[str, str] | None = None) -> dict[str, Any]:
    children = Children(environ=environ, **ENTRIES, cage=confined)
    try:
        watched = Watched(children)
        watched.child.send(frames.Job(json.dumps({"pids": [], "paths": [], "addresses": [], **where}).encode(), {}, ""))
        told = watched.frame(frames.Error).fields
        assert watched.exit().code == 0, watched.lines
        return dict(told)
    finally:
        children.close()


@contextlib.contextmanager
def _listener() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        yield server.getsockname()[:2]


def _accept(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            server.accept()[0].close()


PARENT = """
import json, os, sys
from kafka_jupyter.training.cage import Cage
from kafka_jupyter.worker.caging import guard_ourselves
from tests.unit.test_cage import _found
guard_ourselves()
where = json.loads(sys.stdin.read())
print(json.dumps(_found(Cage(hidden=where["hidden"]), where | {"pids": [os.getpid()]})))
"""


def test_a_child_finds_no_canary_wherever_it_looks(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The worker's process has it in its environment and memory; beside it lie keys and a profile."""
    canary = f"canary-{secrets.token_hex(8)}"
    hidden = [tmp_path / "keys", tmp_path / "aws", tmp_path / "netrc"]
    for folder in hidden[:2]:
        folder.mkdir()
        (folder / "credentials").write_text(canary)
    hidden[2].write_text(canary)
    where = {"canary": canary, "hidden": list(map(str, hidden)), "paths": list(map(str, hidden))}
    secret = {"AWS_SECRET_ACCESS_KEY": canary, "KAFKA_JUPYTER_KAFKA_PASSWORD": canary, "HF_TOKEN": canary, "DATABASE_URL": canary}
    done = subprocess.run(
        [sys.executable, "-c", PARENT], input=json.dumps(where), env={**os.environ, **secret}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "secrets" in told["held"], "this machine gives no namespaces: the test cannot show what holds where there are some"
    assert told["canaries"] == []
    with capsys.disabled():
        print(f"\nS3: {len(told['looked'])} places looked at from inside, 0 of them with a canary; held: {', '.join(told['held'])}")


def test_without_the_cage_the_same_look_finds_them(tmp_path: pathlib.Path) -> None:
    """Else the test above would prove nothing."""
    (tmp_path / "key").write_text("a canary")
    assert _found(Cage(), {"canary": "a canary", "paths": [str(tmp_path)]})["canaries"] == [str(tmp_path)]


def test_a_child_has_no_network_unless_it_may() -> None:
    with _listener() as address:
        where = {"canary": "none", "addresses": [address]}
        inside, outside = _found(Cage(), where), _found(Cage(network=True), where)
    assert ("network" in inside["held"], inside["network"]) == (True, [False])
    assert ("network" in outside["held"], outside["network"]) == (False, [True])


def test_a_child_is_itself_in_a_group_of_its_own_and_gets_no_privileges() -> None:
    told = _found(Cage(), {"canary": "none"})
    assert (told["group"], told["privileges"], told["user"]) == (True, True, os.getuid())
    assert "privileges" in told["held"]


def test_a_child_that_wants_more_memory_than_it_may_have_is_refused_it() -> None:
    told = _found(Cage(memory=1 << 30), {"canary": "none", "eats": 2 << 30})
    assert (told["memory"], told["limits"]["RLIMIT_DATA"]) == ("refused", 1 << 30)
    assert _found(Cage(memory=1 << 30), {"canary": "none", "eats": 64 * MIB})["memory"] == "eaten"


def test_files_and_core_dumps_are_bounded() -> None:
    limits = _found(Cage(files=100), {"canary": "none"})["limits"]
    assert (limits["RLIMIT_NOFILE"], limits["RLIMIT_CORE"]) == (100, 0)


def test_what_does_not_hold_is_not_said_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cage, "_call", lambda *_: False)
    monkeypatch.setattr(cage.resource, "setrlimit", lambda *_: (_ for _ in ()).throw(OSError("no")))
    monkeypatch.setenv(cage.HELD, "")
    assert cage.enter(Cage(memory=1)) == []
    assert cage.held() == []


def test_a_worker_hides_its_keys_and_what_opens_other_doors(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (".aws", ".ssh", "keys"):
        (tmp_path / name).mkdir()
    (tmp_path / "profiles.toml").write_text("")
    monkeypatch.setenv("KAFKA_JUPYTER_CONFIG", str(tmp_path / "profiles.toml"))
    confined = cage_of(Settings(key_dir=tmp_path / "keys"))
    assert {str(tmp_path / name) for name in (".aws", ".ssh", "keys", "profiles.toml")} <= set(confined.hidden)
    assert (confined.network, confined.memory > ROOM) == (False, True)
    assert cage_of(Settings(child_memory=5, allow_network=True)) == dataclasses.replace(
        cage_of(Settings()), memory=5, network=True, hidden=cage_of(Settings()).hidden
    )
