"""What cannot travel is refused in the cell: the message names the object, where it stands, and the way out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kafka_jupyter.errors import CannotTravel
from kafka_jupyter.models.capture import capture_fit
from tests.capture import cases

REFUSED: list[tuple[str, Callable[[], Any], list[str]]] = []


def refused(*named: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def keep(build: Callable[[], Any]) -> Callable[[], Any]:
        REFUSED.append((build.__name__, build, list(named)))
        return build

    return keep


class OwnLayer(layers.Dense):
    pass


class OwnModel(keras.Model):
    def call(self, x: Any) -> Any:
        return x


class OwnLoss(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


class OwnMetric(keras.metrics.Mean):
    pass


class OwnOptimizer(keras.optimizers.SGD):
    pass


class OwnCallback(keras.callbacks.Callback):
    pass


class OwnStopping(keras.callbacks.EarlyStopping):
    pass


class OwnInitializer(keras.initializers.Initializer):
    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return keras.ops.zeros(shape, dtype)


class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step: Any) -> Any:
        return 0.1


class OwnSequence(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return cases.rows(8, 6), cases.labels(8)


def relu(x: Any) -> Any:
    return x * 0


def own_loss(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(y_true - y_pred)


def with_layer(layer: Any) -> Any:
    return cases.classified(cases.mlp(layer)), cases.classes()


def compiled(**arguments: Any) -> Any:
    model = cases.mlp()
    model.compile(**{"optimizer": "sgd", "loss": "mse", **arguments})
    return model, cases.regression()


def data(**arguments: Any) -> Any:
    return cases.classified(cases.mlp()), cases.classes(**arguments)


refused("layer 'own'", "OwnLayer", "2nd layer")(lambda: with_layer(OwnLayer(4, name="own")))
refused("layer 'twist'", "2nd layer", "keras.ops")(lambda: with_layer(layers.Lambda(lambda x: x, name="twist")))
refused("lambda", "layer 'act'", "activation")(lambda: with_layer(layers.Dense(4, activation=lambda x: x, name="act")))
refused("'relu'", "only shares its name", "layer 'act'")(lambda: with_layer(layers.Dense(4, activation=relu, name="act")))
refused("'gelu'", "layer 'act'", "another function")(lambda: with_layer(layers.Dense(4, activation=keras.ops.gelu, name="act")))
refused("OwnInitializer", "layer 'init'")(lambda: with_layer(layers.Dense(4, kernel_initializer=OwnInitializer(), name="init")))
refused("lambda", "layer 'reg'")(lambda: with_layer(layers.Dense(4, kernel_regularizer=lambda w: 0.0, name="reg")))
refused("OwnModel")(lambda: cases_model(OwnModel()))
refused("OwnLoss", "loss")(lambda: compiled(loss=OwnLoss()))
refused("'own_loss'", "loss")(lambda: compiled(loss=own_loss))
refused("partial", "loss")(lambda: compiled(loss=functools.partial(keras.losses.huber, delta=2.0)))
refused("OwnMetric", "metrics")(lambda: compiled(metrics=["mae", OwnMetric()]))
refused("'own_loss'", "metrics")(lambda: compiled(weighted_metrics=[own_loss]))
refused("'own_loss'", "metrics")(lambda: compiled(metrics=[keras.metrics.MeanMetricWrapper(own_loss)]))
refused("OwnOptimizer", "optimizer")(lambda: compiled(optimizer=OwnOptimizer()))
refused("OwnSchedule", "optimizer")(lambda: compiled(optimizer=keras.optimizers.SGD(OwnSchedule())))
refused("OwnCallback", "callbacks[1]")(lambda: data(callbacks=[keras.callbacks.TerminateOnNaN(), OwnCallback()]))
refused("OwnStopping", "callbacks[0]")(lambda: data(callbacks=OwnStopping()))
refused("LambdaCallback", "callbacks[0]")(lambda: data(callbacks=[keras.callbacks.LambdaCallback()]))
refused("LearningRateScheduler")(lambda: data(callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)]))
refused("generator", "x", "tf.data.Dataset")(lambda: data(x=(i for i in range(3)), y=None))
refused("OwnSequence", "x", "tf.data.Dataset")(lambda: data(x=OwnSequence(), y=None))
refused("int", "x[0][1]", "np.asarray")(lambda: data(x=[[np.ones(3), 2]]))
refused("Python objects (dict)", "y")(lambda: data(y=np.array([{}] * 50, dtype=object)))
refused("endless", "x", "steps_per_epoch")(lambda: data(x=tf.data.Dataset.range(3).repeat(), y=None))
refused("unknown length", "x", "assert_cardinality")(lambda: data(x=tf.data.Dataset.range(9).filter(lambda i: i > 3), y=None))
refused("endless", "validation_data")(lambda: data(validation_data=tf.data.Dataset.range(3).repeat()))
refused("CSVLogger", "'../../{epoch.__class__}.csv'")(lambda: data(callbacks=[keras.callbacks.CSVLogger("../../{epoch.__class__}.csv")]))


def cases_model(model: Any) -> Any:
    model.compile("sgd", "mse")
    return model, cases.regression()


@refused("layer 'body'", "method call", "replaced on this object")
def a_method_replaced_on_a_layer() -> Any:
    model, given = with_layer(layers.Dense(8, name="body"))
    model.get_layer("body").call = lambda x: x
    return model, given


@refused("train_step", "replaced on this object")
def a_method_replaced_on_the_model() -> Any:
    model, given = data()
    model.train_step = lambda batch: {}
    return model, given


@refused("layer 'shared'", "two nested models share it")
def a_layer_shared_by_two_nested_models() -> Any:
    shared = layers.Dense(6, name="shared")
    x = keras.Input((6,))
    left, right = (keras.Sequential([keras.Input((6,)), shared, layers.Dense(3)]) for _ in range(2))
    return cases.classified(keras.Model(x, layers.Add()([left(x), right(x)]))), cases.classes()


@pytest.mark.parametrize(("build", "named"), [case[1:] for case in REFUSED], ids=[f"{i}-{case[2][0]}" for i, case in enumerate(REFUSED)])
def test_it_is_refused_by_name_place_and_way_out(build: Callable[[], Any], named: list[str]) -> None:
    model, given = build()
    with pytest.raises(CannotTravel) as raised:
        capture_fit(model, (), given)
    message = str(raised.value)
    assert [part for part in named if part not in message] == []
    assert raised.value.fields["way_out"]
    assert len(message) < 500


def test_a_method_replaced_in_a_keras_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = data()
    monkeypatch.setattr(layers.Dense, "call", lambda self, x, training=None: x)
    with pytest.raises(CannotTravel, match=r"Dense\.call"):
        capture_fit(model, (), given)


def test_an_uncompiled_model_gets_the_error_of_keras() -> None:
    with pytest.raises(ValueError, match="compile"):
        capture_fit(cases.mlp(), (cases.rows(4, 6), cases.rows(4, 3)), {})


@pytest.mark.parametrize("more", [{"validation_split": 0.2}, {"y": np.ones((9, 3))}, {"sample_weight": np.ones(9)}])
def test_what_fit_does_not_take_beside_a_dataset_gets_the_error_of_keras(more: dict[str, Any]) -> None:
    model, _ = data()
    given = {"x": tf.data.Dataset.from_tensor_slices((cases.rows(9, 6), cases.labels(9))).batch(3), "shuffle": False, **more}
    with pytest.raises(ValueError) as theirs:
        model.fit(**given, verbose=0)
    with pytest.raises(ValueError) as ours:
        capture_fit(model, (), given)
    assert str(ours.value) == str(theirs.value)
    assert capture_fit(model, (), given | dict.fromkeys(more)).rows == 9


def test_a_wrong_argument_of_fit_is_the_normal_python_error() -> None:
    model, _ = data()
    with pytest.raises(TypeError, match="epoch_count"):
        capture_fit(model, (), {"epoch_count": 3})
