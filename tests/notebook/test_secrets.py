"""S4: a canary in every field that holds a credential, and a look at all that a worker, a notebook, a server and a shell leave behind."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import secrets
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition

from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.topics import open_topics
from kafka_jupyter.redact import MASK
from kafka_jupyter.settings import Settings
from kafka_jupyter.trust.keys import KeyFolder
from tests.support.jupyter_server import TOKEN, JupyterServer, jupyter_server
from tests.support.notebooks import Ran, executed
from tests.support.sasl import SUPER, kafka_with_passwords, profile_text
from tests.support.waiting import wait_until
from tests.support.workers import ROOT, workers

FIELDS = ("sasl.password", "ssl.key.password", "ssl.keystore.password", "sasl.oauthbearer.client.secret", "ssl.key.pem")
VARIABLES = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DATABASE_PASSWORD", "WANDB_API_KEY")
CANARIES = {name: f"canary/{secrets.token_hex(6)}+{i}" for i, name in enumerate((*FIELDS, *VARIABLES, "store", "database"))}

BEGIN = """
import logging
logging.basicConfig(level=logging.DEBUG, format="%(name)s %(message)s")
logging.getLogger("kafka_jupyter").setLevel(logging.DEBUG)
%load_ext kafka_jupyter
%xmode Verbose
import numpy as np, keras
x, y = np.random.default_rng(0).normal(size=(400, 8)).astype("float32"), np.zeros(400, "int32")
def made():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model
"""
FIT = "model = made()\nmodel.fit(x, y, epochs=2, verbose=0)"
FAILS = f"""
class Calls(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        url = "postgres://ada:{CANARIES["database"]}@db.example.org/runs"
        print("calling", url)
        raise ConnectionError("nobody at " + url)
model = made()
model.fit(x, y, epochs=2, verbose=0, callbacks=[Calls()])
"""
REPRS = """
import kafka_jupyter, sys
from kafka_jupyter.client import connection
from kafka_jupyter.redact import MASK
from kafka_jupyter.settings import Settings
from kafka_jupyter.trust.keys import KeyFolder
settings = Settings.from_env()
client = kafka_jupyter.Client(settings)
found = client.runs()
configs = [opened.log.cluster.config() for opened in connection.opened()]
for thing in (settings, settings.kafka, client, *found, *connection.opened(), *connection._open, *configs):
    print(repr(thing), str(thing), vars(thing) if hasattr(thing, "__dict__") else "")
display(*found)
"""
# A name → the source of a cell. What a cell itself spells out is its author's doing; what it leaves behind is ours.
CELLS = {
    "begin": BEGIN,
    "trained": f"%%kafka_train good --trust code\n{FIT}",
    "spelled": f"%%kafka_train spelled --trust code\npassword = {CANARIES['sasl.password']!r}\n{FIT}",
    "failed": f"%%kafka_train bad --trust code\n{FAILS}",
    "refused": f"%%kafka_train never --profile wrong\n{FIT}",
    "no store": f"%%kafka_train stored --profile stored\nx = np.tile(x, (2000, 1))\ny = np.tile(y, 2000)\n{FIT}",
    "no setting": f"%%kafka_train odd --profile odd\n{FIT}",
    "named": f"%kafka_runs --sasl-password={CANARIES['sasl.password']}",
    "reprs": REPRS,
}
COMMANDS = (
    ["runs", "--json"], ["show", "good"], ["show", "bad", "--json"], ["logs", "bad"], ["follow", "bad", "--json"], ["workers", "--json"],
    ["doctor", "--json"], ["status", "--json"], ["dlq", "ls", "--json"], ["keys", "list", "--json"], ["keys", "export"], ["store", "ls"],
    ["topics", "check"], ["runs", "--profile", "wrong"], ["worker", "--profile", "odd"], ["store", "ls", "--profile", "stored"],
)  # fmt: skip
ROUTES = ("health", "runs", "workers", "runs/{}", "runs/{}/details", "output?runs={}", "runs/nobody")


@dataclasses.dataclass
class Left:
    """What was left behind, by where; `notebook` without the cells' sources."""

    texts: dict[str, bytes]
    notebook: Any

    def outputs(self, cell: str) -> str:
        return json.dumps(self.notebook.cells[list(CELLS).index(cell)].outputs)


def _profiles(file: pathlib.Path, servers: str) -> None:
    def table(name: str, password: str, top: str = "", more: str = "") -> str:
        text = profile_text(name, servers, SUPER, password)
        others = "".join(f'"{field}" = "{CANARIES[field]}"\n' for field in FIELDS[1:])
        return text.replace(f"[{name}]\n", f"[{name}]\n{top}\n") + others + more + "\n"

    quoted = urllib.parse.quote(CANARIES["store"], safe="")
    file.write_text(
        table("default", CANARIES["sasl.password"])
        + table("wrong", CANARIES["sasl.password"] + "x")
        + table("stored", CANARIES["sasl.password"], f'store = "ftp://ada:{quoted}@127.0.0.1:9/data"')
        + table("odd", CANARIES["sasl.password"], more=f'"socket.timeout.ms" = "{CANARIES["sasl.password"]}"')
    )


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    folder = tmp_path_factory.mktemp("secrets")
    with kafka_with_passwords(folder / "kafka", {SUPER: CANARIES["sasl.password"]}) as servers, contextlib.ExitStack() as stack:
        _profiles(folder / "profiles.toml", servers)
        env = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_JUPYTER_")}
        env |= {name: CANARIES[name] for name in VARIABLES}
        env |= {"KAFKA_JUPYTER_CONFIG": str(folder / "profiles.toml"), "KAFKA_JUPYTER_CACHE_DIR": str(folder / "cache"),
                "KAFKA_JUPYTER_DATA_DIR": str(folder / "data"), "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")}  # fmt: skip
        settings = Settings.from_env(env)
        open_topics(Cluster(settings), create=True)
        there = {"BOOTSTRAP_SERVERS": servers, "TOPIC_PREFIX": "", "ALLOW_CODE": "1", "CONFIG": env["KAFKA_JUPYTER_CONFIG"]}
        started = stack.enter_context(workers(settings, folder / "workers", {f"KAFKA_JUPYTER_{k}": v for k, v in there.items()}))
        worker = started.start("loud", module="tests.support.loud", more_env={name: CANARIES[name] for name in VARIABLES})
        server = stack.enter_context(jupyter_server(folder / "server", env, "--debug"))
        with server.events() as seen:
            notebook = executed(CELLS, folder, env, present=True)
            run_ids = _run_ids(notebook)
            wait_until(lambda: {"SUCCEEDED", "FAILED"} <= {event.get("state") for event in seen}, "the stream told no end", within=30)
        texts = {f"kafka-jupyter {' '.join(words)}": _said(words, env, folder) for words in COMMANDS}
        texts |= {"the stream of events": json.dumps(seen).encode()} | dict(_answers(server, run_ids))
        worker.terminate()
        texts |= {"the worker's log": worker.log.encode(), "the server's log": server.log.encode()}
        texts |= dict(_records(settings))
        for cell in notebook.cells:
            cell.source = ""
        texts["the notebook, with its widgets"] = json.dumps(notebook).encode()
        yield Left(texts, notebook)


