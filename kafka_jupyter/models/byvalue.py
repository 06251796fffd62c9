"""Live Keras objects, and the code that a person wrote for them, ↔ bytes: for `--trust code` only.

What travels as data is rebuilt from its configuration (describe, rebuild); user code need not have one. So its objects are pickled as they
stand, by cloudpickle, which takes classes and functions of a notebook by value. Keras' own pickling goes by configuration, too; here each
Keras object is its attributes instead, with the few of them that belong to a process made anew:

    variables       shape, type and name; the value too, unless it travels beside (models/state.py)
    graphs          operations in the order of the graph, so that a deep model needs no deep stack; outbound nodes are drawn again
    optimizers      which slot belongs to which variable is told by TensorFlow's names, which differ in every process
    tf.function     from its Python function
    lookups         from their configuration, vocabulary included: their tables are TensorFlow's resources
    ids of objects  (in trackers, and of a graph's nodes) anew

`load` runs whatever the bytes say. It is called in a child only, for a task that a key with the role `code` has signed.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import pickle
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import cloudpickle
import keras
import tensorflow as tf
from keras.src.backend import Variable  # keras.Variable is this class under another name
from keras.src.models.functional import Functional
from keras.src.ops.function import Function, make_node_key
from keras.src.ops.operation import Operation
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.utils.backend_utils import DynamicBackend
from keras.src.utils.tracking import TrackedDict, TrackedList, TrackedSet, Tracker
from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function as TensorflowFunction

_TRACES = frozenset({"train_function", "test_function", "predict_function"})  # made anew by the first `fit`
_MADE_ANEW = frozenset({"build", "quantize", "_outbound_nodes"})  # wrappers that Keras puts on every layer when it is made; see _restore
_CHECKPOINTING = "_self_"  # TensorFlow's own, of which SavedModel alone has any use
_LOOKUPS = (keras.layers.StringLookup, keras.layers.IntegerLookup, keras.layers.TextVectorization)
_TRACKED = {TrackedList: list, TrackedDict: dict, TrackedSet: set}
_INSTALLED = tuple({os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})
STACK = 256 << 20  # bytes, of the thread that pickles
_RECURSION = 50_000

Visitor = Callable[[Any], None]


class Untransportable(Exception):
    """An object that cannot be pickled; `why` as a person is told."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what, self.why = what, why


def dump(
    things: Mapping[str, Any], beside: Iterable[Any] = (), known: Mapping[int, Any] | None = None, visit: Visitor | None = None
) -> bytes:
    """All of `things`, with what they share. `beside`: variables whose values travel elsewhere. `known`: id → a token, of objects that the
    other side has already (a model that was rebuilt from data). `visit` is shown each object that is met, and may raise.

    Raises Untransportable, or whatever an object raises that does not want to be pickled.
    """
    data: bytes = _with_room(lambda: _dump(things, {id(variable) for variable in beside}, known or {}, visit or (lambda _: None)))
    return data


