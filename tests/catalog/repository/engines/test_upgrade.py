"""The schema of a database server: upgraded on purpose, and not by whoever opens it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from catalog.errors import CatalogError, CatalogLocked, SchemaTooOld
from catalog.repository.engines import server as server_module
from catalog.repository.engines.opening import open_backend
from catalog.repository.schema import SCHEMA, migrate, schema_version
from catalog.rules.users import add_user
from catalog.service.bootstrap import make_catalog, open_catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import fsck
from catalog.upkeep.schema import check, statements, upgrade
from tests.catalog.repository.older import bring_to, make_old, move, revisions
from tests.kit.catalog import image_at, put, read, remove, rename, settings_at
from tests.servers.databases import DatabaseServer

# They choose their database themselves.
pytestmark = pytest.mark.sqlite


@pytest.fixture
def old(settings: Settings, tmp_path: Path) -> str:
    """A catalog of the first schema in that server's database, with images."""
    revision = revisions()[0]
    path = make_old(settings_at(tmp_path, url=f"sqlite:///{tmp_path / 'old.db'}"), revision)
    backend = open_backend(settings.catalog.url)
    bring_to(backend, revision)
    move(path, backend)
    backend.close()
    return revision


def test_an_older_schema_is_upgraded_on_purpose(settings: Settings, old: str) -> None:
    """Neither opening it nor `init` touches it; then nothing of what it has is lost."""
    for attempt in (open_catalog, make_catalog):
        with pytest.raises(SchemaTooOld, match="imagefs db upgrade"):
            attempt(settings)
    told = [sql for _step, sql in statements(settings.catalog.url)]
    assert len(told) == len(revisions()) - revisions().index(old) - 1
    assert all("alembic_version" in sql for sql in told)
    backend = open_backend(settings.catalog.url)
    assert schema_version(backend) == old
    assert [step.revision for step in upgrade(settings.catalog.url)][-1] == SCHEMA
    assert upgrade(settings.catalog.url) == []
    assert schema_version(backend) == SCHEMA
    backend.close()
    vfs = Vfs(open_catalog(settings))
    assert read(vfs, "/file/folder/a") == b"of a"
    assert [each.kind for each in fsck(vfs.catalog, repair=False) if not each.repaired] == []
    remove(vfs, "/file/folder/a")
    rename(vfs, "/file/.trash/b", "/file/b")
    add_user(vfs.catalog, "alice", "password")
    assert put(vfs, "/file/c").number > image_at(vfs, "/file/b").number
    vfs.close()


def test_two_upgrades_at_the_same_time(settings: Settings, old: str) -> None:
    """One does it, and the other one finds it done."""
    barrier = threading.Barrier(2)

    def run(_number: int) -> None:
        backend = open_backend(settings.catalog.url)
        barrier.wait()
        migrate(backend)
        backend.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2)))
    open_catalog(settings).close()


def test_an_upgrade_has_no_deadline(
    settings: Settings, old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement of it may take longer than one of a mount; the next one may not."""
    monkeypatch.setattr(server_module, "STATEMENT_TIME", 1)
    monkeypatch.setattr(server_module, "SILENCE", 1)
    backend = open_backend(settings.catalog.url)
    sleep = text({"postgresql": "SELECT pg_sleep(2)"}.get(backend.engine.name, "SELECT sleep(2)"))
    with backend.engine.connect() as connection, connection.begin():
        backend.begin_migration(connection)
        connection.execute(sleep)
    with pytest.raises(CatalogError), backend.errors(), backend.connect() as connection:
        connection.execute(sleep)
    backend.close()


def test_an_upgrade_waits_for_nobody_for_ever(
    settings: Settings, old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who reads all the time keeps it off: it is told, and can be repeated."""
    monkeypatch.setattr(server_module, "LOCK_TIME", 1)
    backend = open_backend(settings.catalog.url)
    with backend.connect() as reading:
        reading.execute(text("SELECT count(*) FROM images")).scalar_one()
        reading.execute(text("SELECT count(*) FROM leases")).scalar_one()
        with pytest.raises(CatalogLocked):
            upgrade(settings.catalog.url)
    backend.close()
    upgrade(settings.catalog.url)
    open_catalog(settings).close()


def test_settings_that_lose_data_are_told(
    database_server: DatabaseServer, settings: Settings
) -> None:
    """Those of the tests do: nothing has to survive a power failure."""
    catalog = make_catalog(settings)
    told = catalog.unfit()
    catalog.close()
    found = {each.subject: each for each in check(settings.catalog.url)}
    assert found["schema"].problem is found["database"].problem is None
    wrong = {"postgresql": "fsync is off", "mariadb": "innodb_flush_log_at_trx_commit is 2"}
    assert wrong[database_server.kind] in found["server"].detail
    assert [wrong[database_server.kind] in each for each in told] == [True]
    assert found["server"].problem is not None
