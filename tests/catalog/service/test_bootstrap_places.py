"""Hosts that share a catalog have the same folder for a store, or are told otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete

from catalog.errors import StoreUnavailable
from catalog.repository.tables import store_marks
from catalog.service.bootstrap import make_catalog, open_catalog
from catalog.settings import CatalogSettings, Settings
from catalog.stores.folder.store import FilesystemStoreSettings
from catalog.tree.vfs import Vfs
from tests.kit.catalog import put, read
from tests.servers.databases import DatabaseServer, home, postgresql

# They choose their database themselves.
pytestmark = pytest.mark.sqlite


@pytest.fixture(scope="module")
def server() -> Iterator[DatabaseServer]:
    """A PostgreSQL."""
    with home() as folder, postgresql(folder / "server") as started:
        yield started


@pytest.fixture
def url(server: DatabaseServer) -> Iterator[str]:
    """A database that all hosts of a test share."""
    yield server.database("catalog")
    server.drop("catalog")


def host(url: str, folder: Path, **store: object) -> Settings:
    """The settings of a host whose images are at the same path as on all others."""
    catalog = CatalogSettings.model_validate({"url": url, "staging": folder / "staging"})
    section = FilesystemStoreSettings.model_validate({"path": folder / "images", **store})
    return Settings("test", catalog, {"file": section})


def make_own_folder(folder: Path) -> None:
    """What `imagefs init` makes on another host, at the same path: the first one is elsewhere."""
    (folder / "images").rename(folder / "images of the first host")
    make_catalog(host(f"sqlite:///{folder}/other.db", folder)).close()


@pytest.mark.parametrize("store", [{}, {"io_timeout": 5.0}])
def test_another_host_s_own_folder_is_refused(
    url: str, tmp_path: Path, store: dict[str, object]
) -> None:
    """It has the same path and name, and none of the images: nothing is read or written there."""
    first = Vfs(make_catalog(host(url, tmp_path, **store)))
    put(first, "/file/here")
    first.close()
    make_own_folder(tmp_path)
    other = Vfs(open_catalog(host(url, tmp_path, **store)))
    with pytest.raises(StoreUnavailable, match="another folder than the one"):
        read(other, "/file/here")
    with pytest.raises(StoreUnavailable, match="another folder than the one"):
        put(other, "/file/there")
    other.close()
    assert [each.name for each in (tmp_path / "images").iterdir() if each.is_file()] == [
        ".imagefs-store"
    ]


def test_a_copy_of_the_folder_is_the_folder(url: str, tmp_path: Path) -> None:
    """It has the marker: a disk may be replaced by another one."""
    first = Vfs(make_catalog(host(url, tmp_path)))
    put(first, "/file/a")
    first.close()
    (tmp_path / "images").rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "images")
    moved = Vfs(open_catalog(host(url, tmp_path)))
    assert read(moved, "/file/a") == b"some data"
    moved.close()


def test_a_folder_that_was_away_is_recorded_later(url: str, tmp_path: Path) -> None:
    """By the first process that finds it."""
    first = Vfs(make_catalog(host(url, tmp_path)))
    put(first, "/file/a")
    with first.catalog.write() as repository:
        repository.connection.execute(delete(store_marks))
    first.close()
    (tmp_path / "images").rename(tmp_path / "away")
    open_catalog(host(url, tmp_path)).close()
    (tmp_path / "away").rename(tmp_path / "images")
    open_catalog(host(url, tmp_path)).close()
    make_own_folder(tmp_path)
    other = Vfs(open_catalog(host(url, tmp_path)))
    with pytest.raises(StoreUnavailable, match="another folder than the one"):
        read(other, "/file/a")
    other.close()


def test_an_emptied_store_gets_another_folder(url: str, tmp_path: Path) -> None:
    """Its old one is lost, as an operator has said: the new one is everybody's from then on."""
    first = Vfs(make_catalog(host(url, tmp_path)))
    put(first, "/file/lost")
    first.close()
    shutil.rmtree(tmp_path / "images")
    again = Vfs(make_catalog(host(url, tmp_path), emptied=["file"]))
    put(again, "/file/new")
    again.close()
    other = Vfs(open_catalog(host(url, tmp_path)))
    assert read(other, "/file/new") == b"some data"
    other.close()
