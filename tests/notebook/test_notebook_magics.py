"""The magics do what they say: start and stop the local Kafka, end a run, use a profile, complete the ids of runs."""

from __future__ import annotations

import contextlib
import pathlib
import re

import msgspec

from kafka_jupyter.brokers import local, local_daemons
from kafka_jupyter.brokers.kafka import Cluster
from kafka_jupyter.brokers.log import Log
from kafka_jupyter.client import Client, outcome
from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.letters import DeadLetter
from kafka_jupyter.settings import Settings
from tests.support.cli import environment as connected
from tests.support.local import environment, stopped_at_the_end
from tests.support.notebooks import run_notebook
from tests.support.playing import Player
from tests.support.scene import Scene

BUILD = """
import keras, numpy as np
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x, y = np.ones((256, 4)), np.ones(256)
"""


def test_up_starts_kafka_and_workers_and_down_stops_them(bare_settings: Settings, tmp_path: pathlib.Path) -> None:
    cells = {
        "load": "%load_ext kafka_jupyter",
        "up": "%kafka_up --brokers 1 --workers 1",
        "again": "%kafka_up",
        "workers": """from kafka_jupyter.brokers import local, local_daemons
from kafka_jupyter.settings import Settings
found = Settings.from_env()
print(local.endpoint(found).brokers, [worker.name for worker in local_daemons.living_workers(local.folder_of(found))])""",
        "other": "%kafka_up --brokers 3",
        "down": "%kafka_down",
        "twice": "%kafka_down",
    }
    with stopped_at_the_end(bare_settings):
        ran = run_notebook(cells, tmp_path, environment(bare_settings, IPYTHONDIR=str(tmp_path / "ipython"), TF_CPP_MIN_LOG_LEVEL="2"))
        assert re.search(r"Kafka is ready at 127\.0\.0\.1:\d+\. `%kafka_down` stops it", ran["up"].text)
        assert ran["again"].text.splitlines()[-1] == ran["up"].text.splitlines()[-1], "it was left alone"
        assert ran["workers"].text == "1 ['local-1']\n"
        assert ran["other"].text.startswith("UsageError: The local Kafka has a problem: the data in")
        assert re.fullmatch(r"Stopped: local-1, .+\.\n", ran["down"].text)
        assert ran["twice"].text == "Nothing was running.\n"
        assert local.endpoint(bare_settings) is None
        assert local_daemons.living_workers(local.folder_of(bare_settings)) == []


def test_a_profile_says_which_kafka_a_cell_and_a_magic_use(shared: Scene, kernel_env: dict[str, str], tmp_path: pathlib.Path) -> None:
    settings = shared.settings
    profiles = tmp_path / "profiles.toml"
    profiles.write_text(f'[team]\nbootstrap_servers = "{settings.bootstrap_servers}"\ntopic_prefix = "{settings.topic_prefix}"\n')
    env = {name: value for name, value in kernel_env.items() if not name.endswith(("BOOTSTRAP_SERVERS", "TOPIC_PREFIX"))}
    env |= {"KAFKA_JUPYTER_CONFIG": str(profiles), "KAFKA_JUPYTER_AUTO_START": "false"}
    cells = {
        "load": "%load_ext kafka_jupyter",
        "fit": f"%%kafka_train profiled --profile team --no-check\n{BUILD}\nmodel.fit(x, y, epochs=1, verbose=0)",
        "runs": "%kafka_runs --profile team --name profiled",
        "without": "%kafka_runs",
        "unknown": "%kafka_runs --profile other",
    }
    ran = run_notebook(cells, tmp_path, env)
    (run_id,) = ran["fit"].runs
    assert ran["runs"].text.startswith(f"{run_id} SUCCEEDED")
    assert "No Kafka broker answered" in ran["without"].text
    assert "the file knows team" in ran["unknown"].text
    client = Client(settings)
    state = client.connection().catch_up().state(run_id)
    assert state is not None
    assert outcome.read_task(client.connection(), state).model.check_rtol is None, "--no-check"
    assert not state.settings
    client.close()


def test_a_run_is_paused_resumed_changed_retried_and_its_letter_read(settings: Settings, tmp_path: pathlib.Path) -> None:
    cells = {
        "load": "%load_ext kafka_jupyter",
        "early": "%kafka_retry digits",
        "pause": "%kafka_pause digits",
        "paused": "%kafka_runs",
        "resume": "%kafka_resume digits",
        "ctl": "%kafka_ctl digits lr=1e-4",
        "cancel": "%kafka_cancel digits",
        "over": "%kafka_pause digits",
        "retry": "run = %kafka_retry digits --epochs 7\nrun.id",
        "letters": "%kafka_dlq",
        "show": "%kafka_dlq show broken",
        "nothing": "%kafka_dlq redrive",
        "redrive": "%kafka_dlq redrive broken",
        "missing": "%kafka_dlq redrive broken --task nowhere.json",
    }
    with contextlib.closing(Log.open(Cluster(settings), create=True)) as log:
        player = Player.new(log)
        player.submit()
        letter = DeadLetter("broken-3f2a9c01b7d4", "it is no task", task='{"type": "task", "fit": {"epochs": "three"}}', by="box-1")
        log.send(topics.TASK_DLQ, letter.run_id, msgspec.json.encode(letter), "dead_letter")
        log.producer.flush(10)
        env = environment(settings) | connected(settings) | {"IPYTHONDIR": str(tmp_path / "ipython")}
        ran = run_notebook(cells, tmp_path, env)
    short = player.run_id[:-8]
    assert "only a run that is FAILED, CANCELLED or DEAD can be retried" in ran["early"].text
    assert ran["pause"].text == f"{player.run_id}: asked to pause. `%kafka_resume {short}` goes on.\n"
    assert f"{player.run_id} PAUSED" in ran["paused"].text
    assert ran["resume"].text == f"{player.run_id}: asked to go on.\n"
    assert "asked for learning_rate 0.0001, from the end of its next batch or from its next start." in ran["ctl"].text
    assert "is over (CANCELLED)" in ran["over"].text
    assert ran["retry"].text.startswith(f"{player.run_id} is retried as digits-")
    assert ran["retry"].runs == [str(ran["retry"].result).strip("'")]
    assert "it is no task, buried by box-1" in ran["letters"].text
    assert '"epochs": "three"' in ran["show"].text
    assert ran["nothing"].text.startswith("UsageError: %kafka_dlq: redrive needs a RUN")
    assert "is no task that can be submitted" in ran["redrive"].text
    assert "nowhere.json: No such file" in ran["missing"].text
