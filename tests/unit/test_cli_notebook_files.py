"""Notebook files are replaced whole or not at all, what is hostile is refused with the way out, and trust stays as it was."""

from __future__ import annotations

import json
import os
import pathlib
import stat

import nbformat
import pytest
from nbformat.sign import NotebookNotary

from kafka_jupyter.cli import notebook_files
from kafka_jupyter.cli.notebook_files import NotebookFile, Trust
from kafka_jupyter.errors import NotebookError
from tests.support.cli import cli
from tests.support.saved import cell, display, final, live, notebook

OLD, NEW = '{"a": "é"}', '{"a": "ü"}'


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    made = tmp_path / "digits.ipynb"
    made.write_text(OLD, "utf-8")
    return made


def folder_of(path: pathlib.Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_a_file_is_replaced_and_keeps_its_mode_and_gets_a_new_time(path: pathlib.Path) -> None:
    path.chmod(0o640)
    os.utime(path, (1, 1))
    file = NotebookFile.read(str(path))
    assert file.text == OLD
    file.replace(NEW)
    assert path.read_text("utf-8") == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_mtime > 1
    assert folder_of(path) == ["digits.ipynb"]


def test_a_file_of_another_person_stays_theirs_where_that_is_allowed(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def refused(_path: str, user: int, group: int) -> None:
        asked.append((user, group))
        raise PermissionError

    monkeypatch.setattr(notebook_files.os, "chown", refused)
    owner = path.stat()
    NotebookFile.read(str(path)).replace(NEW)
    assert asked == [(-1, owner.st_gid), (owner.st_uid, -1)]
    assert path.read_text("utf-8") == NEW


def test_a_symlink_stays_and_its_target_is_written(path: pathlib.Path) -> None:
    link = path.parent / "links" / "link.ipynb"
    link.parent.mkdir()
    link.symlink_to("../digits.ipynb")
    NotebookFile.read(str(link)).replace(NEW)
    assert link.is_symlink()
    assert path.read_text("utf-8") == NEW
    assert [each.name for each in link.parent.iterdir()] == ["link.ipynb"]


def test_a_file_that_has_changed_meanwhile_is_left_as_it_is(path: pathlib.Path) -> None:
    file = NotebookFile.read(str(path))
    path.write_text("{'saved': 'by JupyterLab'}")
    with pytest.raises(NotebookError, match=r"somebody has changed it meanwhile\. Try again"):
        file.replace(NEW)
    assert path.read_text() == "{'saved': 'by JupyterLab'}"
    assert folder_of(path) == ["digits.ipynb"]


def test_a_change_that_leaves_size_and_time_is_seen(path: pathlib.Path) -> None:
    file, times = NotebookFile.read(str(path)), path.stat()
    path.write_text(NEW, "utf-8")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(NotebookError, match="changed"):
        file.replace(OLD)


def test_a_file_that_is_gone_meanwhile_is_not_made_again(path: pathlib.Path) -> None:
    file = NotebookFile.read(str(path))
    path.unlink()
    with pytest.raises(NotebookError, match="cannot be written"):
        file.replace(NEW)
    assert folder_of(path) == []


def test_a_read_only_file_is_left_as_it_is(path: pathlib.Path) -> None:
    path.chmod(0o444)
    with pytest.raises(NotebookError, match=r"digits.ipynb was left as it is: it is read-only. `chmod u\+w` makes it writable"):
        NotebookFile.read(str(path)).replace(NEW)
    assert path.read_text("utf-8") == OLD
    assert folder_of(path) == ["digits.ipynb"]


def test_nothing_is_left_behind_where_the_disk_is_full(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(notebook_files.os, "fsync", full)
    with pytest.raises(NotebookError, match=r"it cannot be written \(No space left on device\)"):
        NotebookFile.read(str(path)).replace(NEW)
    assert path.read_text("utf-8") == OLD
    assert folder_of(path) == ["digits.ipynb"]


def refused(path: pathlib.Path) -> str:
    with pytest.raises(NotebookError) as caught:
        _ = NotebookFile.read(str(path)).text
    return str(caught.value)


def test_what_is_no_file_that_can_be_read_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    assert "missing.ipynb was left as it is: it cannot be read (No such file" in refused(tmp_path / "missing.ipynb")
    assert "it is no file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "it is no file" in refused(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert "loop was left as it is: it cannot be read" in refused(tmp_path / "loop")
    (tmp_path / "latin").write_bytes(b'{"a": "\xe9"}')
    assert "it is not UTF-8, as notebooks are (byte 7)" in refused(tmp_path / "latin")
    (tmp_path / "evil\x1b[2J").write_bytes(b"\xff")
    assert "\x1b" not in refused(tmp_path / "evil\x1b[2J")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: pathlib.Path) -> None:
    with (tmp_path / "huge.ipynb").open("wb") as file:
        file.truncate(600 << 20)  # a hole: it takes no room
    assert "it has 600.0 MiB, more than 512.0 MiB. Clear its largest outputs" in refused(tmp_path / "huge.ipynb")


# --- trust


@pytest.fixture
def notary(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Jupyter's data folder of this test."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    return tmp_path / "jupyter"


def sign(text: str, folder: pathlib.Path) -> None:
    """As `jupyter trust`, or JupyterLab when it saves what was run."""
    folder.mkdir(exist_ok=True)
    made = NotebookNotary(data_dir=str(folder))
    made.sign(nbformat.reads(text, as_version=4))
    made.store.close()


def text_of(*outputs: dict[str, object]) -> str:
    return json.dumps(notebook(cell("one", *outputs)))


pytestmark = pytest.mark.filterwarnings("ignore:The default datetime adapter:DeprecationWarning")  # nbformat on Python 3.12


def test_what_was_signed_is_trusted_and_what_was_altered_is_not(notary: pathlib.Path) -> None:
    sign(text_of(live()), notary)
    assert Trust().has(text_of(live()))
    assert not Trust().has(text_of(live(), display({"text/html": "<script>"})))
    assert not Trust().has("[]")
    assert not Trust().has("no JSON")
    assert Trust().give(text_of(final()))
    assert Trust().has(text_of(final()))


def test_nothing_is_made_where_nothing_was_ever_trusted(notary: pathlib.Path) -> None:
    notary.mkdir()
    assert not Trust().has(text_of(live()))
    assert list(notary.iterdir()) == []


def test_a_database_that_cannot_be_used_costs_the_trust_and_not_the_notebook(notary: pathlib.Path) -> None:
    notary.mkdir()
    (notary / "nbsignatures.db").mkdir()
    (notary / "nbsignatures.db.bak").write_text("in the way")
    assert not Trust().has(text_of(live()))
    assert not Trust().give("no notebook")


# --- the command, where it needs no Kafka


def test_a_notebook_in_which_all_is_final_needs_no_kafka_and_is_not_touched(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "digits.ipynb"
    path.write_text(text_of(final()))
    before = path.stat()
    said = cli("notebook", "finish", str(path), "--bootstrap-servers", "127.0.0.1:9")
    assert (said.code, said.error) == (0, None)
    assert said.out == f"{path}: cell 1, output 1: already final: digits-3f2a9c01b7d4\n"
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_notebook_without_runs_says_so(tmp_path: pathlib.Path) -> None:
    (tmp_path / "plain.ipynb").write_text(text_of())
    said = cli("notebook", "finish", str(tmp_path / "plain.ipynb"))
    assert (said.code, said.out) == (0, f"{tmp_path / 'plain.ipynb'}: no output of a run\n")


def test_a_file_that_cannot_be_used_has_exit_code_1_and_hinders_no_other(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bad.ipynb").write_text("{")
    (tmp_path / "good.ipynb").write_text(text_of(final()))
    said = cli("notebook", "finish", str(tmp_path / "bad.ipynb"), str(tmp_path / "good.ipynb"), "--json")
    assert said.code == 1
    bad, good = json.loads(said.out[said.out.index("[") : said.out.rindex("]") + 1])
    assert "bad.ipynb was left as it is: it is no JSON that can be read" in bad["error"]
    assert (good["error"], good["outputs"][0]["did"]) == ("", "already final")


def test_an_output_that_cannot_be_read_has_exit_code_6(tmp_path: pathlib.Path) -> None:
    broken = live()
    broken["data"]["application/vnd.kafka-jupyter.run+json"]["runs"] = [{"run_id": "\x1b[2J<b>"}]
    (tmp_path / "odd.ipynb").write_text(text_of(broken))
    said = cli("notebook", "finish", str(tmp_path / "odd.ipynb"))
    assert said.code == 6
    assert "cell 1, output 1: not readable: its bundle names something that is no run id" in said.out
    assert "\x1b" not in said.out
