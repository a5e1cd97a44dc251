"""Open folders: members are fetched in pages, and returned as the kernel asks for them.

Threading: the trio loop only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from imagefs.at_once import AtOnce
from imagefs.shown import Shown
from imagefs.threads import Threads
from imagefs.tree import Tree


@dataclass(slots=True)
class _Listing:
    inode: int
    page: list[Shown] = field(default_factory=list)
    """Fetched members that were not all returned yet: the kernel takes about twenty at once."""
    at: int = 0


class Listings:
    """All open folders of one mount."""

    def __init__(self, tree: Tree, at_once: AtOnce, threads: Threads) -> None:
        self._tree = tree
        self._at_once = at_once
        self._threads = threads
        self._open: dict[int, _Listing] = {}
        self._next = 1

    def open(self, inode: int) -> int:
        """Add an open folder and return its number."""
        number = self._next
        self._next += 1
        self._open[number] = _Listing(inode)
        return number

    def close(self, number: int) -> None:
        """Forget an open folder."""
        del self._open[number]

    async def members(self, number: int, after: int) -> AsyncIterator[Shown]:
        """The members behind the cookie `after`, until the caller stops."""
        listing = self._open[number]
        while True:
            at = listing.at
            if not (0 < at < len(listing.page) and listing.page[at - 1][0] == after):
                page = self._at_once.page(listing.inode, after)
                if page is None:
                    page = await self._threads.names(self._tree.page, listing.inode, after)
                listing.page = page
                at = 0
            if not listing.page:
                return
            for member in listing.page[at:]:
                listing.at = at
                yield member
                at += 1
                after = member[0]
            listing.at = at
