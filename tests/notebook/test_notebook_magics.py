"""The magics do what they say: start and stop the local Kafka, end a run, use a profile, complete the ids of runs."""

from __future__ import annotations

import pathlib
import re

from kafka_jupyter.brokers import local, local_daemons
from kafka_jupyter.client import Client, outcome
from kafka_jupyter.settings import Settings
from tests.support.local import environment, stopped_at_the_end
from tests.support.notebooks import run_notebook
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
