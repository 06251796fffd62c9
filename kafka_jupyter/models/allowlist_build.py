"""Writes `allowlist.json` from the Keras that is installed: `python -m kafka_jupyter.models.allowlist_build`."""

from __future__ import annotations

import inspect
import json
import pathlib
import re
from typing import Any

import keras
from keras.src import api_export
from keras.src.models.functional import Functional
from keras.src.ops.function import Function
from keras.src.ops.operation import Operation

# Code, files or foreign frameworks hide in these, or they are bases to be subclassed.
REFUSED = frozenset({"Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "Layer", "Model", "Loss", "Metric"})
REFUSED_MODULES = frozenset({"keras._legacy.layers", "keras.distillation", "keras.utils"})
BASES: tuple[type, ...] = (
    keras.layers.Layer,
    keras.losses.Loss,
    keras.metrics.Metric,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.quantizers.Quantizer,
    keras.random.SeedGenerator,
    keras.dtype_policies.DTypePolicy,
    keras.dtype_policies.DTypePolicyMap,
)
FUNCTION_MODULES = frozenset({"activations", "losses", "metrics", "ops"})
# These call a function that is named in their arguments.
CALLING = frozenset(
    {"map", "scan", "associative_scan", "vectorized_map", "vectorize", "fori_loop", "while_loop", "cond", "switch", "custom_gradient"}
)


def build() -> dict[str, Any]:
    classes: dict[str, set[str]] = {Functional.__module__: {"Functional"}}
    functions: set[str] = set()
    for name, thing in sorted(api_export.REGISTERED_NAMES_TO_OBJS.items()):
        module, _, last = name.rpartition(".")
        if isinstance(thing, type) and issubclass(thing, BASES):
            if last not in REFUSED and module not in REFUSED_MODULES and name == api_export.get_name_from_symbol(thing):
                classes.setdefault(module, set()).add(last)
        elif inspect.isfunction(thing) and name.count(".") == 2 and module.split(".")[1] in FUNCTION_MODULES:
            functions.add(last)
    for operation in _below(Operation):
        module, name = operation.__module__, operation.__name__
        if module.startswith("keras.src.ops.") and module != Function.__module__ and _snake(name) not in CALLING:
            classes.setdefault(module, set()).add(name)
    return {
        "keras": keras.__version__,
        "classes": {module: sorted(found) for module, found in sorted(classes.items())},
        "functions": sorted(functions - CALLING - {"get", "serialize", "deserialize"}),
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _below(base: type) -> list[type]:
    direct: list[type] = list(base.__subclasses__())
    return direct + [cls for child in direct for cls in _below(child)]


if __name__ == "__main__":
    file = pathlib.Path(__file__).with_name("allowlist.json")
    file.write_text(json.dumps(build(), indent=1) + "\n", "utf-8")
