"""Arrays ↔ bytes, without pickle: `.npy` for numbers, and for strings UTF-8 (or raw bytes) behind int64 offsets.

A stored array says itself what it is, so `load` needs nothing but the file. Numbers come back memory-mapped.

    strings:  magic b"\\x93KJSTR\\x01" | kind b"s" or b"b" | uint32 dimensions | int64 shape… | int64 offsets (count + 1) | bytes
"""

from __future__ import annotations

import io
import math
import os
import pathlib
import struct
import tokenize
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from kafka_jupyter.errors import CannotTravel, StoreError

Array = np.ndarray[Any, np.dtype[Any]]

SLICE = 4 << 20  # bytes of one piece that `chunks` hands out
_NPY = b"\x93NUMPY"
_STRINGS = b"\x93KJSTR\x01"
_HEAD = struct.Struct("<7scI")
_MAX_DIMENSIONS = 32


def chunks(array: Array) -> tuple[int, Iterator[memoryview]]:
    """The size in bytes of `array` as it is stored, and its bytes piece by piece; numbers are not copied.

    Raises CannotTravel for an array of Python objects other than strings.
    """
    if array.dtype.hasobject:
        pieces = _string_pieces(array)
    elif array.dtype.kind == "V":
        raise _refused(f"it has the structured type {array.dtype}", "Pass one array per field.")
    else:
        pieces = _number_pieces(array)
    return sum(piece.nbytes for piece in pieces), _slices(pieces)


def _slices(pieces: list[memoryview]) -> Iterator[memoryview]:
    for piece in pieces:
        for start in range(0, piece.nbytes, SLICE):
            yield piece[start : start + SLICE]


def _number_pieces(array: Array) -> list[memoryview]:
    body = np.asarray(array, order="C")  # not ascontiguousarray: that makes a 0-d array 1-d
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": np.lib.format.dtype_to_descr(body.dtype), "fortran_order": False, "shape": body.shape}
    )
    return [memoryview(head.getvalue()), body.reshape(-1).view(np.uint8).data]


def _string_pieces(array: Array) -> list[memoryview]:
    flat = array.reshape(-1)
    kinds = {type(item) for item in flat}
    if kinds <= {bytes, np.bytes_}:
        kind, encoded = b"b", list(flat)
    elif all(issubclass(item, str) for item in kinds):
        kind, encoded = b"s", [item.encode() for item in flat]
    else:
        foreign = ", ".join(sorted(item.__name__ for item in kinds if not issubclass(item, str)))
        raise _refused(f"it holds Python objects ({foreign}), which only pickle could carry", "Convert it to numbers or strings.")
    offsets = np.zeros(len(encoded) + 1, dtype="<i8")
    np.cumsum([len(item) for item in encoded], out=offsets[1:])
    head = _HEAD.pack(_STRINGS, kind, array.ndim) + np.asarray(array.shape, dtype="<i8").tobytes()
    return [memoryview(head), offsets.view(np.uint8).data, memoryview(b"".join(encoded))]


def _refused(why: str, way_out: str) -> CannotTravel:
    return CannotTravel(what="an array", where="the data of `fit`", why=why, way_out=way_out)


# What NumPy's reader of headers and our own raise for bytes of somebody else's.
_BROKEN = (
    ValueError, TypeError, KeyError, SyntaxError, tokenize.TokenError, OverflowError, RecursionError, MemoryError, struct.error, OSError,
    UserWarning,  # where warnings are errors: NumPy takes a broken header for one of Python 2
)  # fmt: skip


def load(path: str | os.PathLike[str]) -> Array:
    """The array in the file at `path`: numbers memory-mapped and read-only, strings as an object array of `str` or `bytes`.

    Raises StoreError for anything that `chunks` did not write: the file may come from anywhere.
    """
    file = pathlib.Path(path)
    try:
        with file.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            magic = source.read(max(len(_NPY), len(_STRINGS)))
            source.seek(0)
            if magic.startswith(_NPY):
                return _load_numbers(source, size)
            if magic == _STRINGS:
                return _load_strings(source, size)
            raise ValueError("it is neither .npy nor strings")
    except _BROKEN as error:
        raise StoreError(store=str(file.parent), detail=f"{file.name} is not an array that was stored here: {error}") from error


def _load_numbers(source: BinaryIO, size: int) -> Array:
    if np.lib.format.read_magic(source) != (1, 0):
        raise ValueError("an unknown .npy version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(source)
    if dtype.hasobject or dtype.kind == "V":
        raise ValueError(f"values of type {dtype}")
    _check_shape(shape)
    start = source.tell()
    if size - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{size - start} bytes of values instead of {math.prod(shape) * dtype.itemsize}")
    if size == start:  # nothing to map
        return np.empty(shape, dtype)
    mapped: Array = np.memmap(source.name, dtype, mode="r", offset=start, shape=shape, order="F" if fortran else "C")
    return mapped


def _load_strings(source: BinaryIO, size: int) -> Array:
    _, kind, dimensions = _HEAD.unpack(source.read(_HEAD.size))
    if kind not in b"sb" or dimensions > _MAX_DIMENSIONS:
        raise ValueError("a broken header")
    shape = tuple(int(n) for n in np.frombuffer(source.read(8 * dimensions), dtype="<i8"))
    _check_shape(shape)
    count = math.prod(shape)
    if len(shape) != dimensions or size - source.tell() < 8 * (count + 1):
        raise ValueError("a broken header")
    offsets = np.frombuffer(source.read(8 * (count + 1)), dtype="<i8")
    body = source.read()
    if offsets[0] != 0 or offsets[-1] != len(body) or (np.diff(offsets) < 0).any():
        raise ValueError("broken offsets")
    strings = np.empty(count, dtype=object)
    for i, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        item = body[start:end]
        strings[i] = item.decode() if kind == b"s" else item
    return strings.reshape(shape)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) > _MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("a broken shape")
