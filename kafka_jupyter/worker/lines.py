"""Bytes of a child's stdout or stderr → lines."""

from __future__ import annotations

from kafka_jupyter.protocol.rows import LINE_LIMIT

_BUFFER_LIMIT = 4 * LINE_LIMIT  # bytes kept of a line that does not end: a character has at most four


class Lines:
    """Splits at newlines; of a line that was drawn over with carriage returns (a progress bar) the last drawing is left."""

    def __init__(self) -> None:
        self._buffer = b""
        self._lost = 0

    def feed(self, data: bytes) -> list[str]:
        *whole, rest = data.split(b"\n")
        lines = []
        for piece in whole:
            self._add(piece)
            lines.append(self._take())
        self._add(rest)
        return lines

    def end(self) -> list[str]:
        return [self._take()] if self._buffer else []

    def _add(self, data: bytes) -> None:
        buffer = self._buffer + data
        drawn, _, last = buffer.rpartition(b"\r")
        if drawn and last:
            buffer, self._lost = last, 0
        self._lost += max(0, len(buffer) - _BUFFER_LIMIT)
        self._buffer = buffer[:_BUFFER_LIMIT]

    def _take(self) -> str:
        text = self._buffer.decode("utf-8", "replace").rstrip("\r")
        if len(text) > LINE_LIMIT or self._lost:
            mark = f" … ({max(0, len(text) - LINE_LIMIT) + self._lost} more)"
            text = text[: LINE_LIMIT - len(mark)] + mark
        self._buffer, self._lost = b"", 0
        return text
