"""The order in which a run sees its rows: known from (seed, epoch) alone, so that any worker can go on with it.

Plain `fit(shuffle=True)` draws its order from a generator whose state nobody can carry. Everything else is Keras' own array adapter:
what it makes of sample weights, class weights, strings, ragged and sparse tensors, the batch size it derives from steps.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree
from keras.src.trainers.data_adapters import array_slicing  # what `fit` itself uses: no public names
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter
from keras.src.trainers.data_adapters.tf_dataset_adapter import TFDatasetAdapter
from tensorflow.python.data.ops.dataset_ops import UnaryUnchangedStructureDataset

from kafka_jupyter.models.data import Elements, steps_taken

Order = np.ndarray[Any, np.dtype[np.int64]]

# AutoGraph would rewrite the source of these functions at the start of every run, for nothing: 0.15 s.
_as_it_is = tf.autograph.experimental.do_not_convert


def order_of(seed: int, epoch: int, rows: int) -> Order:
    """The rows of a pass over the data that begins in `epoch` (counted from 0)."""
    return np.random.default_rng((seed, epoch)).permutation(rows)


class ShuffledArrays(ArrayDataAdapter):  # type: ignore[misc] # Keras has no types
    """Arrays in a new order each epoch: `model.fit(ShuffledArrays(x, y, seed=7), epochs=3)`.

    With `steps_per_epoch` a pass may last several epochs; its order is that of the epoch in which it began. `initial_epoch` must be
    that of the `fit` which gets this adapter, and the adapter serves that one `fit`.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        seed: int,
        initial_epoch: int = 0,
        batch_size: int | None = None,
        steps_per_epoch: int | None = None,
        class_weight: dict[int, float] | None = None,
    ) -> None:
        super().__init__(x, y, sample_weight, batch_size=batch_size, steps=steps_per_epoch, class_weight=class_weight)
        self._seed = seed
        self._epoch = initial_epoch - 1
        self._passes_begun = 0

    def on_epoch_begin(self) -> None:
        self._epoch += 1

    def get_tf_dataset(self) -> tf.data.Dataset:
        inputs = tree.lists_to_tuples(array_slicing.convert_to_sliceable(self._inputs, target_backend="tensorflow"))
        # Keras makes iterators ahead of time and throws some away. The order is therefore asked for when the first batch is read,
        # not when an iterator is made, and not by counting iterators.
        passes = tf.data.Dataset.range(1).map(_as_it_is(self._pass))
        indices = passes.flat_map(_as_it_is(self._batches))
        data = tf.data.Dataset.from_tensors(inputs).repeat()
        batches = tf.data.Dataset.zip((indices, data)).map(_as_it_is(_gather), num_parallel_calls=tf.data.AUTOTUNE)
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = False  # they would serialize the arrays with the graph
        return _Thrifty(batches.with_options(options).prefetch(tf.data.AUTOTUNE), lambda: self._passes_begun)

    def _pass(self, _: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(self._begin_pass, [], tf.int64), [self._num_samples])

    def _begin_pass(self) -> Order:
        self._passes_begun += 1
        return self._order()

    def _order(self) -> Order:
        return order_of(self._seed, self._epoch, self._num_samples)

    def _batches(self, order: tf.Tensor) -> tf.data.Dataset:
        """Cut by reshaping, as Keras does it: a `map` that slices costs twice as much at the start of each epoch."""
        whole = self._num_samples // self._batch_size * self._batch_size
        batches = tf.data.Dataset.from_tensor_slices(tf.reshape(order[:whole], [-1, self._batch_size]))
        if self.has_partial_batch:
            batches = batches.concatenate(tf.data.Dataset.from_tensors(order[whole:]))
        return batches


class _Thrifty(UnaryUnchangedStructureDataset):  # type: ignore[misc] # TensorFlow has no types
    """Gives an iterator that nobody has read from once more: Keras makes one behind each epoch, throws it away and makes another.

    One costs 11 ms to make, where two batches cost 2 ms to read. `reads`: how often somebody has begun to read from one.
    """

    def __init__(self, dataset: tf.data.Dataset, reads: Callable[[], int]) -> None:
        super().__init__(dataset, dataset._variant_tensor)
        self._reads = reads
        self._made: tuple[int, Any] | None = None

    def __iter__(self) -> Any:
        if self._made is None or self._made[0] != self._reads():
            self._made = (self._reads(), super().__iter__())
        return self._made[1]


@dataclasses.dataclass(frozen=True)
class Passes:
    """Which batches of the data each epoch takes. `batches`: of one whole pass. `at_once`: how many Keras takes in one execution.

    As Keras has it: without `steps_per_epoch` every epoch is a pass; with it a pass goes on in the next epoch, and an epoch in which
    it is used up ends early. Here known from the epoch alone, so that a training can begin anywhere.
    """

    batches: int
    steps_per_epoch: int | None = None
    initial_epoch: int = 0
    at_once: int = 1

    @property
    def steps(self) -> int:
        """The most batches that an epoch has."""
        return min(steps_taken(self.steps_per_epoch or self.batches, self.at_once), self.batches)

    def of(self, epoch: int) -> tuple[int, int, int]:
        """(epoch in which the pass began, first batch, number of batches)."""
        since = (epoch - self.initial_epoch) % math.ceil(self.batches / self.steps)
        first = since * self.steps
        return epoch - since, first, min(self.steps, self.batches - first)


