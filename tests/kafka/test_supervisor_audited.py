"""S1: a real supervisor, with real tasks, forged ones and hostile ones: it loads no Keras, and unpickles nothing."""

from __future__ import annotations

import json
import pathlib
import secrets
from collections.abc import Iterator

import keras
import msgspec
import pytest

import kafka_jupyter
from kafka_jupyter.protocol import topics
from kafka_jupyter.protocol.parts import InlineText
from kafka_jupyter.runs.state import State
from kafka_jupyter.settings import Settings
from tests.capture import own_code
from tests.kafka.conftest import scene
from tests.support import forging
from tests.support.attacks import ATTACKS, Attack, Canary
from tests.support.audited import THE_END
from tests.support.raw import write
from tests.support.scene import Scene
from tests.support.training import Submission, mlp, submit, task_of

GRAPH = [attack for attack in ATTACKS if not attack.of]


@pytest.fixture
def audited(module_settings: Settings, tmp_path: pathlib.Path) -> Iterator[Scene]:
    settings = module_settings.replace(trust="code", topic_prefix=f"{module_settings.topic_prefix}audited.")
    with scene(settings, tmp_path / "workers", {"KAFKA_JUPYTER_ALLOW_CODE": "1", "AUDIT": str(tmp_path / "audit")}) as made:
        made.workers.start("audited", slots=2, module="tests.support.audited")
        yield made


def _hostile(made: Scene, attack: Attack, canary: Canary) -> Submission:
    """A task that is signed as it should be, whose model is an attack."""
    task = task_of(mlp(), "hostile", 64, 1)
    assert isinstance(task.model.config, InlineText)
    document = json.loads(task.model.config.text)
    document["model"]["config"]["layers"][1] = {**attack.payload(canary), "name": "attacked"}
    model = msgspec.structs.replace(task.model, config=InlineText(json.dumps(document)))
    return submit(made.log, "hostile", task=msgspec.structs.replace(task, model=model))


def _junk(made: Scene, canary: Canary) -> int:
    """Pickles, archives and HDF5 in every topic, as themselves and in the place of what a record brings; unsigned, and signed."""
    written = 0
    for attack in ATTACKS:
        if attack.of:
            payload = attack.payload(canary)
            for topic in (topics.TASK, topics.RUN_CONTROL, topics.TRAINING_LOG, topics.WORKER_STATE, topics.RUN_STATE):
                key = f"junk-{secrets.token_hex(6)}".encode()
                place = made.log.topics.place(topic, key.decode())
                write(made.log, place, key, payload)
                made.log.producer.write(*place, key, payload, ())
                written += 2
    return written


def _forged(made: Scene) -> int:
    """Records of strangers, for other places and times, about a run that is there."""
    written = 0
    for make in forging.FORGERIES.values():
        message = make()
        place = made.log.topics.place(topics.RUN_CONTROL, forging.RUN)
        headers = tuple((name, value) for name, value in message.headers if value is not None and name)
        made.log.producer.write(*place, message.key, message.value, headers)
        written += 1
    return written


def test_a_supervisor_loads_no_keras_and_unpickles_nothing_whatever_comes(
    audited: Scene, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = Canary(tmp_path / "canary", 9)
    canary.settle()
    keras.utils.set_random_seed(7)
    own = own_code.run("callbacks of its own")
    with kafka_jupyter.train("own", settings=audited.settings) as session:
        own["model"].fit(epochs=2, verbose=0, **own["given"])
    assert session.runs[0].state == "SUCCEEDED"
    written = _junk(audited, canary) + _forged(audited)
    hostile = [_hostile(audited, attack, canary) for attack in GRAPH]
    canary.settle()
    for run in hostile:
        ended = audited.ended(run)
        assert ended.state is State.FAILED, ended
        assert not ended.starts, "it came as far as a child"
    last = submit(audited.log)
    assert audited.ended(last).state is State.SUCCEEDED, "it trains no more"
    assert audited.workers.all[0].terminate() == 0
    assert (tmp_path / "audit").read_text().splitlines()[: len(THE_END)] == THE_END
    assert canary.sung() == []
    with capsys.disabled():
        print(f"\nS1: a supervisor with {written} hostile records and {len(hostile)} hostile models: 0 imports, 0 pickles")
