"""Bytes that come in pieces of any size, read in pieces of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Stream:
    """Reads from an iterator of bytes; bytes can be looked at before they are read."""

    def __init__(
        self, pieces: Iterable[bytes], on_piece: Callable[[bytes], object] | None = None
    ) -> None:
        """`on_piece` is called once with each piece, when it comes."""
        self._pieces = iter(pieces)
        self._on_piece = on_piece
        self._ready = b""
        self._at = 0
        """Where in `_ready` the next byte is."""

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end."""
        while len(self._ready) - self._at < size and (piece := self._next()):
            self._ready, self._at = self._ready[self._at :] + piece, 0
        return self._ready[self._at : self._at + size]

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        if self._at == len(self._ready):
            self._ready, self._at = self._next(), 0
        data = self._ready[self._at : self._at + size]
        self._at += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        data = self.peek(size)
        self._at += len(data)
        return data

    def skip(self, size: int) -> int:
        """Read and drop bytes; return how many there were."""
        left = size
        while left and (data := self.read(min(left, 1 << 20))):
            left -= len(data)
        return size - left

    def put_back(self, data: bytes) -> None:
        """Give back bytes that were read last; they are read again next."""
        self._ready, self._at = data + self._ready[self._at :], 0

    def _next(self) -> bytes:
        piece = next(self._pieces, b"")
        if piece and self._on_piece is not None:
            self._on_piece(piece)
        return piece
