"""What a worker refuses to let Keras make, without Keras, on whatever bytes arrive."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import cases
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafka_jupyter.errors import CannotTravel
from kafka_jupyter.models import allowlist, allowlist_build
from kafka_jupyter.models.capture import capture_fit


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    model, arguments = cases.keras_operations()
    return json.loads(capture_fit(model, (), arguments).config)


def first_layer(document: dict[str, Any]) -> dict[str, Any]:
    return document["model"]["config"]["layers"][1]


def test_the_walk_needs_no_keras() -> None:
    code = "import sys; from kafka_jupyter.models import allowlist; allowlist.names(); sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_list_is_that_of_the_installed_keras() -> None:
    classes, functions = allowlist.names()
    built = allowlist_build.build()
    assert classes == {(module, name) for module, found in built["classes"].items() for name in found}
    assert functions == set(built["functions"])


def test_a_captured_model_is_allowed(document: dict[str, Any]) -> None:
    assert allowlist.check(json.dumps(document).encode())["v"] == 1


HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("Lambda", {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "x"}}),
    ("TorchModuleWrapper", {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {}}),
    ("TFSMLayer", {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/etc"}}),
    ("CSVLogger", {"module": "keras.callbacks", "class_name": "CSVLogger", "config": {"filename": "x"}}),
    ("get_file", {"module": "keras.utils", "class_name": "function", "config": "get_file"}),
    ("system", {"module": "os", "class_name": "function", "config": "system"}),
    ("func_load", {"module": "keras.src.utils.python_utils", "class_name": "function", "config": "func_load"}),
    ("__lambda__", {"class_name": "__lambda__", "config": {"value": ["4wA="]}}),
    ("__typespec__", {"class_name": "__typespec__", "module": "builtins", "config": []}),
    ("Dense", {"class_name": "Dense", "config": {}}),
    ("evil>Dense", {"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": "evil>Dense"}),
    ("Popen", {"module": "subprocess", "class_name": "Popen", "config": {"args": "id"}}),
    ("map", {"module": "keras.ops", "class_name": "function", "config": "map"}),
    ("vocabulary", {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}),
    ("https://evil", {"module": "keras.layers", "class_name": "Dense", "config": {"name": "https://evil.example/x"}}),
]


@pytest.mark.parametrize(("named", "node"), HOSTILE, ids=[name for name, _ in HOSTILE])
def test_what_is_not_a_built_in_of_keras_is_refused_by_name_and_place(named: str, node: Any, document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    first_layer(changed)["config"]["kernel_initializer"] = node
    with pytest.raises(CannotTravel) as raised:
        allowlist.check(json.dumps(changed).encode())
    assert named in str(raised.value)
    assert "kernel_initializer" in raised.value.fields["where"]


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b'{"v": 2}',
        b'{"v": 1}',
        b"[" * 100_000,
        b"\xff",
        json.dumps({"v": 1, "model": [[]] * 20_000}).encode(),
    ],
)
def test_bytes_that_are_no_document_are_one_clear_error(config: bytes) -> None:
    with pytest.raises(CannotTravel):
        allowlist.check(config)


def test_depth_and_size_are_bounded(document: dict[str, Any]) -> None:
    deep: Any = {}
    for _ in range(allowlist.DEPTH_LIMIT):
        deep = {"inner": deep}
    wide = [{} for _ in range(allowlist.NODE_LIMIT)]
    for too_much in (deep, wide):
        with pytest.raises(CannotTravel, match="it is deeper than"):
            allowlist.check(json.dumps({**document, "model": {"x": too_much}}).encode())


def test_a_long_vocabulary_is_no_reason_to_refuse(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    first_layer(changed)["config"]["vocabulary"] = [f"word{i}" for i in range(50_000)]
    allowlist.check(json.dumps(changed).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["class_name", "module", "config", "registered_name", "vocabulary", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(node=JSON)
def test_any_json_in_the_model_is_taken_or_refused_and_never_anything_else(node: Any, document: dict[str, Any]) -> None:
    try:
        allowlist.check(json.dumps({**document, "model": {"x": node}}).encode())
    except CannotTravel as refusal:
        assert refusal.fields["why"]  # noqa: PT017