def _said(words: list[str], env: dict[str, str], folder: pathlib.Path) -> bytes:
    line = [sys.executable, "-m", "tests.support.loud", *words]
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, timeout=60, check=False)
    return done.stdout + done.stderr


def _run_ids(notebook: Any) -> list[str]:
    return [run_id for name, cell in zip(CELLS, notebook.cells, strict=True) for run_id in Ran(name, cell.outputs).runs]


def _answers(server: JupyterServer, run_ids: list[str]) -> Iterator[tuple[str, bytes]]:
    for route in dict.fromkeys(route.format(run_id) for route in ROUTES for run_id in run_ids):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", f"/kafka-jupyter/{route}", headers={"Authorization": f"token {TOKEN}"})
        answer = connection.getresponse()
        yield f"GET {route}", repr(answer.getheaders()).encode() + answer.read()
        connection.close()


def _records(settings: Settings) -> Iterator[tuple[str, bytes]]:
    """Every byte in every topic, as the plain client gives it."""
    consumer = confluent_kafka.Consumer({**Cluster(settings).config(), "group.id": "s4", "enable.auto.commit": False})
    try:
        for name, topic in consumer.list_topics(timeout=10).topics.items():
            for number in topic.partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(name, number), timeout=10)
                consumer.assign([TopicPartition(name, number, low)])
                taken, position = b"", low
                while position < high and (message := consumer.poll(5)) is not None:
                    assert message.error() is None
                    headers = b"".join(key.encode() + (value or b"") for key, value in message.headers() or [])
                    taken += (message.key() or b"") + (message.value() or b"") + headers + b"\n"
                    position = message.offset() + 1
                yield f"topic {name}/{number}", taken
    finally:
        consumer.close()


def _forms(canary: str) -> list[bytes]:
    plain = canary.encode()
    return [
        plain,
        base64.b64encode(plain),
        urllib.parse.quote(canary, safe="").encode(),
        urllib.parse.quote(canary).encode(),
        plain.hex().encode(),
    ]


def _signing_keys() -> dict[str, str]:
    """What stands in the private keys that all of this was signed with, by file."""
    return {key.file.name: key.file.read_text().splitlines()[1] for key in KeyFolder(Settings().key_dir).all()}


def test_no_canary_is_left_anywhere(left: Left, capsys: pytest.CaptureFixture[str]) -> None:
    canaries = CANARIES | _signing_keys()
    found = [
        (where, name, text[max(0, text.find(form) - 200) : text.find(form)])
        for where, text in left.texts.items()
        for name, canary in canaries.items()
        for form in _forms(canary)
        if form in text
    ]
    assert found == []
    with capsys.disabled():
        size = sum(map(len, left.texts.values()))
        print(f"\nS4: {len(canaries)} canaries, {len(left.texts)} places with {size:,} bytes, found 0 times")


def test_each_place_was_looked_at_and_tells_what_it_should(left: Left) -> None:
    """Else nothing would have been looked at: a masked secret shows where one had been."""
    empty = [where for where, text in left.texts.items() if not text and not where.startswith("topic ")]
    assert empty == []
    masked = {where for where, text in left.texts.items() if MASK.encode() in text or json.dumps(MASK)[1:-1].encode() in text}
    assert {"kafka-jupyter logs bad", "kafka-jupyter show bad --json", "the stream of events", "the notebook, with its widgets"} <= masked
    assert any(where.startswith("topic training_log") for where in masked)
    assert any(where.startswith("topic run_control") for where in masked)
    assert any(where.startswith("topic task/") for where in masked), "the cell that spells the password out"
    assert b"application/vnd.jupyter.widget-state+json" in left.texts["the notebook, with its widgets"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("trained", "SUCCEEDED"),
        ("spelled", "SUCCEEDED"),
        ("failed", "ConnectionError"),
        ("refused", "AuthenticationFailed"),
        ("no store", "StoreUnavailable"),
        ("no setting", "socket.timeout.ms"),
        ("named", "never a secret"),
        ("reprs", "Settings(profile="),
    ],
)
def test_each_cell_did_what_it_is_there_for(left: Left, cell: str, said: str) -> None:
    assert said in left.outputs(cell)
