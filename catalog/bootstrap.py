"""Making a catalog, and opening one, from the settings.

Users: every program's start.
"""

from __future__ import annotations

from catalog import names
from catalog.cache.cache import BlockCache
from catalog.cache.folder import CacheFolder
from catalog.cache.reader import Verify
from catalog.catalog import Catalog
from catalog.database import check_schema, migrate, open_engine
from catalog.errors import CatalogError
from catalog.image import FolderKind
from catalog.settings import Settings
from catalog.stores.base import Store
from catalog.stores.registry import open_store


def make_catalog(settings: Settings) -> Catalog:
    """Make the database, the stores' folders and the tree; what is there already stays."""
    engine = open_engine(settings.catalog.url, create=True)
    migrate(engine)
    catalog = Catalog(
        engine, settings.catalog, _stores(settings), _cache(settings), settings.replicas
    )
    for store in catalog.stores.values():
        store.initialize()
    _make_tree(catalog)
    catalog.checkpoint()
    return catalog


def open_catalog(settings: Settings) -> Catalog:
    """Open the catalog.

    Raises NoCatalog, SchemaTooNew, CatalogUnavailable, InvalidSettings.
    """
    engine = open_engine(settings.catalog.url)
    try:
        check_schema(engine)
    except CatalogError:
        engine.dispose()
        raise
    catalog = Catalog(
        engine, settings.catalog, _stores(settings), _cache(settings), settings.replicas
    )
    _make_tree(catalog)
    return catalog


def _stores(settings: Settings) -> dict[str, Store]:
    return {name: open_store(name, section) for name, section in settings.stores.items()}


def _cache(settings: Settings) -> BlockCache:
    cache = settings.cache
    folder = CacheFolder(cache.path, cache.size, recheck=cache.recheck) if cache.size else None
    return BlockCache(folder, Verify(cache.verify), fill=cache.fill)


def _make_tree(catalog: Catalog) -> None:
    """Give every configured store its folder and its trash."""
    with catalog.read() as repository:
        root = repository.root()
        present = set() if root is None else {f.name for f in repository.folders_in(root.number)}
    missing = catalog.stores.keys() - present
    if root is not None and not missing:
        return
    with catalog.write() as repository:
        root = repository.root() or repository.add_root()
        for name in sorted(missing):
            top = repository.folder_at(root.number, name) or repository.add_folder(
                root.number, name, name, FolderKind.STORE, "root", False
            )
            if repository.folder_at(top.number, names.TRASH) is None:
                repository.add_folder(
                    top.number, name, names.TRASH, FolderKind.TRASH, "root", False
                )
