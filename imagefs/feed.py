"""Invalidates what the kernel and `catalog.tree.known` keep, by the change feed of the catalog.

Changes of other processes and hosts are seen here within a second, although the kernel may cache
names and attributes for minutes.  The reasons are in
docs/adr/0005-stable-inodes-and-a-change-feed.md.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVarTuple

import pyfuse3
import trio

from catalog.errors import CatalogError
from catalog.model.activity import Change, ChangeKind
from catalog.process import this_process
from catalog.tree.vfs import Vfs
from imagefs import inodes, metrics
from imagefs.inodes import Inodes
from imagefs.threads import Threads

Arguments = TypeVarTuple("Arguments")

log = logging.getLogger(__name__)

_LONGEST = 1.0
"""Seconds between two looks at the feed if the database tells of no change."""
_SHORTEST = 0.05
"""Seconds between two looks at least, however many changes there are."""
_PAGE = 500


class Feed:
    """Follows the change feed, beginning when the object is made."""

    def __init__(self, vfs: Vfs, known: Inodes, threads: Threads) -> None:
        self._vfs = vfs
        self._known = known
        self._threads = threads
        self._origin = str(this_process())
        self._seen = vfs.catalog.last_change()
        self._followed_at = time.monotonic()
        metrics.FEED_LAG.set_function(lambda: time.monotonic() - self._followed_at)

    async def run(self) -> None:
        """Follow the feed for ever; when the database does not answer, try again."""
        failed = False
        while True:
            await self._threads.news(self._vfs.catalog.wait_for_change, _LONGEST)
            # Many changes at once are one look.
            await trio.sleep(_SHORTEST)
            try:
                await self._follow()
                failed = False
            except CatalogError as error:
                if not failed:
                    log.warning("the change feed cannot be read: %s", error)
                failed = True

    async def _follow(self) -> None:
        while True:
            changes = await self._threads.names(self._changes)
            # Before the kernel is told: it may ask again at once.
            self._vfs.known.drop(changes)
            for change in changes:
                await self._tell(change)
                self._seen = change.number
            if len(changes) < _PAGE:
                self._vfs.known.fresh()
                self._followed_at = time.monotonic()
                return

    def _changes(self) -> list[Change]:
        return self._vfs.catalog.changes(self._seen, _PAGE)

    async def _tell(self, change: Change) -> None:
        own = change.origin == self._origin
        if change.kind is ChangeKind.IMAGE and change.image is not None:
            inode = inodes.of_image(change.image)
            if inode in self._known:
                # After a change of this mount only attributes are invalidated: the data was written
                # through the kernel's own pages, which are right.
                await self._notify(pyfuse3.invalidate_inode, inode, own)
        elif (
            change.folder is not None
            and change.name is not None
            # The kernel knows this mount's own changes already, unless it has cached another form
            # of the name (Unicode).  Names in ASCII have only one.
            and not (own and change.name.isascii())
        ):
            inode = inodes.of_folder(change.folder)
            if inode in self._known:
                await self._notify(pyfuse3.invalidate_inode, inode, True)
                await self._notify(pyfuse3.invalidate_entry, inode, change.name.encode())

    async def _notify(self, work: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        try:
            await self._threads.notices(work, *arguments)
        except OSError as error:
            # ENOENT: the kernel does not know it any more, which is what was wanted.
            if error.errno != errno.ENOENT:
                raise
