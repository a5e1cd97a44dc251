"""The message of an image while its data is copied.

While the copy is being made it is `copying to store ceph: 40 %`; it goes when the copy has
succeeded, and becomes the reason when it has failed.  Threading: the copying thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from catalog.catalog import Catalog
from catalog.errors import CatalogError, CatalogUnavailable, Conflict
from catalog.model.clock import now
from catalog.model.image import Image
from catalog.model.status import HAS_DATA
from catalog.process import this_process

INTERVAL = 5.0
"""Seconds between two messages, as each is a transaction."""


class Notice:
    """The message of one image about its copy to one store."""

    def __init__(self, catalog: Catalog, image: Image, store: str) -> None:
        self._catalog = catalog
        self._image = image
        self._about = f"copying to store {store}"
        self._done = 0
        self._told_at = time.monotonic()

    def advance(self, size: int) -> None:
        """Note that `size` more bytes are copied; now and then update the message.

        Raises Conflict if the image was deleted or the copy was aborted, so that nobody wants
        it any more.
        """
        self._done += size
        if time.monotonic() - self._told_at < INTERVAL:
            return
        percent = 100 * self._done // max(self._image.size, 1)
        try:
            with self._catalog.read() as repository:
                if repository.upload(self._image.number) is None:
                    raise Conflict(self._image.name, "the copy was aborted")
            if not self._tell(f"{self._about}: {percent} %"):
                raise Conflict(self._image.name, "was deleted while it was copied")
        except CatalogUnavailable:
            pass  # a message that cannot be written must not stop the copy
        self._told_at = time.monotonic()

    def end(self) -> None:
        """Remove the message about this copy, and about earlier attempts that failed."""
        with suppress(CatalogError):
            if self._catalog.image(self._image.number).message.startswith(self._about):
                mine = self._image.message.startswith(self._about)
                self._tell("" if mine else self._image.message)

    def fail(self, reason: object) -> None:
        """Set the message to the reason of a failure: an error, or a text."""
        with suppress(CatalogError):
            self._tell(f"{self._about} failed: {reason}")

    def _tell(self, message: str) -> bool:
        """Set the message.  False if the image has no data: then its message is more important."""
        with self._catalog.write() as repository:
            image = repository.image(self._image.number)
            if image.status not in HAS_DATA:
                return False
            repository.set_message(image.number, message)
            repository.beat_uploads(this_process(), now())
            return True


Progress = Callable[[int], None]
"""Called with the number of bytes just dealt with."""


def no_progress(_size: int) -> None:
    """For callers that show none."""
