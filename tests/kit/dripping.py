"""A client that is never silent, and never done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.kit.wire import Wire


@contextmanager
def dripping(wire: Wire, data: bytes) -> Iterator[None]:
    """Send the data again and again, so that the connection is never silent."""
    stop = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            while not stop.wait(0.05):
                wire.send(data)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
