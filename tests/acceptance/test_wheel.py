"""A clean clone becomes a wheel that works: Python, both front ends and the server's configuration, each once."""

from __future__ import annotations

import collections
import filecmp
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

import kafka_jupyter
from tests.support.workers import ROOT

NAME = f"kafka_jupyter-{kafka_jupyter.__version__}"
LAB = f"{NAME}.data/data/share/jupyter/labextensions/kafka-jupyter/"
WANTED = [
    "kafka_jupyter/notebook/static/widget.js",
    "kafka_jupyter/notebook/static/widget.css",
    "kafka_jupyter/models/allowlist.json",
    "kafka_jupyter/brokers/local_jars.json",
    f"{LAB}package.json",
    f"{LAB}install.json",
    f"{LAB}static/style.js",
    f"{NAME}.data/data/etc/jupyter/jupyter_server_config.d/kafka_jupyter.json",
    f"{NAME}.dist-info/licenses/LICENSE",
    f"{NAME}.dist-info/entry_points.txt",
]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Built from a clone, so that nothing counts that was not committed."""
    clone = tmp_path_factory.mktemp("clone") / "kafka_jupyter"
    run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], clone.parent)
    lend_node_modules(clone)
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", str(clone)], clone)
    (built,) = (clone / "dist").iterdir()
    assert built.name == f"{NAME}-py3-none-any.whl"
    return built


def lend_node_modules(clone: pathlib.Path) -> None:
    """A copy of ours where they are those of the clone's lock file: npm then has nothing to fetch."""
    ours, its = ROOT / "labextension", clone / "labextension"
    if (ours / "node_modules").exists() and filecmp.cmp(ours / "package-lock.json", its / "package-lock.json", shallow=False):
        shutil.copytree(ours / "node_modules", its / "node_modules", symlinks=True)


def run(command: list[str], cwd: pathlib.Path, **more: str) -> str:
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "npm_config_prefer_offline": "true", "npm_config_audit": "false", "npm_config_fund": "false"}
    done = subprocess.run(command, cwd=cwd, env=env | more, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_it_holds_everything_once_and_nothing_else(wheel: pathlib.Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in WANTED:
        assert names.count(wanted) == 1, wanted
    twice = [name for name, count in collections.Counter(pathlib.PurePath(name).name for name in names).items() if count > 1]
    assert not {"widget.js", "widget.css", "style.js", "package.json", "kafka_jupyter.json"} & set(twice)
    tracked = run(["git", "ls-tree", "-r", "--name-only", "HEAD", "kafka_jupyter"], ROOT).split()
    assert {name for name in tracked if name.endswith(".py")} <= set(names)
    assert not [name for name in names if not name.startswith(("kafka_jupyter/", f"{NAME}."))]
    assert not [name for name in names if name.startswith("kafka_jupyter/labextension/") or "node_modules" in name]


def test_the_lab_plugin_names_files_that_are_there(wheel: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        package = json.loads(archive.read(f"{LAB}package.json"))
        assert f"{LAB}{package['jupyterlab']['_build']['load']}" in archive.namelist()
        installed = json.loads(archive.read(f"{LAB}install.json"))
        assert installed["packageName"] == "kafka_jupyter"
        config = json.loads(archive.read(f"{NAME}.data/data/etc/jupyter/jupyter_server_config.d/kafka_jupyter.json"))
        assert config == {"ServerApp": {"jpserver_extensions": {"kafka_jupyter": True}}}


def test_it_works_where_it_is_installed(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    site = tmp_path / "site"
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)], tmp_path)
    code = "import kafka_jupyter; from kafka_jupyter.notebook import widget; print(kafka_jupyter.__file__); widget.RunWidget()"
    assert run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(site)).startswith(str(site))
    said = run([sys.executable, "-m", "kafka_jupyter.cli", "version"], tmp_path, PYTHONPATH=str(site))
    assert said.strip() == kafka_jupyter.__version__


def test_installing_it_enables_the_server_extension_and_the_lab_plugin(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """In a virtual environment of its own, which borrows the packages of ours but none of their Jupyter configuration."""
    run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    borrowed = {"PYTHONPATH": sysconfig.get_path("purelib"), "HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}

    def listed(module: str) -> str:
        done = subprocess.run([python, "-m", module, "list"], env=os.environ | borrowed, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)

    assert "kafka_jupyter" not in listed("jupyter_server.extension.serverextension")
    assert "kafka-jupyter" not in listed("jupyterlab.labextensions")
    run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], tmp_path)
    assert re.search(r"^ *kafka_jupyter +enabled$", listed("jupyter_server.extension.serverextension"), re.MULTILINE)
    assert f"kafka_jupyter {kafka_jupyter.__version__} OK" in listed("jupyter_server.extension.serverextension")
    assert f"kafka-jupyter v{kafka_jupyter.__version__} enabled OK (python, kafka_jupyter)" in " ".join(
        listed("jupyterlab.labextensions").split()
    )
