"""Rendered pages of listings, kept until something in them changes.

Clients that show or mount a folder (davfs2, rclone) ask for the same listing every minute, while
images change seldom.  The catalog's change feed shows which pages are out of date.  Threading: any
thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass

from catalog.errors import NotFound
from catalog.model.activity import Change, ChangeKind, Version
from catalog.tree.vfs import Vfs

LIMIT = 32 * 1024 * 1024
"""Bytes of pages kept: a few folders of 10,000 images."""

_MOST = 200
"""After more changes than this, all pages are dropped instead of looking at each change."""


@dataclass(frozen=True, slots=True)
class _Touched:
    """A change, and the cookie of the entry it is about, if that still exists."""

    change: Change
    cookie: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """The members of a folder with the cookies `(first, last]`, as XML."""

    body: bytes
    folder: int
    first: int
    last: int
    is_end: bool
    """Whether it is the last page: a new member, whose cookie is above `last`, belongs to it."""
    names: frozenset[str]
    images: frozenset[int]
    """The numbers of its images; `folders` those of its folders."""
    folders: frozenset[int]

    def shows(self, touched: _Touched) -> bool:
        """Whether the change makes the page out of date."""
        change, cookie = touched.change, touched.cookie
        if change.kind is ChangeKind.IMAGE:
            return change.image in self.images
        # A change inside a folder also changes the folder's own properties.
        if change.folder in self.folders:
            return True
        if change.folder != self.folder:
            return False
        came = cookie is not None and self.first < cookie and (self.is_end or cookie <= self.last)
        return came or change.name in self.names


class Pages:
    """Pages that agree with the catalog; the least recently used are dropped first."""

    def __init__(self, vfs: Vfs, limit: int = LIMIT) -> None:
        """`limit` is in bytes."""
        self._vfs = vfs
        self._limit = limit
        self._version: Version = (0, 0)
        self._pages: OrderedDict[Hashable, Page] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def refresh(self) -> Version:
        """Drop the pages that are out of date; return the version of the remaining ones."""
        with self._lock:
            version = self._vfs.catalog.version()
            if version != self._version:
                self._forget(self._vfs.catalog.changes_between(self._version, version, _MOST))
                self._version = version
            return version

    def get(self, key: Hashable) -> Page | None:
        """The page with this key; call `refresh` first."""
        with self._lock:
            page = self._pages.get(key)
            if page is not None:
                self._pages.move_to_end(key)
            return page

    def put(self, key: Hashable, page: Page, version: Version) -> None:
        """Keep a page; `version` is what `refresh` returned before the page was read."""
        with self._lock:
            # Another version: the page may have been read before a change that is dropped already.
            if version != self._version or key in self._pages:
                return
            self._pages[key] = page
            self._size += len(page.body)
            while self._size > self._limit:
                _key, old = self._pages.popitem(last=False)
                self._size -= len(old.body)

    def _forget(self, changes: list[Change] | None) -> None:
        """Drop the pages that show a change; all pages if the changes are not known."""
        touched = [self._look_up(change) for change in changes or ()]
        for key, page in list(self._pages.items()):
            if changes is None or any(map(page.shows, touched)):
                self._size -= len(self._pages.pop(key).body)

    def _look_up(self, change: Change) -> _Touched:
        cookie = None
        if change.folder is not None and change.name is not None:
            with suppress(NotFound):
                cookie = self._vfs.cookie(change.folder, change.name)
        return _Touched(change, cookie)
