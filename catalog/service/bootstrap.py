"""Making a catalog, and opening one, from the settings."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice

from catalog.cache.block_cache import BlockCache
from catalog.cache.folder import CacheFolder
from catalog.cache.reader import Verify
from catalog.catalog import Catalog
from catalog.errors import CatalogError, NoCatalog, StoreUnavailable
from catalog.repository.database import Database
from catalog.rules import folders
from catalog.service.configuration import problems_of
from catalog.settings import Settings
from catalog.stores.base import Capability, Marked, Store
from catalog.stores.registry import open_store

_log = logging.getLogger(__name__)

COUNTED = 1000
"""How far the objects of a store are counted."""


def has_catalog(settings: Settings) -> bool:
    """Whether the database has been made.  Raises CatalogUnavailable."""
    try:
        database = Database.open(settings.catalog.url)
    except NoCatalog:
        return False
    try:
        return database.has_schema()
    finally:
        database.close()


def make_catalog(settings: Settings, emptied: Collection[str] = ()) -> Catalog:
    """Make the database, the stores' folders and the tree; existing ones stay as they are.

    If the catalog has images in a store whose folder is missing, the disk is probably not
    mounted: the folder is not made, unless the store is one of `emptied`.  The other stores
    are made first; then StoreUnavailable is raised.  Raises as `open_catalog`, too.
    """
    database = Database.open(settings.catalog.url, create=True)
    try:
        database.make_schema()
    except CatalogError:
        database.close()
        raise
    catalog = Catalog(
        database, settings.catalog, _stores(settings), _cache(settings), settings.replicas
    )
    problems = list(_make_stores(catalog, emptied))
    folders.make_stores(catalog)
    _agree_on_places(catalog, emptied)
    catalog.checkpoint()
    catalog.reserve.keep()
    if problems:
        catalog.close()
        raise problems[0]
    return catalog


def _make_stores(catalog: Catalog, emptied: Collection[str]) -> Iterator[CatalogError]:
    for store in catalog.stores.values():
        with catalog.read() as repository:
            images = repository.count_locations(store.name)
        try:
            if images and store.name not in emptied:
                store.check()
            else:
                store.initialize()
        except CatalogError as error:
            if images:
                error.reason = (
                    f"{error.reason or error.summary}; the catalog has images there ({images}), so"
                    f" nothing is made in its place (if they are lost: --emptied {store.name})"
                )
            yield error


def unknown_data(catalog: Catalog) -> Iterator[tuple[str, int]]:
    """Stores of a new catalog that have data of an older catalog, and the number of objects.

    It counts up to `COUNTED` only: a bucket may have millions of objects.
    """
    for store in catalog.stores.values():
        if Capability.LISTING in store.capabilities:
            found = sum(1 for _key in islice(store.keys(), COUNTED))
            if found:
                yield store.name, found


def open_catalog(settings: Settings, *, reads_only: bool = False) -> Catalog:
    """Open the catalog; with `reads_only` nothing is made that is missing.

    Raises NoCatalog, SchemaTooNew, SchemaTooOld, CatalogUnavailable, InvalidSettings.
    """
    database = Database.open(settings.catalog.url)
    try:
        database.check_schema()
    except CatalogError:
        database.close()
        raise
    catalog = Catalog(
        database, settings.catalog, _stores(settings), _cache(settings), settings.replicas
    )
    catalog.reads_only = reads_only
    if not reads_only:
        folders.make_stores(catalog)
        catalog.reserve.keep()
    _agree_on_places(catalog)
    return catalog


def _agree_on_places(catalog: Catalog, emptied: Collection[str] = ()) -> None:
    """Let each store that may be elsewhere on another host accept only the place that all have.

    Otherwise two hosts could each have a folder of their own at the same path, and neither the
    images of the other.  Of a store whose place is not known yet, this host's is recorded.
    """
    if not catalog.is_shared:
        return
    with catalog.read() as repository:
        known = repository.store_marks()
    for name, store in catalog.stores.items():
        if Capability.MARKED not in store.capabilities or not isinstance(store, Marked):
            continue
        mark = None if name in emptied else known.get(name)
        if mark is None and not catalog.reads_only:
            with suppress(StoreUnavailable):  # it is recorded when the store is there
                mark = folders.claim_store(catalog, name, store.mark(), anew=name in emptied)
        if mark is not None:
            store.expect(mark)


def _stores(settings: Settings) -> dict[str, Store]:
    for problem in problems_of(settings).values():
        _log.warning("%s: %s", settings.source, problem)
    return {name: open_store(name, section) for name, section in settings.stores.items()}


def _cache(settings: Settings) -> BlockCache:
    cache = settings.cache
    folder = CacheFolder(cache.path, cache.size, recheck=cache.recheck) if cache.size else None
    return BlockCache(folder, Verify(cache.verify), fill=cache.fill)
