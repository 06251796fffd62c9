"""S2: what has been published against people who load Keras models, brought to a worker."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import pathlib
import pickle
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from kafka_jupyter.errors import CannotTravel, StoreError
from kafka_jupyter.models import allowlist, state
from kafka_jupyter.models.capture import CapturedFit, capture_fit
from kafka_jupyter.protocol import frames
from kafka_jupyter.store import arrays
from kafka_jupyter.training.cage import Cage
from kafka_jupyter.worker.children import Children
from tests.capture import cases
from tests.support.attacks import ATTACKS, Attack, Canary
from tests.support.jobs import job_of
from tests.support.watching import Watched

MEMORY = 4 << 30  # bytes; a child with TensorFlow has about a half of the first
DOORS: dict[str, Callable[[pathlib.Path], Any]] = {
    "model": lambda path: allowlist.check(path.read_bytes()),
    "state": lambda path: state.values(cases.mlp(), path),
    "data/0": arrays.load,
}


@dataclasses.dataclass
class Listener:
    """An address of the canary's, and who has called there."""

    port: int
    calls: list[Any]


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard = Listener(server.getsockname()[1], [])
        threading.Thread(target=_listen, args=(server, heard), daemon=True).start()
        yield heard


def _listen(server: socket.socket, heard: Listener) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, address = server.accept()
            heard.calls.append(address)
            connection.close()


@pytest.fixture(scope="module")
def captured() -> CapturedFit:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="last")(keras.layers.Activation("linear", name="attacked")(inputs)))
    return capture_fit(cases.classified(model), (), {"x": cases.rows(32, 4), "y": cases.labels(32), "epochs": 1})


@pytest.fixture
def canary(tmp_path: pathlib.Path, listener: Listener) -> Canary:
    made = Canary(tmp_path / "canary", listener.port)
    made.settle()
    return made


def brought(attack: Attack, captured: CapturedFit, canary: Canary) -> dict[str, bytes]:
    """The files of the task that it comes in, where they are not those of the captured `fit`."""
    payload = attack.payload(canary)
    if attack.of:
        assert isinstance(payload, bytes)
        return {attack.of: payload}
    document = json.loads(captured.config)
    (place,) = (i for i, node in enumerate(document["model"]["config"]["layers"]) if node["name"] == "attacked")
    replaced = document["model"]["config"]["layers"][place]
    node = {"inbound_nodes": replaced["inbound_nodes"], **copy.deepcopy(payload), "name": "attacked"}
    if isinstance(node["config"], dict) and node.get("module") != "subprocess":
        node["config"] |= {"name": "attacked"}
    document["model"]["config"]["layers"][place] = node
    return {"model": json.dumps(document).encode()}


def ids(attack: Attack) -> str:
    return attack.name


@pytest.mark.parametrize("attack", ATTACKS, ids=ids)
def test_a_published_attack_is_refused_before_keras_sees_it(
    attack: Attack, captured: CapturedFit, canary: Canary, listener: Listener, tmp_path: pathlib.Path
) -> None:
    ((part, content),) = brought(attack, captured, canary).items()
    canary.settle()  # making a payload may read
    calls = len(listener.calls)
    (tmp_path / "part").write_bytes(content)
    with pytest.raises((CannotTravel, StoreError)):
        DOORS[part](tmp_path / "part")
    assert (canary.sung(), len(listener.calls)) == ([], calls)


@dataclasses.dataclass
class Forced:
    children: Children

    def train(self, attack: Attack, captured: CapturedFit, canary: Canary, folder: pathlib.Path) -> Watched:
        job = job_of(captured, folder, captured.seed)
        for part, content in brought(attack, captured, canary).items():
            pathlib.Path(job.inputs[part]).write_bytes(content)
        canary.settle()
        watched = Watched(self.children)
        watched.child.send(job)
        watched.exit(within=100)
        return watched


@contextlib.contextmanager
def forcing(entry: str, cage: Cage) -> Iterator[Forced]:
    children = Children(train=f"tests.support.forced:{entry}", cage=cage, name="forced")
    try:
        yield Forced(children)
    finally:
        children.close()


