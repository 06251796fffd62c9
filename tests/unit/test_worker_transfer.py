"""What a child left on its way to the store."""

from __future__ import annotations

import contextlib
import pathlib

import pytest

from kafka_jupyter import errors
from kafka_jupyter.settings import Settings
from kafka_jupyter.store import open_store
from kafka_jupyter.worker.transfer import RESULT_INLINE, Kept, keep
from tests.support.refusing import Refusing, refusing_url


def test_what_cannot_be_read_back_for_a_while_is_not_sent_again(
    bare_settings: Settings, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {}
    for name in ("state", "outcome"):
        files[name] = str(tmp_path / name)
        pathlib.Path(files[name]).write_bytes(name.encode() * RESULT_INLINE)
    kept = Kept()
    with contextlib.closing(open_store(bare_settings.replace(store=refusing_url(tmp_path / "store")))) as store:
        monkeypatch.setattr(Refusing, "reading", True)
        for _ in range(3):
            with pytest.raises(errors.StoreUnavailable, match="503"):
                keep(store, "run", "run/1", files, {}, kept)
        (sent,) = store.ls()
        monkeypatch.setattr(Refusing, "reading", False)
        results = keep(store, "run", "run/1", files, {}, kept)
        assert [store.read(results.parts[name]) for name in files] == [name.encode() * RESULT_INLINE for name in files]
        assert len(store.ls()) == len(files)
        assert sent.id in {stored.id for stored in store.ls()}


def test_what_is_not_there_when_it_is_read_back_is_sent_again(
    bare_settings: Settings, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state"
    file.write_bytes(b"x" * RESULT_INLINE * 2)
    kept = Kept()
    with contextlib.closing(open_store(bare_settings.replace(store=refusing_url(tmp_path / "store")))) as store:
        monkeypatch.setattr(Refusing, "reading", True)
        with pytest.raises(errors.StoreUnavailable):
            keep(store, "run", "run/1", {"state": str(file)}, {}, kept)
        monkeypatch.setattr(Refusing, "reading", False)
        store.rm(store.ls()[0].id)
        results = keep(store, "run", "run/1", {"state": str(file)}, {}, kept)
        assert store.read(results.parts["state"]) == file.read_bytes()