def load(data: bytes, known: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """What `dump` was given. `known`: token → object. Runs what the bytes say."""
    things: dict[str, Any] = _with_room(lambda: _load(data, known))
    return things


def tokens(model: keras.Model) -> dict[int, Any]:
    """`known` of `dump`, for a model that the other side builds itself: the model, its layers, its optimizer and its variables."""
    parts = {id(layer): ("layer", i) for i, layer in enumerate(model._flatten_layers())}
    variables = {id(variable): ("variable", i) for i, variable in enumerate(model.variables)}
    return variables | parts | {id(model): ("model",)} | ({} if model.optimizer is None else {id(model.optimizer): ("optimizer",)})


def known_in(model: keras.Model) -> Callable[[Any], Any]:
    """`known` of `load`: what `tokens` named, in the model that was built here."""

    def known(token: Any) -> Any:
        match token:
            case ("model",):
                return model
            case ("optimizer",):
                return model.optimizer
            case ("layer", int(i)):
                return model._flatten_layers()[i]
            case ("variable", int(i)):
                return model.variables[i]
        raise pickle.UnpicklingError(f"nothing is known as {token!r}")

    return known


def _dump(things: Mapping[str, Any], beside: set[int], known: Mapping[int, Any], visit: Visitor) -> bytes:
    out = io.BytesIO()
    pickler = _Pickler(out, beside, known, visit)
    pickler.variables = [v for thing in things.values() if isinstance(thing, keras.Layer) for v in thing.variables]
    pickler.dump({"order": list(_in_order(things.values())), "things": dict(things)})  # type: ignore[no-untyped-call]  # cloudpickle has no types
    sources = {name: linecache.getlines(name) for name in pickler.files}
    return pickle.dumps((out.getvalue(), {name: "".join(lines) for name, lines in sources.items() if lines}))


def _load(data: bytes, known: Callable[[Any], Any] | None) -> dict[str, Any]:
    inner, sources = pickle.loads(data)
    for name, text in sources.items():  # a traceback shows the line, and AutoGraph needs it
        linecache.cache.setdefault(name, (len(text), None, text.splitlines(keepends=True), name))
    with _loading() as made:
        unpickler = _Unpickler(io.BytesIO(inner))
        unpickler.known = known
        things: dict[str, Any] = unpickler.load()["things"]
    for thing in made:
        if isinstance(thing, Operation):
            _draw_outbound(thing)
        if isinstance(thing, keras.optimizers.Optimizer):
            _settle_optimizer(thing)
        if isinstance(thing, Function):
            nodes = (node for level in thing._nodes_by_depth.values() for node in level)
            vars(thing)["_nodes"] = {make_node_key(node.operation, node.operation._inbound_nodes.index(node)) for node in nodes}
        if isinstance(thing, Tracker):
            thing.stored_ids = {name: set(map(id, stored)) for name, (_, stored) in thing.config.items()}
    return things


def _in_order(things: Iterable[Any]) -> Iterator[Any]:
    """The operations of all graphs, inner ones first, each behind those that it takes its inputs from."""
    for thing in things:
        if isinstance(thing, keras.Layer):
            for part in reversed(thing._flatten_layers()):
                graph = part if isinstance(part, Functional) else getattr(part, "_functional", None)
                if isinstance(graph, Functional):
                    for depth in sorted(graph._operations_by_depth, reverse=True):
                        yield from graph._operations_by_depth[depth]


class _Pickler(cloudpickle.Pickler):
    def __init__(self, out: io.BytesIO, beside: set[int], known: Mapping[int, Any], visit: Visitor) -> None:
        super().__init__(out)  # type: ignore[no-untyped-call]  # cloudpickle has no types
        self._beside, self._known, self._visit = beside, known, visit
        self.files: set[str] = set()  # in which the code stands that travels
        self.variables: list[Any] = []  # that an optimizer may speak of

    def persistent_id(self, thing: Any) -> Any:
        return self._known.get(id(thing))

    def reducer_override(self, thing: Any) -> Any:
        self._visit(thing)
        reduced = self._of_keras(thing)
        if reduced is not None:
            return reduced
        if isinstance(thing, io.IOBase) and thing not in (sys.stdout, sys.stderr):
            raise Untransportable(f"an open file ({getattr(thing, 'name', type(thing).__name__)})", "it is open here")
        if isinstance(thing, types.FunctionType) and not goes_by_name(thing) and not is_installed(thing.__code__.co_filename):
            self.files.add(thing.__code__.co_filename)
        return super().reducer_override(thing)  # type: ignore[no-untyped-call]  # cloudpickle has no types

    def _of_keras(self, thing: Any) -> Any:
        kind = type(thing)
        if isinstance(thing, Variable):
            return _new, (kind,), self._variable(thing), None, None, _restore_variable
        for tracked, plain in _TRACKED.items():
            if isinstance(thing, tracked):
                return _new, (kind,), (plain(thing), dict(vars(thing))), None, None, _restore_tracked
        if isinstance(thing, _LOOKUPS):
            return _lookup, (kind, _configuration(thing))
        if isinstance(thing, KerasSaveable):
            return _new, (kind,), _attributes(thing, self.variables), None, None, _restore
        if isinstance(thing, keras.callbacks.Callback):
            state = {name: value for name, value in vars(thing).items() if name not in ("_model", "params")}
            return _new, (kind,), state, None, None, _restore_callback
        if isinstance(thing, Tracker):
            return _new, (kind,), {name: value for name, value in vars(thing).items() if name != "stored_ids"}, None, None, _restore
        if isinstance(thing, DynamicBackend):
            return DynamicBackend, (thing._backend,)
        return _of_tensorflow(thing)

    def _variable(self, variable: Any) -> dict[str, Any]:
        state = {name: value for name, value in vars(variable).items() if name != "_value" and _lasts(name)}
        if variable._value is not None:
            state["_initializer"] = None
            state["$value"] = (tuple(variable.shape), variable.value.dtype.name) if id(variable) in self._beside else variable.value.numpy()
        return state


def _of_tensorflow(thing: Any) -> Any:
    if isinstance(thing, TensorflowFunction):
        options = {"autograph": thing._autograph, "jit_compile": thing._jit_compile, "reduce_retracing": thing._reduce_retracing}
        return _tensorflow_function, (thing.python_function, thing.input_signature, options)
    if isinstance(thing, tf.Variable):
        return _tensorflow_variable, (thing.numpy(), thing.dtype.name, thing.trainable, thing.name.partition(":")[0])
    if isinstance(thing, tf.Tensor):
        if not hasattr(thing, "numpy"):
            raise Untransportable(f"a symbolic tensor ({thing.name})", "it belongs to a graph that was traced here")
        if thing.dtype in (tf.resource, tf.variant):
            raise Untransportable("a resource of TensorFlow", "it lives in this process")
        return _tensor, (thing.numpy(), thing.dtype.name)
    if isinstance(thing, tf.distribute.Strategy):
        if thing is not tf.distribute.get_strategy():
            raise Untransportable(f"a {type(thing).__name__}", "it belongs to the devices of this machine")
        return tf.distribute.get_strategy, ()
    if isinstance(thing, tf.data.Dataset):
        raise Untransportable("a tf.data.Dataset", "it lives in this process")
    return None


class _Unpickler(pickle.Unpickler):
    known: Callable[[Any], Any] | None = None

    def persistent_load(self, token: Any) -> Any:
        if self.known is None:
            raise pickle.UnpicklingError(f"nothing is known as {token!r}")
        return self.known(token)


# --- what the bytes call. Their names are part of the format: both sides have the same version.

_state = threading.local()


@contextlib.contextmanager
def _loading() -> Iterator[list[Any]]:
    """Collects the Keras objects that are made meanwhile, in this thread."""
    made: list[Any] = []
    _state.made = made
    try:
        yield made
    finally:
        _state.made = []


def _new(kind: type) -> Any:
    """Without `__init__`. A layer gets the wrappers around `build` and `quantize` that `Layer.__new__` puts on each."""
    if issubclass(kind, keras.Layer):
        return keras.Layer.__new__(kind)
    base = next(base for base in (list, dict, set, object) if issubclass(kind, base))
    return base.__new__(kind)


def _restore(thing: Any, state: dict[str, Any]) -> None:
    vars(thing).update(state)
    if isinstance(thing, Operation):
        vars(thing)["_outbound_nodes"] = []
    _state.made.append(thing)


def _restore_callback(thing: Any, state: dict[str, Any]) -> None:
    vars(thing).update(state, _model=None, params=None)


def _restore_tracked(thing: Any, state: tuple[Any, dict[str, Any]]) -> None:
    values, attributes = state
    if isinstance(thing, list):
        list.extend(thing, values)
    elif isinstance(thing, dict):
        dict.update(thing, values)
    else:
        set.update(thing, values)
    vars(thing).update(attributes)


def _restore_variable(thing: Any, state: dict[str, Any]) -> None:
    value = state.pop("$value", None)
    vars(thing).update(state, _value=None)
    if value is not None:
        with tf.init_scope():
            thing._initialize(tf.zeros(*value) if isinstance(value, tuple) else tf.constant(value))


def _lookup(kind: Any, config: dict[str, Any]) -> Any:
    return kind.from_config(config)


def _tensorflow_function(function: Any, signature: Any, options: dict[str, Any]) -> Any:
    return tf.function(function, input_signature=signature, **options)


def _tensorflow_variable(value: Any, dtype: str, trainable: bool, name: str) -> tf.Variable:
    return tf.Variable(value, dtype=dtype, trainable=trainable, name=name)


def _tensor(value: Any, dtype: str) -> tf.Tensor:
    return tf.constant(value, dtype)


# --- helpers


def is_installed(file: str) -> bool:
    """Whether it comes with Python or a package."""
    return os.path.realpath(file).startswith(_INSTALLED)


def goes_by_name(thing: Any) -> bool:
    """Whether a class, function or module is only named in the bytes: the other side has to import it."""
    return bool(cloudpickle.cloudpickle._should_pickle_by_reference(thing))


def _attributes(thing: Any, variables: list[Any]) -> dict[str, Any]:
    state = {name: None if name in _TRACES else value for name, value in vars(thing).items() if _lasts(name)}
    if isinstance(thing, Function):
        state.pop("_nodes", None)
    if isinstance(thing, keras.optimizers.Optimizer):
        if "_trainable_variables_indices" in state:
            state["_trainable_variables_indices"] = {}
        excluded = state.pop("_exclude_from_weight_decay", None)
        state.pop("_exclude_from_weight_decay_cache", None)
        if excluded:
            state["$excluded"] = [v for v in variables if thing._var_key(v) in excluded]
    return state


def _lasts(name: str) -> bool:
    return name not in _MADE_ANEW and not name.startswith(_CHECKPOINTING)


def _settle_optimizer(optimizer: Any) -> None:
    state = vars(optimizer)
    if "_trainable_variables_indices" in state:
        state["_trainable_variables_indices"] = {
            optimizer._var_key(v): i for i, v in enumerate(getattr(optimizer, "_trainable_variables", ()))
        }
    if (excluded := state.pop("$excluded", None)) is not None:
        state["_exclude_from_weight_decay"] = {optimizer._var_key(v) for v in excluded}


def _draw_outbound(operation: Operation) -> None:
    for node in operation._inbound_nodes:
        for tensor in node.arguments.keras_tensors:
            tensor._keras_history.operation._outbound_nodes.append(node)


def _configuration(lookup: Any) -> dict[str, Any]:
    from kafka_jupyter.models.describe import learned  # it imports nothing of ours

    config: dict[str, Any] = lookup.get_config()
    vocabulary, idf = learned(lookup)
    return config | ({"vocabulary": vocabulary, "idf_weights": idf} if vocabulary else {})


def _with_room(work: Callable[[], Any]) -> Any:
    """Runs it where it may recurse deeply: objects refer to objects that refer to objects. Python gives no thread a larger stack later."""
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001  # raised again where it belongs
            failure.append(error)

    size, limit = threading.stack_size(STACK), sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION))
    try:
        thread = threading.Thread(target=run, name="kafka_jupyter-pickle")
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    sys.setrecursionlimit(limit)
    if failure:
        raise failure[0]
    return outcome[0]
