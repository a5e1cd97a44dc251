"""What was looked up lately, answered from memory until the change feed tells of a change.

The door of a mount's loop: `name`, `image` and `folder` never wait.  They know only what exists and
has settled: no absent name, as a change elsewhere would be seen too late; no image that is not
complete, as its size grows without a row in the feed; nothing in the trash, where names change
hands.  Whether a principal may see or read something is asked of what is found here, as of a row.

Two things drop what has changed.  This process' own transactions do so before whoever began them
goes on (`Catalog.listen`): an answer is never older than a change that was answered here.  Changes
of others come by the feed.  Its follower calls `drop`, and `fresh` whenever it has read all of it.
While the feed cannot be read, answers go on for `AWAY` seconds.

Why: docs/adr/0031-lookups-from-memory.md.  Threading: any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from catalog.catalog import Catalog
from catalog.model import names
from catalog.model.activity import Change, ChangeKind, Told
from catalog.model.status import IN_PROGRESS, Status
from catalog.model.tree import Entry, Folder, Listed

AWAY = 300.0
"""Seconds for which answers are given after the feed was last read: as long as the kernel keeps
names and attributes by itself."""
MOST = 10_000
"""Answers that are kept: some 20 MiB."""
MOST_PAGES = 64
"""Pages of listings that are kept: some 30 MiB."""

_UNSETTLED = IN_PROGRESS | {Status.QUEUED, Status.PENDING_DELETE, Status.DELETED}


@dataclass(frozen=True, slots=True)
class _Kept:
    node: Entry | Folder
    subjects: tuple[Hashable, ...]
    """What the answer depends on; a change of one of them drops it."""


Page = Sequence[tuple[int, Folder | Listed]]
"""A part of a listing: members with their cookies."""


@dataclass(frozen=True, slots=True)
class _KeptPage:
    page: Page
    subjects: frozenset[Hashable]


class Known:
    """Names, images, folders and listings that need not be looked up again."""

    def __init__(self, catalog: Catalog, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: dict[Hashable, _Kept] = {}
        self._by_subject: dict[Hashable, set[Hashable]] = {}
        self._pages: dict[tuple[int, int, int], _KeptPage] = {}
        # Counts the calls of `drop`.  Whoever reads rows notes the count before, and what was read
        # is kept only if the count is still the same.  Otherwise it may be older than a change that
        # was dropped meanwhile, and nothing would drop it again.
        self._drops = 0
        self._until = 0.0
        catalog.listen(self.drop)

    # -- asking ------------------------------------------------------------------------

    def name(self, folder: int, name: str) -> Entry | Folder | None:
        """What is called so in a folder, with its `links`; None if that has to be looked up."""
        return self._get(("name", folder, name))

    def image(self, number: int) -> Entry | None:
        """The only entry of an image; None if it has to be looked up."""
        found = self._get(("image", number))
        return found if isinstance(found, Entry) else None

    def folder(self, number: int) -> Folder | None:
        """The folder with that number; None if it has to be looked up."""
        found = self._get(("folder", number))
        return found if isinstance(found, Folder) else None

    def page(self, folder: int, after: int, limit: int) -> Page | None:
        """As `Namespace.page`; None if it has to be read."""
        kept = self._pages.get((folder, after, limit))
        return None if kept is None or time.monotonic() > self._until else kept.page

    def _get(self, key: Hashable) -> Entry | Folder | None:
        kept = self._kept.get(key)
        return None if kept is None or time.monotonic() > self._until else kept.node

    # -- keeping -----------------------------------------------------------------------

    @property
    def drops(self) -> int:
        """To be read before the transaction in which a node is read that will be kept."""
        return self._drops

    def keep(self, node: Entry | Folder, drops: int, name: str | None = None) -> None:
        """Keep what was read after `drops`; `name` is the name that was looked up, if any."""
        if time.monotonic() > self._until:
            return  # nobody follows the feed
        if isinstance(node, Entry):
            if node.image.status in _UNSETTLED:
                return
            subjects = (("image", node.image.number), _named(node.folder, node.name))
            place = node.folder
            alone = ("image", node.image.number) if node.links == 1 else None
        else:
            # A change inside a folder changes its time.
            subjects = (("folder", node.number), _named(node.parent, node.name))
            place = node.parent
            alone = ("folder", node.number)
        with self._lock:
            if drops != self._drops:
                return
            if alone is not None:
                self._put(alone, _Kept(node, subjects))
            if name is not None:
                self._put(("name", place, name), _Kept(node, (*subjects, _named(place, name))))

    def keep_page(self, folder: int, after: int, limit: int, page: Page, drops: int) -> None:
        """Keep a page that was read after `drops`, unless something on it has not settled."""
        if time.monotonic() > self._until:
            return
        members = [member for _cookie, member in page]
        if any(isinstance(it, Listed) and it.status in _UNSETTLED for it in members):
            return
        kinds = ("folder" if isinstance(it, Folder) else "image" for it in members)
        numbers = (member.number for member in members)
        subjects = frozenset([*zip(kinds, numbers, strict=True), ("folder", folder)])
        with self._lock:
            if drops != self._drops:
                return
            while len(self._pages) >= MOST_PAGES:
                del self._pages[next(iter(self._pages))]  # the oldest
            self._pages[folder, after, limit] = _KeptPage(page, subjects)

    def _put(self, key: Hashable, kept: _Kept) -> None:
        self._pop(key)
        while len(self._kept) >= self._most:
            self._pop(next(iter(self._kept)))  # the oldest
        self._kept[key] = kept
        for subject in kept.subjects:
            self._by_subject.setdefault(subject, set()).add(key)

    def _pop(self, key: Hashable) -> None:
        kept = self._kept.pop(key, None)
        for subject in kept.subjects if kept is not None else ():
            keys = self._by_subject.get(subject)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._by_subject[subject]

    # -- dropping ----------------------------------------------------------------------

    def drop(self, changes: Iterable[Change | Told]) -> None:
        """Drop what these changes are about, or may have changed."""
        subjects: set[Hashable] = set()
        for change in changes:
            if change.image is not None:
                subjects.add(("image", change.image))
            if change.kind is ChangeKind.ENTRY and change.folder is not None:
                subjects.add(("folder", change.folder))
                subjects.add(_named(change.folder, change.name or ""))
        if not subjects:
            return
        with self._lock:
            self._drops += 1
            for subject in subjects:
                for key in self._by_subject.pop(subject, ()):
                    self._pop(key)
            for key in [k for k, it in self._pages.items() if not subjects.isdisjoint(it.subjects)]:
                del self._pages[key]

    def fresh(self) -> None:
        """Note that all changes there are have been dropped."""
        at = time.monotonic()
        with self._lock:
            if at > self._until:
                # For so long changes may have come that the feed does not know any more.
                self._drops += 1
                self._kept.clear()
                self._by_subject.clear()
                self._pages.clear()
            self._until = at + AWAY


def _named(folder: int, name: str) -> Hashable:
    """A name in a folder, the same for all names that look the same."""
    return "name", folder, names.alike(name)
