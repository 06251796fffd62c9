"""Modules that are sent along with a person's code: which files they may be, and where a worker puts them."""

from __future__ import annotations

import os
import pathlib
import random

import pytest

from kafka_jupyter.errors import SettingsError
from kafka_jupyter.models.usercode import included
from kafka_jupyter.protocol.task import MODULE


def _files(folder: pathlib.Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}")


def test_files_and_folders_keep_the_names_by_which_they_are_imported(tmp_path: pathlib.Path) -> None:
    _files(tmp_path, "helpers/__init__.py", "helpers/deep/er.py", "helpers/data.csv", "alone.py", "other/not_asked.py")
    found = included(["helpers/", "alone.py"], tmp_path)
    assert sorted(found.files) == ["alone.py", "helpers/__init__.py", "helpers/deep/er.py"]
    assert found.modules == {"alone", "helpers"}
    assert found.files["alone.py"] == "# alone.py"


def test_what_is_no_module_or_not_there_is_named(tmp_path: pathlib.Path) -> None:
    _files(tmp_path, "my-script.py", "text/readme.md", "bad/2fast.py")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe")
    refused = {
        "missing.py": "No such file",
        "text": "no .py file",
        "my-script.py": "no module",
        "bad": "2fast.py is no module",
        "binary.py": "utf-8",
    }
    for path, why in refused.items():
        with pytest.raises(SettingsError, match=why):
            included([path], tmp_path)


def test_a_link_that_leads_out_of_its_folder_is_not_followed(tmp_path: pathlib.Path) -> None:
    _files(tmp_path, "helpers/__init__.py", "secret.py")
    os.symlink(tmp_path / "secret.py", tmp_path / "helpers" / "innocent.py")
    with pytest.raises(SettingsError, match="a link that leads elsewhere"):
        included(["helpers"], tmp_path)


HOSTILE = [
    "../x.py", "/etc/x.py", "a/../b.py", "a//b.py", "x.pyc", "x", "", ".py", "a/.py", "a\\b.py", "a\0.py", "x.py\n", "é.py", "a b.py",
    "C:x.py", "~/x.py", "a/" * 20 + "x.py", "x" * 200 + ".py", "__init__.py/x", "-x.py",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE)
def test_no_worker_takes_such_a_path(path: str) -> None:
    assert not MODULE.match(path)


def test_whatever_path_is_taken_stays_below_its_folder() -> None:
    chance, taken = random.Random(6), 0
    for _ in range(20_000):
        path = "".join(chance.choice(["a", "b_1", "/", ".", "..", ".py", "\0", "~", "\\", "é", " "]) for _ in range(chance.randrange(1, 8)))
        if MODULE.match(path):
            taken += 1
            assert os.path.normpath(f"/root/{path}") == f"/root/{path}"
    assert taken > 50
