"""Whatever stands in the topics is text for the page: in cards, in the sidebar, in a saved notebook. No script runs, nothing is steered."""

from __future__ import annotations

import html.parser
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import pytest
from playwright.sync_api import BrowserContext, expect

from kafka_jupyter.brokers import local
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.outputs.bundle import MIME
from kafka_jupyter.protocol import codec, topics
from kafka_jupyter.protocol.rows import LogLine, RowBatch
from tests.browser.lab import TOKEN, Lab
from tests.browser.panel import Panel
from tests.browser.played import lab_over, topics_of
from tests.support.crowd import Member, play
from tests.support.payloads import PAYLOADS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

TEN_MB = 10_000_000

# Run, name, error and the rest: a payload in every place that a run has once.
RUNS = [
    Member(
        text, ends="Failed", done=1, owner=f"{text}@x", notebook=text, labels={text: text}, worker=text or "w",
        metrics=lambda _epoch, text=text: {text: 0.5, f"val_{text}": None}, error=(text, text, f"Traceback\n  {text}"), lines=[text],
    )
    for text in PAYLOADS
]  # fmt: skip
# All of them at once where a run has many: metrics, lines, labels.
CHEST = Member(
    "chest", done=2, ends=None, metrics=lambda epoch: dict.fromkeys(PAYLOADS[:150], 1 / (epoch + 1)), lines=list(PAYLOADS),
    labels={text[:300]: text for text in PAYLOADS},
)  # fmt: skip


@pytest.fixture(scope="module")
def lab(kafka: local.Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with topics_of(kafka, tmp_path_factory.mktemp("hostile"), "hostile") as log:
        play(log, [*RUNS, CHEST])
        endless_line(log, kafka.servers)
    with lab_over(kafka, tmp_path_factory.mktemp("hostile-lab"), "hostile") as lab:
        yield lab


def endless_line(log: Log, servers: str) -> None:
    """10 MB in one line of the chest: a client of somebody else's sends it compressed, so the broker takes it."""
    row = LogLine(99_999, 2, 0, "endless " + "y" * TEN_MB)
    topic, partition = log.topics.place(topics.TRAINING_LOG, CHEST.run_id)
    settings = {"bootstrap.servers": servers, "message.max.bytes": 20_000_000, "compression.type": "zstd"}
    producer = confluent_kafka.Producer(settings)
    batch = RowBatch(CHEST.run_id, 1, CHEST.worker, "n" * 16, [row])
    failures: list[Any] = []
    value = codec.encode(batch)
    signed = list(log.signed(topic, "rows", CHEST.run_id.encode(), value))
    producer.produce(topic, value, CHEST.run_id, partition, on_delivery=lambda error, _: failures.append(error), headers=signed)
    assert producer.flush(30) == 0
    assert failures == [None]


# In our part of the page: an element that none of our code makes, or an attribute that could run something.
FORBIDDEN = """() => {
  const ours = [...document.querySelectorAll('.kj-Card, .kj-Panel, .Toastify, .kj-status')];
  const tags = /^(script|iframe|img|object|embed|a|form|link|style|base|meta|video|audio|math|marquee|template|foreignobject|use|xss?)$/i;
  const names = /^(on.*|data-commandlinker.*|srcdoc|formaction|action|href|src)$/i;
  const bad = e => tags.test(e.tagName) || [...e.attributes].some(a => names.test(a.name));
  return ours.flatMap(root => [...root.querySelectorAll('*')].filter(bad).map(e => e.outerHTML.slice(0, 200)));
}"""

# What turns the direction of writing, or steers a terminal, must not reach the page.
STEERING = r"""() => [...document.querySelectorAll('.kj-Card, .kj-Panel')].map(e => e.textContent)
  .filter(text => /[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/.test(text)).map(text => text.slice(0, 200))"""


class Watch:
    """Everything by which a payload could show that it ran."""

    def __init__(self, context: BrowserContext) -> None:
        self.ran: list[str] = []
        context.add_init_script("window.pwned = () => { window.pwnedBy = (window.pwnedBy ?? 0) + 1; }; window.alert = window.pwned")
        context.on("dialog", lambda dialog: (self.ran.append(dialog.message), dialog.dismiss()))
        context.on("request", lambda request: self._requested(request.url))
        self.pages = context.pages

    def _requested(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "data:image/", "data:font/", "data:application/", "blob:")):
            self.ran.append(url)

    def assert_quiet(self, panel: Panel) -> None:
        page = panel.page
        assert page.evaluate("() => window.pwnedBy") is None, "a payload has run"
        assert self.ran == []
        assert page.evaluate(FORBIDDEN) == []
        assert page.evaluate(STEERING) == []
        assert len(page.context.pages) == 1
        assert panel.errors == []