@pytest.fixture(scope="module")
def forced() -> Iterator[Forced]:
    """With the network, as on the local stack: that nobody calls is then not the cage's doing."""
    with forcing("main", Cage(memory=MEMORY, network=True)) as found:
        yield found


@pytest.fixture(scope="module")
def unsafe() -> Iterator[Forced]:
    with forcing("unsafe", Cage(memory=MEMORY, network=True)) as found:
        yield found


@pytest.mark.parametrize("attack", ATTACKS, ids=ids)
def test_forced_into_a_child_it_does_nothing(
    attack: Attack, captured: CapturedFit, canary: Canary, listener: Listener, forced: Forced, tmp_path: pathlib.Path
) -> None:
    calls = len(listener.calls)
    watched = forced.train(attack, captured, canary, tmp_path / "job")
    assert (canary.sung(), len(listener.calls)) == ([], calls), watched.frames
    assert watched.exits[0].memory < MEMORY


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.sings], ids=ids)
def test_with_keras_safe_mode_off_as_well_the_canary_sings(
    attack: Attack, captured: CapturedFit, canary: Canary, unsafe: Forced, tmp_path: pathlib.Path
) -> None:
    """Else silence would prove nothing."""
    watched = unsafe.train(attack, captured, canary, tmp_path / "job")
    assert canary.sung(), watched.frames


def test_safe_mode_is_on_also_where_somebody_has_switched_it_off(captured: CapturedFit, canary: Canary, tmp_path: pathlib.Path) -> None:
    with forcing("switched_off", Cage(memory=MEMORY)) as found:
        watched = found.train(ATTACKS[0], captured, canary, tmp_path / "job")
    assert canary.sung() == []
    assert "Requested the deserialization of a `Lambda` layer" in watched.frame(frames.Error).message


def _unpack(path: pathlib.Path) -> None:
    (path.parent / "unpacked").mkdir()
    with tarfile.open(path) as archive:
        archive.extractall(path.parent / "unpacked", filter="fully_trusted")


OPENED: dict[str, tuple[str, Callable[[pathlib.Path], Any]]] = {
    "pickled weights": ("x.pickle", lambda path: pickle.loads(path.read_bytes())),
    "pickled objects in an array": ("x.npy", lambda path: np.load(path, allow_pickle=True)),
    "pickled objects in an archive of arrays": ("x.npz", lambda path: np.load(path, allow_pickle=True)["x"]),
    "a Lambda in an .h5 file": ("x.h5", lambda path: keras.models.load_model(path, safe_mode=False)),
    "a .keras archive with a Lambda": ("x.keras", lambda path: keras.models.load_model(path, safe_mode=False)),
    "HDF5 whose bytes lie in another file": ("x.h5", lambda path: h5py.File(path)["d"][:]),
    "an archive that leaves its folder, as weights": ("x.tar", _unpack),
}


@pytest.mark.parametrize("name", OPENED)
def test_opened_as_what_it_says_to_be_the_canary_sings(name: str, canary: Canary, tmp_path: pathlib.Path) -> None:
    (attack,) = (attack for attack in ATTACKS if attack.name == name)
    file, opened = OPENED[name]
    (tmp_path / file).write_bytes(attack.payload(canary))
    canary.settle()
    with contextlib.suppress(ValueError, OSError, KeyError):
        opened(tmp_path / file)
    assert canary.sung()


PUBLISHED = (
    "CVE-2024-3660", "CVE-2024-55459", "CVE-2025-1550", "CVE-2025-8747", "CVE-2025-9905", "CVE-2025-9906", "CVE-2025-12058",
    "CVE-2025-12060", "CVE-2025-12638", "CVE-2025-49655", "CVE-2026-0897", "CVE-2026-1462", "CVE-2026-1669",
)  # fmt: skip


def test_every_published_number_has_a_canary(capsys: pytest.CaptureFixture[str]) -> None:
    told = " ".join(attack.published for attack in ATTACKS)
    assert [number for number in PUBLISHED if number not in told] == []
    with capsys.disabled():
        print(f"\nS2: {len(ATTACKS)} attacks of {len(PUBLISHED)} published numbers, each refused before load and forced into a child")
