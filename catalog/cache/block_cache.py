"""The block cache of one process; the catalog opens remote images through it.

Threading: any.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from catalog.cache import heap
from catalog.cache.boot_profile import BootProfile
from catalog.cache.chunks import Chunks
from catalog.cache.folder import CacheFolder
from catalog.cache.open_image import OpenImage
from catalog.cache.pool import Pool
from catalog.cache.reader import CachedReader, Verify
from catalog.cache.shelf import CacheCounts, Shelf
from catalog.cache.sources import Locate, Report, Sources
from catalog.errors import CatalogError


class BlockCache:
    """Verified chunks of remote images, shared by all their readers."""

    def __init__(
        self,
        folder: CacheFolder | None = None,
        verify: Verify = Verify.STRICT,
        *,
        fill: bool = False,
    ) -> None:
        """Without a folder there is no disk, and only the chunks being read are in memory.

        With `fill` each open image is fetched as a whole.
        """
        heap.tune()
        self.folder = folder
        self._verify = verify
        self._fill = fill
        self._pool = Pool()
        self._shelf = Shelf(folder)
        self._lock = threading.Lock()
        self._images: dict[bytes, OpenImage] = {}

    def open(
        self,
        name: str,
        chunks: Chunks,
        locate: Locate,
        report: Report,
        profile: BootProfile | None = None,
    ) -> CachedReader:
        """Open an image; `name` is for errors.

        Raises StoreUnavailable if the image is not complete here and no copy can be opened.
        """
        with self._lock:
            image = self._images.get(chunks.fingerprint)
            if image is None:
                copies = Sources(name, chunks, locate, report)
                image = OpenImage(
                    chunks, copies, self._shelf, self._pool, self._change_users, profile
                )
                self._images[chunks.fingerprint] = image
            image.users += 1
            image.readers += 1
        try:
            if not image.is_complete():
                image.copies.open()
            if self._fill and self.folder is not None and chunks.size <= self.folder.size:
                image.fill()
            return CachedReader(image, self._verify, lambda: self._release(image))
        except BaseException:
            self._release(image)
            raise

    def forget(self, image: str) -> None:
        """Drop the chunks of a deleted image.  If it is open, eviction drops them later."""
        if self.folder is not None:
            with suppress(CatalogError, OSError):
                self.folder.drop(image)

    def counts(self) -> CacheCounts:
        """How often readers found here what they wanted; never waits."""
        return self._shelf.counts()

    def close(self) -> None:
        """Give up all fetches, and end all threads.  Idempotent."""
        self._pool.close()
        self._shelf.close()

    def _release(self, image: OpenImage) -> None:
        with self._lock:
            image.readers -= 1
        self._change_users(image, -1)

    def _change_users(self, image: OpenImage, change: int) -> None:
        with self._lock:
            image.users += change
            if image.users:
                return
            del self._images[image.chunks.fingerprint]
        # Outside the lock, as it waits for the disk.  Whoever opens the image meanwhile opens
        # the files again, as another process would.
        image.close()
