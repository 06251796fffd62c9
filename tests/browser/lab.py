"""A real JupyterLab with token and base URL in folders of its own, and a real Chromium to look at it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import nbformat
from nbformat.sign import NotebookNotary
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

from kafka_jupyter.brokers.local_nodes import free_port
from tests.support.waiting import wait_until

ROOT = pathlib.Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests"
BASE = "/base/"
NEWS = "@jupyterlab/apputils-extension:announcements"  # asks in a pop-up whether to fetch news
PLUGIN = "kafka-jupyter"
WITHOUT_SERVER_EXTENSION = '--ServerApp.jpserver_extensions={"kafka_jupyter":False,"jupyterlab":True}'

# Where an application opens a notebook, and its own options.
APPLICATIONS = {
    "jupyterlab": ("lab/tree", ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url="]),
    "notebook": ("notebooks", ["--JupyterNotebookApp.expose_app_in_browser=True"]),
}

# The widget of the notebook in front; JupyterLab hands its application over because of expose_app_in_browser.
_KERNEL_READY = """() => {
  const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""


class Lab:
    """A running server. `root` is its notebook folder, `tree` the path below which it opens notebooks."""

    process: subprocess.Popen[bytes]

    def __init__(self, root: pathlib.Path, port: int, command: Sequence[str], env: Mapping[str, str], tree: str) -> None:
        self.root = root
        self.log = _log(root)
        self.url = f"http://127.0.0.1:{port}{BASE}"
        self._command, self._env, self._tree = [*command, f"--port={port}"], env, tree

    def start(self) -> None:
        """Returns when it answers; after `kill` at the same address."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._env, cwd=self.root)
        wait_until(self.answers, f"Jupyter does not answer, see {self.log}", within=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def api(self, path: str, method: str = "GET", body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Authorization": f"token {TOKEN}"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"Jupyter ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}")
        try:
            return bool(self.api("api/status"))
        except (urllib.error.URLError, ConnectionError):
            return False

    def write(self, name: str, *cells: str, outputs: Mapping[int, Sequence[Any]] | None = None) -> pathlib.Path:
        """A notebook with these code cells; `outputs`: cell → bundles it already holds."""
        notebook = nbformat.v4.new_notebook()
        # without a kernelspec JupyterLab asks in a dialog
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        for i, bundles in (outputs or {}).items():
            notebook.cells[i].outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in bundles]
        nbformat.write(notebook, self.root / name)
        return self.root / name

    def saved(self, name: str) -> list[list[dict[str, Any]]]:
        """The data of every output of every cell, as the file holds them."""
        notebook = wait_until(lambda: self._read(name), f"{name} is never whole")
        return [[output.get("data", {}) for output in cell.get("outputs", [])] for cell in notebook.cells]

    def _read(self, name: str) -> Any:
        """None while the server is writing it."""
        try:
            return nbformat.read(self.root / name, as_version=4)
        except nbformat.reader.NotJSONError:
            return None

    def trust(self, name: str) -> None:
        """Signs the notebook, as the person's own server does when its cells have been run."""
        notary = NotebookNotary(data_dir=str(self.root.parent / f"{self.root.name}-jupyter/data"))
        notary.sign(nbformat.read(self.root / name, as_version=4))
        notary.store.close()

    def start_kernel(self, name: str, kernel: str = "") -> str:
        """The id of the kernel that the notebook will find when it is opened: a new one, or `kernel`, which notebooks then share."""
        asked = {"id": kernel} if kernel else {"name": "python3"}
        session = self.api("api/sessions", "POST", {"path": name, "name": name, "type": "notebook", "kernel": asked})
        return str(session["kernel"]["id"])

    def open(self, context: BrowserContext, name: str) -> Notebook:
        page = context.new_page()
        book = Notebook(page)
        page.goto(f"{self.url}{self._tree}/{name}?reset&token={TOKEN}")
        book.wait_open()
        return book


class Notebook:
    """A notebook in front of a page. `errors`: what the page's scripts have raised, and where."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(f"{error}\n{error.stack}"))
        page.set_default_timeout(30_000)

    def wait_open(self) -> None:
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell")

    def wait_kernel(self) -> None:
        """The indicator says idle before the connection exists, and a key pressed then is lost: ask the connection."""
        self.page.wait_for_function(_KERNEL_READY, timeout=60_000)

    def restart_kernel(self) -> None:
        """As the menu does it, from the page. Of a restart over REST the page hears only by the new kernel's first message,
        which is lost if the server has not subscribed to it by then: the cell would stay busy for ever."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")

    def prompt(self, cell: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(cell).locator(".jp-InputPrompt")

    def output(self, cell: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(cell).locator(".jp-Cell-outputArea")

    def run(self, cell: int) -> None:
        self.page.locator(".jp-Notebook .jp-CodeCell .cm-content").nth(cell).click()
        self.page.keyboard.press("Control+Enter")

    def run_all(self) -> None:
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def save(self) -> None:
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.save()")

    def reload(self) -> None:
        self.page.reload()
        self.wait_open()

    def dark(self) -> None:
        set_theme(self.page, "Dark")

    @property
    def hub(self) -> dict[str, Any]:
        """The page's stream: connection and figures."""
        found: dict[str, Any] = self.page.evaluate(
            "() => { const hub = globalThis[Symbol.for('kafka_jupyter.stream/1')]; return {connection: hub.connection, ...hub.stats}; }"
        )
        return found


def set_theme(page: Page, name: str) -> None:
    """JupyterLab hides what changes behind its splash, and takes that away 200 ms later, whether or not another change has begun
    and ended by then: its second removal raises. So one change waits for the end of the other."""
    page.wait_for_selector("#jupyterlab-splash", state="detached")
    page.evaluate(f"() => window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {name}'}})")
    page.wait_for_selector(f"body[data-jp-theme-name='JupyterLab {name}']", state="attached")
    page.wait_for_selector("#jupyterlab-splash", state="detached")


@contextlib.contextmanager
def running_lab(
    root: pathlib.Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    disabled: Sequence[str] = (),
    port: int = 0,
    application: str = "jupyterlab",
) -> Iterator[Lab]:
    """JupyterLab (or, as `application`, notebook: Notebook 7) with both extensions of this checkout, as an installation leaves them.

    `disabled`: Lab extensions, switched off.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_JUPYTER_")}
    env = {**inherited, **_own_folders(root, disabled), **(environment or {})}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH", "")]))
    tree, own = APPLICATIONS[application]
    command = [
        *(sys.executable, "-m", application, "--no-browser", "--allow-root", "--ServerApp.port_retries=0"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.base_url={BASE}", f"--IdentityProvider.token={TOKEN}"),
        *(f"--ServerApp.root_dir={root}", *own),
        *arguments,
    ]
    lab = Lab(root, port or free_port(), command, env, tree)
    try:
        lab.start()
        yield lab
    finally:
        lab.process.terminate()
        lab.process.wait(20)


def _log(root: pathlib.Path) -> pathlib.Path:
    return root.parent / f"{root.name}-server.log"


def _own_folders(root: pathlib.Path, disabled: Sequence[str]) -> dict[str, str]:
    """A browser test writes settings and workspaces: never into the person's own."""
    home = root.parent / f"{root.name}-jupyter"
    pages, extensions, servers = home / "config/labconfig", home / "path/labextensions", home / "config/jupyter_server_config.d"
    for folder in (pages, extensions, servers):
        folder.mkdir(parents=True, exist_ok=True)
    (pages / "page_config.json").write_text(json.dumps({"disabledExtensions": dict.fromkeys([NEWS, *disabled], True)}))
    installed = "kafka_jupyter.json"
    shutil.copy(ROOT / "jupyter-config/server-config" / installed, servers / installed)
    link = extensions / "kafka-jupyter"
    if not link.exists():
        link.symlink_to(ROOT / "kafka_jupyter/labextension")
    return {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_PATH": str(home / "path"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
    }


@contextlib.contextmanager
def running_chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "The browser tests need Chromium on the PATH"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()
