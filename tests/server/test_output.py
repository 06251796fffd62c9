"""What a page puts into a cell when somebody saves a result, and that nothing is ever saved by itself."""

from __future__ import annotations

import json
import pathlib

import pytest

from kafka_jupyter.brokers.log import Log
from kafka_jupyter.outputs.bundle import MIME, bundle
from kafka_jupyter.server.manager import Manager
from tests.server.raw import Server
from tests.server.test_routes import known
from tests.support.playing import Player
from tests.support.saved import cell, live, notebook


async def test_the_output_of_ended_runs_is_the_bundle_that_their_kernel_would_have_left(server: Server, log: Log) -> None:
    first, second = Player.new(log, name="zeta").whole(), Player.new(log, name="alpha").whole()
    wholes = [(await server.get(f"runs/{player.run_id}")).json for player in (first, second)]
    answer = await server.get(f"output?runs={first.run_id},{second.run_id},{first.run_id}")
    assert answer.status == 200
    assert answer.json["final"] is True
    rows = {whole["run"]["run_id"]: whole["rows"] for whole in wholes}
    assert answer.json["data"] == bundle([whole["run"] for whole in wholes], rows, live=False)
    assert [run["run_id"] for run in answer.json["data"][MIME]["runs"]] == [first.run_id, second.run_id], "in the order asked for"


async def test_the_output_of_a_run_that_goes_on_is_refused(server: Server, log: Log, manager: Manager) -> None:
    done, going = Player.new(log).whole(), Player.new(log)
    going.submit()
    await known(manager, going.run_id, "QUEUED")
    answer = await server.get(f"output?runs={done.run_id},{going.run_id}")
    assert (answer.status, answer.json["error"]) == (409, "RunActive")
    assert answer.json["message"] == f"Run {going.run_id} has not ended (QUEUED): its result can be saved once it has."


async def test_the_output_of_an_unknown_run_is_404_with_the_nearest_ids(server: Server, log: Log) -> None:
    done = Player.new(log).whole()
    answer = await server.get(f"output?runs={done.run_id},{done.run_id[:-1]}")
    assert answer.status == 404
    assert done.run_id in answer.json["message"]


@pytest.mark.parametrize("query", ["", "?runs=", "?runs=,", "?runs=" + ",".join(f"digits-{i:012x}" for i in range(201))])
async def test_an_output_is_asked_for_with_1_to_200_runs(server: Server, log: Log, query: str) -> None:
    answer = await server.get("output" + query)
    assert answer.status == 400
    assert "1 to 200 run ids" in answer.json["message"]


async def test_to_open_a_notebook_never_changes_it(server: Server, log: Log, jp_root_dir: pathlib.Path) -> None:
    run_id = Player.new(log).whole().run_id
    file = jp_root_dir / "digits.ipynb"
    text = json.dumps(notebook(cell("one", live(run_id))))
    file.write_text(text)
    before = file.stat()
    contents = Server(server.port, server.root.removesuffix("kafka-jupyter/"), server.auth, "api/contents/")
    opened = await contents.get("digits.ipynb")
    assert opened.json["content"]["cells"][0]["outputs"] == [live(run_id)]
    for path in (f"runs/{run_id}", f"output?runs={run_id}"):  # what a page may ask next
        assert (await server.get(path)).status == 200
    assert file.read_text() == text
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert [each.name for each in jp_root_dir.iterdir()] == ["digits.ipynb"]
