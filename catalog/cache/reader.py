"""One open image that is read through the block cache.

`strict` waits for the whole chunk and compares its digest before it returns a byte.  `lazy` answers
a small random read with unverified bytes from the store, and lets the chunk be fetched and
verified in the background.  Bytes that are read in order, or a second time, are verified with
`lazy`, too.  Threading: any.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum

from catalog.cache.open_image import OpenImage
from catalog.cache.pool import Urgency
from catalog.cache.window import MAX_RUNS, RUN, Pattern, Window
from catalog.stores.base import Data

_SMALL = 512 << 10
"""Bytes of the largest read that `lazy` answers at once."""
_WINDOW_IN_MEMORY = 2
"""Chunks to read ahead while nothing goes to the disk, as memory has room for a few only."""


class Verify(StrEnum):
    """When a chunk's digest is compared."""

    STRICT = "strict"
    LAZY = "lazy"


class CachedReader:
    """An image's bytes; each of them is verified, unless `Verify.LAZY` allows otherwise."""

    def __init__(self, image: OpenImage, verify: Verify, release: Callable[[], None]) -> None:
        """`release` is called by `close`."""
        self.size = image.chunks.size
        self._image = image
        self._verify = verify
        self._release: Callable[[], None] | None = release
        self._window = Window(image.chunks)
        self._fd = image.disk.direct() if image.disk is not None else None

    def read_at(self, offset: int, size: int) -> Data:
        """The bytes `[offset, offset + size)`, cut at the end.

        Raises DataDamaged if no copy has them right, StoreUnavailable if no copy answers.
        """
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        if self._fd is not None:
            data = self._read_direct(offset, end)
            if data is not None:
                self._image.count(is_hit=True)
                return data
        self._fetch_ahead(offset, end)
        chunks = self._image.chunks
        parts = []
        for index in range(chunks.index_of(offset), chunks.index_of(end - 1) + 1):
            start, past = chunks.span(index, index + 1)
            parts.append(self._read_part(index, max(offset, start), min(end, past)))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def fileno(self) -> int | None:
        """The cache's own file, if the whole image was there when it was opened."""
        return self._fd

    def is_complete(self) -> bool:
        """Whether the whole image is on the disk, durable or not."""
        return self._image.is_complete()

    def close(self) -> None:
        """Close the image, unless somebody else reads it.  Idempotent."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def _read_direct(self, offset: int, end: int) -> bytes | None:
        assert self._fd is not None
        try:
            data = os.pread(self._fd, end - offset, offset)
        except OSError:  # The image's copies in the stores still have it.
            return None
        return data if len(data) == end - offset else None

    def _fetch_ahead(self, offset: int, end: int) -> None:
        is_kept = self._image.is_kept
        limit = MAX_RUNS * RUN if is_kept else _WINDOW_IN_MEMORY
        for run in self._window.note(offset, end, limit):
            self._image.fetch(run, Urgency.AHEAD)

    def _read_part(self, index: int, start: int, end: int) -> Data:
        self._image.note(index)
        if end - start > _SMALL or not self._may_be_lazy(index):
            return self._image.read(index, start, end)
        self._image.count(is_hit=False)
        data = self._image.copies.read(start, end - start)
        self._image.fetch(range(index, index + 1), Urgency.FILL)
        return data

    def _may_be_lazy(self, index: int) -> bool:
        return (
            self._verify is Verify.LAZY
            and self._window.pattern is Pattern.RANDOM
            and not self._image.is_near(index)
            and not self._image.copies.is_suspect(index)
        )