class ResumedArrays(ShuffledArrays):
    """As `ShuffledArrays`, or arrays in their own order, from batch `skip` of epoch `initial_epoch` on. Epochs may be shorter than
    `num_batches` says: whoever runs them ends them (training/resume.py)."""

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        seed: int | None,
        initial_epoch: int,
        skip: int,
        passes: Callable[[int], Passes],
        batch_size: int | None = None,
        steps_per_epoch: int | None = None,
        class_weight: dict[int, float] | None = None,
    ) -> None:
        """`seed` None: the order of the arrays themselves. `passes`: from the number of batches."""
        super().__init__(
            x,
            y,
            sample_weight,
            seed=seed or 0,
            initial_epoch=initial_epoch,
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            class_weight=class_weight,
        )
        self._shuffled = seed is not None
        self._from = (initial_epoch, skip)
        self.passes = passes(self._size)

    @property
    def num_batches(self) -> int:
        return self.passes.steps

    def _pass(self, _: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(self._begin_pass, [], tf.int64), [None])

    def _order(self) -> Order:
        began, first, count = _rest(self.passes, self._epoch, self._from)
        order = order_of(self._seed, began, self._num_samples) if self._shuffled else np.arange(self._num_samples)
        return order[first * self._batch_size : (first + count) * self._batch_size]

    def _batches(self, order: tf.Tensor) -> tf.data.Dataset:
        size = tf.shape(order, tf.int64)[0]
        whole = size // self._batch_size * self._batch_size
        batches = tf.data.Dataset.from_tensor_slices(tf.reshape(order[:whole], [-1, self._batch_size]))
        if self.has_partial_batch:
            batches = batches.concatenate(tf.data.Dataset.from_tensors(order[whole:]).take(tf.cast(size > whole, tf.int64)))
        return batches


class ResumedElements(TFDatasetAdapter):  # type: ignore[misc] # Keras has no types
    """The elements of a stored dataset from batch `skip` of epoch `initial_epoch` on; else as `ResumedArrays`."""

    def __init__(self, elements: Elements, passes: Passes, initial_epoch: int, skip: int, class_weight: dict[int, float] | None) -> None:
        self.passes = passes
        self._epoch, self._from = initial_epoch - 1, (initial_epoch, skip)
        super().__init__(elements.dataset(self._rows), class_weight=class_weight)

    @property
    def num_batches(self) -> int:
        return self.passes.steps

    def on_epoch_begin(self) -> None:
        self._epoch += 1

    def _rows(self) -> range:
        _, first, count = _rest(self.passes, self._epoch, self._from)
        return range(first, first + count)


class OwnBatches(PyDatasetAdapter):  # type: ignore[misc] # Keras has no types
    """The batches of a person's PyDataset, in an order that is known from (seed, epoch); with `place`, from there on, else as `fit` has it.

    What the PyDataset does at the beginning and the end of an epoch is done again for those that lie behind `place`; what is random in its
    `__getitem__` is not.
    """

    def __init__(
        self, x: Any, passes: Passes, seed: int | None, place: tuple[int, int] | None, class_weight: dict[int, float] | None
    ) -> None:
        """`seed` None: in its own order."""
        super().__init__(x, class_weight=class_weight)
        self.enqueuer = None  # its order would be drawn from a generator whose state nobody can carry
        self.passes = passes
        self._seed, self._place = seed, place
        self._epoch = (place[0] if place else passes.initial_epoch) - 1
        for _ in range(passes.initial_epoch, self._epoch + 1):
            x.on_epoch_begin()
            x.on_epoch_end()

    @property
    def num_batches(self) -> int | None:
        if self._place is None:
            count: int | None = self.py_dataset.num_batches
            return count
        return self.passes.steps

    def on_epoch_begin(self) -> None:
        if self._within_epoch:  # an epoch that was cut short (training/resume.py) ends without a word
            self.on_epoch_end()
        self._epoch += 1
        super().on_epoch_begin()

    def _get_iterator(self) -> Iterator[Any]:
        began, first, count = self._epoch, 0, self.passes.batches
        if self._place is not None:
            began, first, count = _rest(self.passes, self._epoch, self._place)
        shuffled = self._seed is not None and self.py_dataset.num_batches is not None
        order = order_of(self._seed or 0, began, self.passes.batches) if shuffled else np.arange(self.passes.batches)
        yield from map(self._standardize_batch, _read(self.py_dataset, order[first : first + count]))


def _read(batches: Any, order: Order) -> Iterator[Any]:
    """In this order, so many ahead as the PyDataset itself says."""
    if batches.workers <= 1:
        yield from (batches[int(i)] for i in order)
        return
    with concurrent.futures.ThreadPoolExecutor(batches.workers, "kafka_jupyter-batches") as pool:
        ahead: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
        for i in order:
            ahead.append(pool.submit(batches.__getitem__, int(i)))
            if len(ahead) > max(1, batches.max_queue_size):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _rest(passes: Passes, epoch: int, begun: tuple[int, int]) -> tuple[int, int, int]:
    """As `Passes.of`, without what the first epoch had done before it was cut."""
    began, first, count = passes.of(max(epoch, begun[0]))  # somebody may look at the first batch before it has begun
    skip = begun[1] if epoch <= begun[0] else 0
    return began, first + skip, count - skip


def _gather(rows: tf.Tensor, data: Any) -> Any:
    def pick(part: Any) -> Any:
        if isinstance(part, array_slicing.TensorflowSparseWrapper):
            return array_slicing.slice_tensorflow_sparse_wrapper(part, rows)
        if isinstance(part, (list, tuple, dict)):
            return None  # go on inside
        return tf.gather(part, rows, axis=0) if tf.is_tensor(part) else part

    return tree.traverse(pick, data)
