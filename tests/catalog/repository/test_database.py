"""Opening the database: what is refused, and how SQLite is set up."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import text

from catalog.catalog import Catalog
from catalog.errors import (
    CatalogForbidden,
    CatalogLocked,
    CatalogUnavailable,
    InvalidSettings,
    NoCatalog,
    SchemaTooNew,
)
from catalog.model.access import ADMIN
from catalog.repository import schema
from catalog.repository.engines import opening, sqlite
from catalog.service.bootstrap import make_catalog, open_catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from tests.kit.catalog import put, read, settings_at
from tests.kit.daemon import wait_until

pytestmark = pytest.mark.sqlite


def test_no_catalog_is_told_as_such(settings: Settings, tmp_path: Path) -> None:
    """A SQLite file that is not there is NoCatalog, and is not made by looking."""
    with pytest.raises(NoCatalog, match="imagefs init"):
        open_catalog(settings)
    assert not (tmp_path / "catalog.db").exists()


def test_an_empty_database_is_no_catalog(settings: Settings, tmp_path: Path) -> None:
    """A SQLite file without our tables is NoCatalog."""
    sqlite3.connect(tmp_path / "catalog.db").close()
    (tmp_path / "catalog.db").touch()
    with pytest.raises(NoCatalog):
        open_catalog(settings)


def test_a_newer_schema_is_refused(catalog: Catalog, settings: Settings) -> None:
    """A version this program does not know is SchemaTooNew, and stays as it is."""
    with catalog.write() as repository:
        repository.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        repository.connection.execute(text("UPDATE schema_floor SET oldest = '9999'"))
    with pytest.raises(SchemaTooNew, match="9999"):
        open_catalog(settings)
    # Another program may have made it newer while this one waited for its turn.
    with pytest.raises(SchemaTooNew, match="9999"):
        schema.migrate(catalog._database.backend)
    with catalog.read() as repository:
        query = text("SELECT version_num FROM alembic_version")
        assert repository.connection.execute(query).scalar_one() == "9999"


@pytest.mark.parametrize("url", ["nonsense", "sqlite:///relative.db", "nosuchsql://host/db"])
def test_a_bad_url_is_a_setting_s_fault(url: str) -> None:
    """A url that names no database is InvalidSettings."""
    with pytest.raises(InvalidSettings, match=r"catalog\.url"):
        opening.open_backend(url)


def test_a_file_that_is_no_database(settings: Settings, tmp_path: Path) -> None:
    """Any other file in the database's place is CatalogUnavailable, not a traceback."""
    (tmp_path / "catalog.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(CatalogUnavailable):
        open_catalog(settings)


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)]
)
def test_sqlite_is_set_up(catalog: Catalog, pragma: str, value: object) -> None:
    """Each connection is in WAL mode, durable, with foreign keys."""
    with catalog.read() as repository:
        result = repository.connection.execute(text(f"PRAGMA {pragma}")).scalar_one()
    assert result == value


def test_waiting_too_long_is_catalog_locked(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the busy time-out a writer is told that the catalog is locked."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0)
    impatient = make_catalog(settings)
    other = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CatalogLocked, match="try again"), impatient.write():
        pass
    other.execute("ROLLBACK")
    other.close()
    with impatient.write() as repository:
        assert repository.root() is not None
    impatient.close()


def test_opening_again_finds_everything(settings: Settings) -> None:
    """What was committed is there after closing and opening; making it again keeps it."""
    first = make_catalog(settings)
    put(Vfs(first), "/file/a", b"kept")
    first.close()
    second = make_catalog(settings)
    assert read(Vfs(second), "/file/a", ADMIN) == b"kept"
    second.close()


def test_a_stopped_process_keeps_its_turn(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it is told in time, and goes on when it does."""
    before = threading.active_count()
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.1)
    stopped = os.open(tmp_path / "catalog.db-queue", os.O_RDWR | os.O_CREAT)
    fcntl.flock(stopped, fcntl.LOCK_EX)
    for _ in range(3):
        assert not _may_write(catalog)
    os.close(stopped)
    wait_until(lambda: _may_write(catalog), "the turn is free again")
    wait_until(lambda: threading.active_count() == before, "nobody waits any more")


def _may_write(catalog: Catalog) -> bool:
    try:
        with catalog.write():
            return True
    except CatalogLocked:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_who_may_not_use_the_database_is_told_that(mode: int) -> None:
    """It is not a database that will answer later, and no fault of its file."""
    with TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        settings = settings_at(folder)
        make_catalog(settings).close()
        folder.chmod(mode)
        os.seteuid(65534)
        try:
            with pytest.raises(CatalogForbidden, match="only root and the owner"):
                open_catalog(settings).close()
        finally:
            os.seteuid(0)
