"""One writer at a time for each image, in this process.

A turn begins when somebody opens an image to write it and ends when that is closed; `upload`
refuses everybody else meanwhile.  An upload may outlive a turn: one in parts, or under a
temporary name.  Other processes are kept out by the image's status.  Threading: any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from catalog.errors import Conflict
from catalog.model.image import Image


class Turns:
    """Who writes to which image.  A writer is any object that is equal only to itself."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._writers: dict[int, list[object]] = {}

    def begin(self, image: Image, writer: object) -> None:
        """Let only `writer` write to the image, until it has called `end` as often as `begin`.

        Raises Conflict while another one writes.
        """
        with self._changed:
            self.check(image, writer)
            self._writers.setdefault(image.number, []).append(writer)

    def end(self, number: int, writer: object) -> None:
        """Undo one `begin`."""
        with self._changed:
            writers = self._writers[number]
            writers.remove(writer)
            if not writers:
                del self._writers[number]
            self._changed.notify_all()

    @contextmanager
    def taken(self, image: Image, writer: object) -> Iterator[None]:
        """`begin`, and `end` afterwards."""
        self.begin(image, writer)
        try:
            yield
        finally:
            self.end(image.number, writer)

    def check(self, image: Image, writer: object) -> None:
        """Raise Conflict while another one than `writer` writes to the image."""
        if self.of(image.number) not in (None, writer):
            raise Conflict(image.name, "is being written by another")

    def of(self, number: int) -> object | None:
        """The writer of that image; None if there is none."""
        return next(iter(self._writers.get(number, ())), None)

    def wait(self, number: int, writer: object, seconds: float) -> bool:
        """Wait until `writer` has ended; False if it has not after that many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.of(number) != writer, seconds)
