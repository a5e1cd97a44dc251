"""One open catalog: its database, stores, cache and settings, and simple look-ups.

Scope: no rules; those are in `catalog.rules`.  A transaction never includes a store's I/O, which
may take long while others wait for the transaction.  Threading: any thread; every call opens its
own transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

from catalog.cache.block_cache import BlockCache
from catalog.errors import NotFound
from catalog.model.activity import Change, Event, Told, Version
from catalog.model.fields import Details
from catalog.model.image import Image, Visibility
from catalog.model.listings import ImageFilter
from catalog.model.tree import Location
from catalog.repository.database import Database, Repository
from catalog.settings import CatalogSettings
from catalog.stores.base import Store

PATIENCE = 60.0
"""Seconds that a complete upload waits for a database that is away, before it is given up."""


class _Numbered(Protocol):
    @property
    def number(self) -> int: ...


_Row = TypeVar("_Row", bound=_Numbered)


class Catalog:
    """Images and where they are, over one database and the configured stores."""

    def __init__(
        self,
        database: Database,
        settings: CatalogSettings,
        stores: Mapping[str, Store],
        cache: BlockCache | None = None,
        replicas: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Use `bootstrap.open_catalog` to get one."""
        self.settings = settings
        self.stores = stores
        self.cache = cache or BlockCache()
        self.keeps_locks = False
        """Set where WebDAV is served: its operations have checked the locks already."""
        self.reads_only = False
        """Set for a mount with `-o ro`, whose user of the database may do no more: all that it
        changes are the rows that tell of its own process and of what it has open."""
        self.replicas = replicas or {}
        """Store name -> the stores in which copies of its images are made."""
        self._listeners: list[Callable[[Sequence[Told]], None]] = []
        self._database = database
        self.reserve = database.reserve

    # -- transactions ------------------------------------------------------------------

    def read(self) -> AbstractContextManager[Repository]:
        """A transaction that only reads: it has one consistent view, and waits for nobody."""
        return self._database.read(self.stores)

    @contextmanager
    def write(self) -> Iterator[Repository]:
        """A transaction that writes: committed at the end, rolled back by an exception."""
        told: Sequence[Told] = ()
        try:
            with self._database.write(self.stores, keeps_locks=self.keeps_locks) as repository:
                told = repository.told
                yield repository
        finally:
            # Also after an error: if the answer to a COMMIT is lost, it may have happened.
            for listener in self._listeners if told else ():
                listener(told)

    def listen(self, listener: Callable[[Sequence[Told]], None]) -> None:
        """Call `listener` with what each transaction of this process has changed.

        It is called after the commit, and before the block of `write` ends; it must not wait.
        """
        self._listeners.append(listener)

    def wait_for_change(self, seconds: float) -> None:
        """Return when the change feed is to be looked at, after `seconds` at the latest.

        One thread at a time.
        """
        self._database.wait_for_change(seconds)

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may use the catalog: its database is on a server."""
        return self._database.backend.is_shared

    def patiently(self) -> AbstractContextManager[None]:
        """Let transactions that are begun in this block wait for a database that is away.

        For what would be lost otherwise; they wait for `PATIENCE` at most.
        """
        return self._database.patiently(PATIENCE)

    def checkpoint(self) -> None:
        """Bring the database's main file up to date, for tools that copy only this file."""
        self._database.checkpoint()

    def damages(self) -> list[str]:
        """What is wrong in the database as a whole; empty if nothing is known to be wrong."""
        return self._database.damages()

    def unfit(self) -> list[str]:
        """What in the settings of the database's server is unfit; empty if nothing is."""
        return self._database.unfit()

    def close(self) -> None:
        """Close the cache, the stores and the database."""
        self.cache.close()
        for store in self.stores.values():
            store.close()
        self._database.close()

    def store(self, name: str) -> Store:
        """The configured store with that name.  Raises NotFound."""
        try:
            return self.stores[name]
        except KeyError:
            raise NotFound(name, "no such store is configured") from None

    # -- looking -----------------------------------------------------------------------

    def version(self) -> Version:
        """The tree's version, which every change of the tree changes."""
        with self.read() as repository:
            return repository.version()

    def last_change(self) -> int:
        """The number of the newest change there is; 0 without any."""
        with self.read() as repository:
            return repository.last_change()

    def changes(self, after: int, limit: int) -> list[Change]:
        """Up to `limit` changes with greater numbers than `after`, oldest first."""
        with self.read() as repository:
            return repository.changes(after, limit)

    def changes_between(self, old: Version, new: Version, limit: int) -> list[Change] | None:
        """The changes between two versions, oldest first; None if not all of them are known."""
        count, first = new[0] - old[0], old[1] + 1
        if not 0 < count <= limit:
            return None
        with self.read() as repository:
            found = repository.changes(old[1], count)
        # Some rows may be dropped already.  Numbers also do not always come in the order of the
        # commits: then a row with a lower number can still appear.
        numbers = [change.number for change in found]
        return found if numbers == list(range(first, first + count)) else None

    def image(self, number: int) -> Image:
        """The image with that number.  Raises NotFound."""
        with self.read() as repository:
            return repository.image(number)

    def images_by_status(self) -> dict[str, int]:
        """The number of images of each status that has any."""
        with self.read() as repository:
            return repository.images_by_status()

    def details(self, number: int) -> Details:
        """Everything about an image.  Raises NotFound."""
        with self.read() as repository:
            return Details(
                repository.image(number),
                repository.properties(number),
                repository.tags(number),
                repository.stores_of(number),
            )

    def members_of(self, image: Image) -> frozenset[str]:
        """The members of a shared image; empty, without a query, for any other image."""
        if image.visibility is not Visibility.SHARED:
            return frozenset()
        with self.read() as repository:
            return repository.members_of(image)

    def properties_of(self, numbers: Collection[int]) -> dict[int, dict[str, str]]:
        """The custom properties of those images that have any, by number."""
        with self.read() as repository:
            return repository.properties_of(numbers)

    def details_of(self, numbers: Collection[int]) -> dict[int, Details]:
        """Everything about several images, by number."""
        with self.read() as repository:
            return repository.details_of(numbers)

    def all_images(self, wanted: ImageFilter) -> Iterator[Image]:
        """Every image the filter lets through, by number, fetched in pages.

        No transaction is open between two pages.  Rows that are added meanwhile are found, too,
        as numbers only grow.
        """
        return self._all(lambda repository, after: repository.images(wanted, after=after))

    def all_locations(self, store: str) -> Iterator[Location]:
        """Every location in a store, by number, fetched in pages as `all_images`."""
        return self._all(
            lambda repository, after: repository.locations_in_store(store, after=after)
        )

    def all_events(self, image: int) -> Iterator[Event]:
        """The history of an image, oldest first, fetched in pages as `all_images`."""
        return self._all(lambda repository, after: repository.history(image, after))

    def _all(self, fetch: Callable[[Repository, int], Sequence[_Row]]) -> Iterator[_Row]:
        after = 0
        while True:
            with self.read() as repository:
                page = fetch(repository, after)
            if not page:
                return
            yield from page
            after = page[-1].number
