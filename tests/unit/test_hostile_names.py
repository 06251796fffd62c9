"""S9: ids, URLs and cursors from outside, by chance: none leads out of where it belongs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import random
import re
import sys
from collections import Counter
from typing import Any

import pytest

from kafka_jupyter.errors import ArtifactMissing, SettingsError, StoreError
from kafka_jupyter.protocol import ids
from kafka_jupyter.protocol.cursor import Cursor
from kafka_jupyter.protocol.parts import UrlRef
from kafka_jupyter.protocol.task import MODULE
from kafka_jupyter.server.details import path_within
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import Store, open_store

FUZZED = int(os.environ.get("KAFKA_JUPYTER_TEST_FUZZED", "10000"))  # `make soak`: 100,000
DATA = b"what nobody may read"
SHA256 = hashlib.sha256(DATA).hexdigest()
UPLOAD = "0123456789abcdef01234567"
PIECES = [
    "..", "../", "/../../", "..\\", "%2e%2e/", "..%2f", "．．/", "/", "//", "\\", ".", "~", "~root/",
    "\0", "\n", "\r\n", "\t", " ", ":", "?", "#", "*", "$HOME", "`id`", ";", "|", "&", "'", '"', "<b>", "\u202e", "\u0661", "é", "\ud800",
    "a" * 90, "A", "a", "0", "-", "_", "run-0123abcd4567", "helpers/", "x.py", ".py", "team1.", "c.0:1", "l.0:1+2", ",", "@0123abcd",
    "file://", "file:///", "http://127.0.0.1:1/", "s3://", "memory://", "local://", "zip://x::", "simplecache::", "file:/etc/passwd",
    "data/", "runs/", f"data/{SHA256}", f"runs/{UPLOAD}", SHA256, UPLOAD, "secret", "outside/",
]  # fmt: skip
PATHS = ["..", "../", "/../", "/../../", "/", "data/", "runs/", "outside/", f"data/{SHA256}", f"runs/{UPLOAD}", SHA256, UPLOAD]
SAFE_RUN = set("abcdefghijklmnopqrstuvwxyz0123456789-")


class Watch:
    """The files that this process opens or deletes while it is entered. A hook cannot be taken away again, so there is one for all."""

    seen: list[str] | None = None

    @classmethod
    def hook(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if cls.seen is not None and event in ("open", "os.remove", "os.rmdir", "os.rename", "os.mkdir", "shutil.rmtree", "socket.connect"):
            cls.seen.extend(str(os.fsdecode(found)) for found in arguments[:2] if isinstance(found, str | bytes | os.PathLike))
            if event == "socket.connect":
                cls.seen.append("/a socket")

    @classmethod
    @contextlib.contextmanager
    def over(cls) -> Any:
        cls.seen = []
        try:
            yield cls.seen
        finally:
            cls.seen = None


sys.addaudithook(Watch.hook)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    """A store with a secret beside it, that lies where an escape would look for it."""
    for folder in ("outside/data", "outside/runs", "data", "runs"):
        (tmp_path / folder).mkdir(parents=True)
    for name in (f"outside/data/{SHA256}", f"outside/runs/{UPLOAD}", f"data/{SHA256}", f"runs/{UPLOAD}", "secret"):
        (tmp_path / name).write_bytes(DATA)
    return tmp_path


@pytest.fixture
def store(place: pathlib.Path, bare_settings: Settings) -> Any:
    with contextlib.closing(open_store(bare_settings.replace(store=f"file://{place}/store"))) as opened:
        for folder in ("data", "runs"):
            (place / "store" / folder).mkdir(parents=True)  # or no path could lead out through them
        yield opened


def by_chance(chance: random.Random) -> str:
    return "".join(chance.choices(chance.choice([PIECES, PATHS]), k=chance.randint(1, 6)))


def taken(text: str, store: Store, root: pathlib.Path) -> list[str]:
    """The doors that let this text in; asserts that none of them led out."""
    doors = []
    if ids.RUN_ID.match(text):
        doors.append("run")
        assert set(text) <= SAFE_RUN
        assert len(text) <= 80
    if MODULE.match(text):
        doors.append("module")
        assert (root / text).resolve().is_relative_to(root.resolve())
        assert ".." not in text
    with contextlib.suppress(ValueError):
        assert re.fullmatch(r"[a-z0-9@.,:+]*", str(Cursor.parse(text)))
        doors.append("cursor")
    if found := path_within(str(root), text):
        doors.append("notebook")
        assert pathlib.Path(os.path.normpath(root / found)).is_relative_to(root)
    with contextlib.suppress(SettingsError):
        legal = Settings.from_env({}, root / "none.toml", topic_prefix=text, owner="x").topic_prefix
        doors.append("prefix")
        assert re.fullmatch(r"[A-Za-z0-9._-]{0,80}", legal)
    ref = UrlRef(text, len(DATA), SHA256)
    for act in (lambda: store.fetch(ref), lambda: store.rm(text), lambda: store.rm(ref)):
        with contextlib.suppress(StoreError):
            act()
            doors.append("store")
    return doors


def test_no_name_from_outside_leads_out(place: pathlib.Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(FUZZED)
    doors: Counter[str] = Counter()
    allowed = (str(place / "store"), str(place / "cache"), str(place / "none.toml"))
    with Watch.over() as opened:
        for _ in range(FUZZED):
            opened.clear()
            text = by_chance(chance)
            doors.update(taken(text, store, place) or ["none"])
            out = [path for path in opened if path.startswith("/") and not path.startswith(allowed)]
            assert out == [], f"{text!r} led to {out}"
    assert doors["store"] == 0  # nothing is in it
    assert sum(path.read_bytes() == DATA for path in place.rglob("*") if path.is_file()) == 5  # all are still there
    assert min(doors[door] for door in ("run", "module", "cursor", "notebook", "prefix")) > 0, doors  # else this test tries nothing
    with capsys.disabled():
        print(f"\nS9: {FUZZED} names by chance, 0 escapes; taken as names: {dict(doors)}")


@pytest.mark.parametrize("link", ["data", f"data/{SHA256}", "runs"])
def test_a_link_that_leads_out_of_the_store_is_neither_read_nor_written_through(place: pathlib.Path, store: Store, link: str) -> None:
    path = place / "store" / link
    if path.is_dir():
        path.rmdir()
    path.symlink_to(place / "outside" / link)
    before = sorted((place / "outside").rglob("*"))
    data = not link.startswith("runs")
    ref = UrlRef(f"file://{place}/store/" + (f"data/{SHA256}" if data else f"runs/{UPLOAD}"), len(DATA), SHA256)
    for act in (
        lambda: store.fetch(ref),
        lambda: store.rm(ref),
        lambda: store.rm(SHA256 if data else UPLOAD),
        lambda: store.put_data("x", len(DATA), lambda: [DATA], SHA256) if data else store.put("x", len(DATA), [DATA]),
    ):
        with pytest.raises(ArtifactMissing, match="leads out of"):
            act()
    assert sorted((place / "outside").rglob("*")) == before


def test_the_store_itself_may_be_a_link(place: pathlib.Path, bare_settings: Settings) -> None:
    (place / "share").mkdir()
    (place / "mounted").symlink_to(place / "share")
    with contextlib.closing(open_store(bare_settings.replace(store=f"file://{place}/mounted"))) as store:
        ref = store.put_data("x", len(DATA), lambda: [DATA], SHA256)
        assert store.read(ref) == DATA
