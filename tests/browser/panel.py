"""The sidebar of runs in a JupyterLab that shows no notebook."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.lab import ROOT, TOKEN, Lab, set_theme

AXE = ROOT / "labextension/node_modules/axe-core/axe.min.js"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}

# What is wider than the panel, though it neither scrolls nor ends in an ellipsis.
OVERFLOWING = """panel => {
  const frame = panel.getBoundingClientRect();
  const cut = e => e.closest('.uplot, pre, .kj-tableBox, .kj-voice, .kj-metricsBox') || getComputedStyle(e).textOverflow === 'ellipsis';
  return [...panel.querySelectorAll('*')]
    .filter(e => e.checkVisibility() && !cut(e) && e.getBoundingClientRect().right > frame.right + 1)
    .map(e => `${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`);
}"""

CHECK = """([selector, rules]) => axe.run(selector, rules).then(
  found => found.violations.map(v => [v.id, v.help, v.nodes.map(n => `${n.html.slice(0, 160)} ${n.failureSummary}`)])
)"""


class Panel:
    """The panel of a page. `errors`: what the page's scripts have raised, and where."""

    def __init__(self, lab: Lab, page: Page) -> None:
        self.lab, self.page = lab, page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(f"{error}\n{error.stack}"))
        page.set_default_timeout(30_000)
        self.node = page.locator(".kj-Panel:not(.kj-mod-main)")

    @classmethod
    def open(cls, lab: Lab, context: BrowserContext, path: str = "", reset: bool = True, page: Page | None = None) -> Panel:
        panel = cls(lab, page or context.new_page())
        panel.page.goto(f"{lab.url}lab{path}?{'reset&' if reset else ''}token={TOKEN}")
        panel.wait_restored()
        if reset and not path:
            # JupyterLab gives an empty desk a launcher, and the launcher the focus, when all is long restored: not under a test's hands.
            expect(panel.page.locator(".jp-Launcher")).to_be_focused()
        panel.show()
        return panel

    def wait_restored(self) -> None:
        self.page.wait_for_function("() => window.jupyterapp?.restored.then(() => true)")

    def reload(self) -> None:
        """As a person does it: with the workspace as it was left."""
        self.page.goto(f"{self.lab.url}lab?token={TOKEN}")
        self.wait_restored()

    def show(self) -> None:
        self.command("show-runs")
        expect(self.node).to_be_visible()

    def hide(self) -> None:
        self.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        expect(self.node).to_be_hidden()

    def command(self, name: str) -> None:
        self.page.evaluate(f"() => {{ void window.jupyterapp.commands.execute('kafka-jupyter:{name}') }}")

    def row(self, run_id: str) -> Locator:
        return self.node.locator(f".kj-Row[data-run='{run_id}']")

    @property
    def rows(self) -> Locator:
        return self.node.locator(".kj-Row")

    def button(self, name: str, exact: bool = True) -> Locator:
        return self.node.get_by_role("button", name=name, exact=exact)

    def filter(self, text: str) -> None:
        self.node.get_by_role("searchbox").fill(text)

    def tab(self, name: str) -> Locator:
        return self.node.get_by_role("tab", name=re.compile(name))

    def theme(self, name: str) -> None:
        set_theme(self.page, name)

    def widen(self, width: int) -> None:
        """Draws the border between sidebar and notebook to where the sidebar is that wide."""
        handle = self.page.locator("#jp-main-split-panel > .lm-SplitPanel-handle:not(.lm-mod-hidden)").first
        box, panel = handle.bounding_box(), self.node.bounding_box()
        assert box is not None
        assert panel is not None
        at = (box["x"] + box["width"] / 2, box["y"] + 200)
        self.page.mouse.move(*at)
        self.page.mouse.down()
        self.page.mouse.move(at[0] + width - panel["width"], at[1], steps=4)
        self.page.mouse.up()

    def violations(self) -> list[Any]:
        return violations(self.page, ".kj-Panel")


def violations(page: Page, selector: str) -> list[Any]:
    """What axe-core finds wrong in our part of the page."""
    if not page.evaluate("() => 'axe' in window"):
        page.add_script_tag(path=AXE)
    found: list[Any] = page.evaluate(CHECK, [selector, RULES])
    return found
