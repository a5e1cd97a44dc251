"""The migrations make exactly what the models say, lose no row, and are done wholly or not."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from catalog.catalog import Catalog
from catalog.repository.database import Database
from catalog.repository.engines.opening import open_backend
from catalog.repository.schema import SCHEMA, schema_version
from catalog.repository.tables import metadata
from catalog.rules.users import add_user
from catalog.service.bootstrap import open_catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from tests.catalog.repository.older import bring_to, contents, fill, make_old, revisions, scripts
from tests.kit.catalog import image_at, put, read, remove, rename

pytestmark = pytest.mark.sqlite


def test_a_fresh_schema_is_that_of_the_models(catalog: Catalog) -> None:
    """Alembic finds no difference between the migrated database and models.py."""
    with catalog.read() as repository:
        context = MigrationContext.configure(
            repository.connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_every_table_of_the_models_is_made(catalog: Catalog) -> None:
    """The comparison above cannot pass on an empty database."""
    with catalog.read() as repository:
        made = set(repository.connection.dialect.get_table_names(repository.connection))
    assert made == {*metadata.tables, "alembic_version"}


def test_schema_is_the_newest_revision() -> None:
    """`SCHEMA` names the only head there is."""
    assert scripts().get_heads() == [SCHEMA]


def test_numbers_are_never_used_again(catalog: Catalog) -> None:
    """Every table whose number is an inode or a cookie counts up for ever (AUTOINCREMENT)."""
    with catalog.read() as repository:
        rows = repository.connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'"
        )
        assert {"images", "folders", "locations", "changes"} <= set(rows.scalars())


# -- a catalog of an earlier version ------------------------------------------------------


def test_each_step_keeps_every_row(tmp_path: Path) -> None:
    """With a row in each table, and all of what refers to another one held to that."""
    path = tmp_path / "catalog.db"
    backend = open_backend(f"sqlite:///{path}", create=True)
    before: dict[str, dict[str, list[tuple[object, ...]]]] = {}
    for revision in revisions():
        bring_to(backend, revision)
        after = contents(path)
        before.pop("schema_floor", None)  # a step may raise it
        for table, columns in before.items():
            assert {name: after[table][name] for name in columns} == columns
        fill(path)
        before = contents(path)
        assert all(any(columns.values()) for columns in before.values())
    assert set(before) == set(metadata.tables)
    assert Database(backend).damages() == []
    backend.close()


@pytest.mark.parametrize("revision", [revisions()[0], revisions()[-2]])
def test_an_older_catalog_is_brought_up_to_date(settings: Settings, revision: str) -> None:
    """By whoever opens it: its images, folders and trash stay, and all can be done with it."""
    make_old(settings, revision)
    catalog = open_catalog(settings)
    vfs = Vfs(catalog)
    assert schema_version(catalog._database.backend) == SCHEMA
    assert catalog._database.damages() == []
    assert read(vfs, "/file/folder/a") == b"of a"
    remove(vfs, "/file/folder/a")
    rename(vfs, "/file/.trash/b", "/file/b")
    add_user(catalog, "alice", "password")
    assert put(vfs, "/file/c").number > image_at(vfs, "/file/b").number
    vfs.close()


INTERRUPTED = """
import os, signal, sys, unicodedata
from catalog.repository.engines.opening import open_backend
from catalog.repository.schema import check_schema

def normalize(*_):
    os.kill(os.getpid(), signal.SIGKILL)

# The sixth step needs it, for each name: others are done, and this one is half done.
unicodedata.normalize = normalize
check_schema(open_backend(sys.argv[1]))
"""


def test_an_upgrade_that_is_killed_has_done_nothing(settings: Settings) -> None:
    """The database is as it was, for an earlier version too; the next one to open it upgrades."""
    path = make_old(settings, revisions()[0])
    before = contents(path)
    process = subprocess.run([sys.executable, "-c", INTERRUPTED, settings.catalog.url], check=False)
    assert process.returncode == -signal.SIGKILL
    backend = open_backend(settings.catalog.url)
    assert schema_version(backend) == revisions()[0]
    assert contents(path) == before
    backend.close()
    catalog = open_catalog(settings)
    assert (schema_version(catalog._database.backend), catalog._database.damages()) == (
        SCHEMA,
        [],
    )
    assert read(Vfs(catalog), "/file/folder/a") == b"of a"
    catalog.close()
