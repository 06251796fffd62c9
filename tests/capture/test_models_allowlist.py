"""What a worker refuses to let Keras make, without Keras, on whatever bytes arrive."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafka_jupyter.errors import CannotTravel
from kafka_jupyter.models import allowlist, allowlist_build
from kafka_jupyter.models.capture import capture_fit
from tests.capture import cases


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


def test_so_many_objects_are_no_model(document: dict[str, Any]) -> None:
    zeros = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}
    for count, taken in ((allowlist.OBJECT_LIMIT - 100, True), (allowlist.OBJECT_LIMIT + 1, False)):
        changed = {**document, "policies": [zeros] * count}
        if taken:
            allowlist.check(json.dumps(changed).encode())
            continue
        with pytest.raises(CannotTravel, match="more than 10000 objects"):
            allowlist.check(json.dumps(changed).encode())


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "~/.ssh/id_rsa", "../../x", "a/../b", "C:\\x", "\\\\host\\share", "..", "file:///x", "s3://bucket/x"]
)
def test_text_that_keras_could_open_or_fetch_is_refused_wherever_it_stands(text: str, document: dict[str, Any]) -> None:
    for place in (["name"], ["kernel_initializer", "config", "x"], ["deep", 0, "list"]):
        changed = copy.deepcopy(document)
        node: Any = text
        for key in reversed(place[1:]):
            node = [node] if isinstance(key, int) else {key: node}
        first_layer(changed)["config"][str(place[0])] = node
        with pytest.raises(CannotTravel, match=r"no file is read|nothing is fetched"):
            allowlist.check(json.dumps(changed).encode())


@pytest.mark.parametrize("text", ["block1/conv", "a...b", "...", "abc,bd->acd", "x:0", "lower_and_strip_punctuation", "1.5", ""])
def test_names_and_equations_are_no_paths(text: str, document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    first_layer(changed)["config"]["name"] = text
    allowlist.check(json.dumps(changed).encode())


def test_the_words_of_a_vocabulary_may_be_anything(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    first_layer(changed)["config"]["vocabulary"] = ["/home", "https://example.org", "..", "~"]
    allowlist.check(json.dumps(changed).encode())


@pytest.mark.parametrize(
    "bomb",
    [{"units": 1 << 29}, {"input_dim": 1 << 20, "output_dim": 1 << 20}, {"batch_shape": [None, 1 << 20, 1 << 20]}, {"shape": [1 << 32]},
     {"filters": 1 << 40}, {"num_tokens": 1 << 31}, {"target_shape": [1 << 16, 1 << 16]}],
    ids=str,
)  # fmt: skip
def test_a_declared_size_that_no_model_has_is_refused(bomb: dict[str, Any], document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    first_layer(changed)["config"].update(bomb)
    with pytest.raises(CannotTravel, match=r"elements here|more than 2147483648 numbers"):
        allowlist.check(json.dumps(changed).encode())


def test_a_long_vocabulary_is_no_reason_to_refuse(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    first_layer(changed)["config"]["vocabulary"] = [f"word{i}" for i in range(50_000)]
    allowlist.check(json.dumps(changed).encode())


TEXT = st.text(st.characters(), max_size=8) | st.sampled_from(["Dense", "keras.layers", "function", "http://x", "\ud800", "Lambda", "relu"])
KEYS = st.sampled_from(["class_name", "module", "config", "registered_name", "vocabulary", "x", "__keras_tensor__", "\udfff"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def taken_or_refused(config: bytes) -> dict[str, Any] | None:
    """What `check` gives. A refusal is our own error, and a record or a frame can carry it; anything else fails the test."""
    try:
        return allowlist.check(config)
    except CannotTravel as refusal:
        assert refusal.fields["why"]  # noqa: PT017
        str(refusal).encode()
        return None


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every place in a document where something else could stand: (its container, the key)."""
    if not isinstance(node, (dict, list)):
        return []
    found: list[tuple[Any, Any]] = [(node, key) for key in (node if isinstance(node, dict) else range(len(node)))]
    return found + [place for container, key in list(found) for place in places(container[key])]


@FUZZ
@given(node=JSON)
def test_any_json_in_the_model_is_taken_or_refused_and_never_anything_else(node: Any, document: dict[str, Any]) -> None:
    taken_or_refused(json.dumps({**document, "model": {"x": node}}).encode())


@FUZZ
@given(node=JSON, chance=st.randoms(use_true_random=False))
def test_a_captured_model_with_anything_in_any_place_is_taken_or_refused(node: Any, chance: Any, document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    container, key = chance.choice(places(changed))
    container[key] = node
    taken = taken_or_refused(json.dumps(changed).encode())
    assert taken is None or json.dumps(taken) == json.dumps(changed), "the check changes nothing"


@FUZZ
@given(config=st.binary(max_size=64) | JSON.map(lambda node: json.dumps(node).encode()))
def test_any_bytes_are_refused(config: bytes) -> None:
    assert taken_or_refused(config) is None


@FUZZ
@given(depth=st.integers(0, 2 * allowlist.DEPTH_LIMIT), width=st.integers(1, 3), kind=st.sampled_from([dict, list]))
def test_nothing_deeper_than_the_limit_is_taken(depth: int, width: int, kind: type, document: dict[str, Any]) -> None:
    node: Any = []
    for _ in range(depth):
        node = {str(i): node if i == 0 else 0 for i in range(width)} if kind is dict else [node] + [0] * (width - 1)
    taken = taken_or_refused(json.dumps({**document, "model": {"x": node}}).encode())
    assert (taken is not None) == (depth + 2 < allowlist.DEPTH_LIMIT)


def test_a_refusal_that_quotes_half_a_character_can_still_be_told(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    first_layer(changed)["class_name"] = "Den\ud800se"
    with pytest.raises(CannotTravel) as raised:
        allowlist.check(json.dumps(changed).encode())
    assert msgspec.json.decode(msgspec.json.encode(str(raised.value))) == str(raised.value)
    assert "Den\\ud800se" in str(raised.value)


def test_a_name_that_is_no_unicode_is_refused_before_keras_makes_anything_of_it(document: dict[str, Any]) -> None:
    changed = copy.deepcopy(document)
    first_layer(changed)["config"]["name"] = "den\ud800se"
    with pytest.raises(CannotTravel, match="not Unicode"):
        allowlist.check(json.dumps(changed).encode())
    first_layer(changed)["config"]["name"] = "größe_😀"
    assert allowlist.check(json.dumps(changed).encode())
