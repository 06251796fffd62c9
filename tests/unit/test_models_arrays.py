from __future__ import annotations

import contextlib
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kafka_jupyter.errors import CannotTravel, StoreError
from kafka_jupyter.store import arrays


def through_a_file(array: np.ndarray[Any, Any], folder: pathlib.Path) -> np.ndarray[Any, Any]:
    size, pieces = arrays.chunks(array)
    file = folder / "array"
    file.write_bytes(b"".join(pieces))
    assert file.stat().st_size == size
    return arrays.load(file)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype="float32").reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(24)[::2],
        np.array(3.5),
        np.empty((0, 7), dtype="int16"),
        np.array([True, False]),
        np.arange(4, dtype=">i4"),
        np.array(["a", "äöü"]),
        np.array([b"x", b"yy"]),
        np.array(["one", "", "zwölf 🜚"], dtype=object),
        np.array([[b"\xff\x00", b""]], dtype=object),
        np.empty((0,), dtype=object),
    ],
    ids=lambda a: f"{a.dtype}-{a.shape}",
)
def test_an_array_comes_back_as_it_was(array: np.ndarray[Any, Any], tmp_path: pathlib.Path) -> None:
    back = through_a_file(array, tmp_path)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.array_equal(back, array)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=hnp.arrays(dtype=st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes()), shape=hnp.array_shapes(min_dims=0, min_side=0)))
def test_any_numbers_come_back_bit_for_bit(array: np.ndarray[Any, Any], tmp_path: pathlib.Path) -> None:
    back = through_a_file(array, tmp_path)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_numbers_are_memory_mapped_and_not_copied_on_the_way_out(tmp_path: pathlib.Path) -> None:
    array = np.arange(1000.0)
    _, pieces = arrays.chunks(array)
    assert any(np.shares_memory(np.frombuffer(piece, dtype=np.uint8), array) for piece in pieces if len(piece))
    assert isinstance(through_a_file(array, tmp_path), np.memmap)


def test_objects_other_than_strings_are_refused_by_name() -> None:
    with pytest.raises(CannotTravel, match="dict"):
        arrays.chunks(np.array(["a", {}], dtype=object))


def test_a_pickled_array_is_not_loaded(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match=r"evil\.npy"):
        arrays.load(tmp_path / "evil.npy")


def test_a_header_that_is_no_python_at_all_is_refused(tmp_path: pathlib.Path) -> None:
    broken = bytearray(b"".join(arrays.chunks(np.arange(6.0))[1]))
    broken[10] = 128  # its first character: NumPy then tries the tokens of Python 2
    (tmp_path / "broken.npy").write_bytes(broken)
    with pytest.raises(StoreError, match=r"broken\.npy"):
        arrays.load(tmp_path / "broken.npy")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_one_clear_error_or_still_an_array(data: st.DataObject, tmp_path: pathlib.Path) -> None:
    array = data.draw(st.sampled_from([np.arange(6.0).reshape(2, 3), np.array(["ab", "c"], dtype=object)]))
    good = bytearray(b"".join(arrays.chunks(array)[1]))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path / "damaged"
    file.write_bytes(good[: data.draw(st.integers(0, len(good)))])
    with contextlib.suppress(StoreError):  # the only error that may come out
        arrays.load(file)