def test_a_hundred_payloads_are_text_in_list_cards_details_and_comparison(lab: Lab, context: BrowserContext) -> None:
    assert len(set(PAYLOADS)) >= 100
    watch = Watch(context)
    names = [member.run_id for member in [*RUNS, CHEST]]
    bundles = [{MIME: {"v": 1, "runs": [{"run_id": name}]}} for name in names]
    cells = [bundles[i : i + 40] for i in range(0, len(bundles), 40)]  # JupyterLab shows 50 outputs of a cell
    lab.write("hostile.ipynb", *["# runs"] * len(cells), outputs=dict(enumerate(cells)))
    panel = Panel.open(lab, context, "/tree/hostile.ipynb")
    expect(panel.rows).to_have_count(len(names))
    cards = panel.page.locator(".jp-Notebook .kj-Card")
    expect(cards).to_have_count(len(names))
    expect(panel.page.locator(".jp-Notebook .kj-Run[data-state=FAILED]")).to_have_count(len(RUNS))
    expect(cards.nth(0).locator(".kj-name")).to_have_text("<script>pwned()</script>")
    expect(cards.nth(0).locator(".kj-error")).to_contain_text("<script>pwned()</script>")
    for button in panel.page.get_by_role("button", name="Show the whole traceback").all()[:20]:
        button.click()
    watch.assert_quiet(panel)

    panel.row(CHEST.run_id).click()
    log = panel.node.locator(".kj-log").first
    expect(log).to_contain_text("endless yyyy")
    assert len(log.text_content() or "") < 600_000, "a line of 10 MB is cut"
    expect(log).to_contain_text("<img src=x onerror=pwned()>")
    expect(panel.node.get_by_role("rowheader", name="label <svg onload=pwned()>", exact=True)).to_be_visible()
    watch.assert_quiet(panel)
    panel.button("‹ All runs").click()
    for member in RUNS[:8]:
        panel.row(member.run_id).click(modifiers=["Control"])
    panel.button("Compare").click()
    expect(panel.node.locator(".kj-Compare .uplot")).to_be_visible()
    expect(panel.node.locator(".kj-Compare thead th")).to_have_count(8)
    watch.assert_quiet(panel)
    panel.tab("Workers")
    panel.theme("Dark")
    watch.assert_quiet(panel)


class Tags(html.parser.HTMLParser):
    """What a reader of the saved HTML makes of it."""

    MADE = frozenset(("p", "strong", "code", "span", "div", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre"))
    DRAWN = frozenset(("svg", "path", "polyline"))

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[Any] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        bad = [
            name
            for name, value in attrs
            if name.startswith(("on", "data-")) or name in ("href", "src", "action") or "url(" in (value or "")
        ]
        if tag not in self.MADE | self.DRAWN or bad:
            self.bad.append((tag, bad))


def test_what_is_saved_into_a_notebook_holds_no_payload_that_could_run(lab: Lab, context: BrowserContext) -> None:
    watch = Watch(context)
    outputs = []
    for start in range(0, len(RUNS), 50):
        named = ",".join(member.run_id for member in RUNS[start : start + 50])
        request = urllib.request.Request(f"{lab.url}kafka-jupyter/output?runs={named}", headers={"Authorization": f"token {TOKEN}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            outputs.append(json.load(answer)["data"])
    for data in outputs:
        tags = Tags()
        tags.feed(data["text/html"])
        assert tags.bad == []
        assert "&lt;script&gt;pwned()" in outputs[0]["text/html"]
    # As a reader without our plugin sees it, trusted: the HTML as it is.
    lab.write("saved-hostile.ipynb", "saved", outputs={0: [{k: v for k, v in data.items() if k != MIME} for data in outputs]})
    lab.trust("saved-hostile.ipynb")
    panel = Panel.open(lab, context, "/tree/saved-hostile.ipynb")
    expect(panel.page.get_by_title("Notebook trusted: 1 of 1 code cells trusted.")).to_be_visible()
    expect(panel.page.locator(".jp-Notebook .jp-RenderedHTML").first).to_contain_text("<script>pwned()</script>")
    for part in panel.page.locator(".jp-Notebook .jp-RenderedHTML summary").all()[:20]:
        part.click()
    assert panel.page.locator(".jp-Notebook .jp-RenderedHTML [data-commandlinker-command]").count() == 0
    assert panel.page.locator(".jp-Notebook .jp-RenderedHTML :is(script, img, iframe, a, form, object)").count() == 0
    watch.assert_quiet(panel)
