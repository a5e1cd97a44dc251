"""Databases as earlier versions of the program have left them, made by its own migrations."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Column, DateTime, MetaData

from catalog.model.access import ADMIN
from catalog.repository.engines.backend import WRITE, Backend
from catalog.repository.engines.opening import kind_and_file, open_backend
from catalog.service.bootstrap import make_catalog
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from tests.kit.catalog import make_folder, put, remove

Rows = list[tuple[object, ...]]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "catalog.repository:migrations")
    return config


def scripts() -> ScriptDirectory:
    """All migrations."""
    return ScriptDirectory.from_config(_config())


def revisions() -> list[str]:
    """All schemas there have been, the first one first."""
    return [script.revision for script in scripts().walk_revisions()][::-1]


def bring_to(backend: Backend, revision: str) -> None:
    """Upgrade a database to a schema, which may be an old one."""
    config = _config()
    with backend.engine.connect().execution_options(**WRITE) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


def make_old(settings: Settings, revision: str) -> Path:
    """A catalog of an old schema in a SQLite file: an image in a folder and one in the trash."""
    vfs = Vfs(make_catalog(settings))
    make_folder(vfs, "/file/folder")
    put(vfs, "/file/folder/a", b"of a")
    put(vfs, "/file/b")
    remove(vfs, "/file/b", ADMIN)
    vfs.close()
    take_back(settings.catalog.url, revision)
    return kind_and_file(settings.catalog.url)[1]


def take_back(url: str, revision: str) -> None:
    """Make a database that nobody has open one of an old schema, with all rows that fit in it."""
    _, path = kind_and_file(url)
    newer = path.rename(path.with_suffix(".newer"))
    backend = open_backend(url, create=True)
    bring_to(backend, revision)
    backend.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ATTACH ? AS newer", (str(newer),))
        for table in tables(connection):
            if table == "schema_floor":
                continue  # that of the old schema is there
            columns = ", ".join(columns_of(connection, table))
            connection.execute(
                f"INSERT OR REPLACE INTO main.{table} ({columns})"
                f" SELECT {columns} FROM newer.{table}"
            )
        connection.commit()
    newer.unlink()


def move(path: Path, backend: Backend) -> None:
    """Copy the rows of a SQLite file into a server's database, which has the same old schema."""
    schema = MetaData()
    schema.reflect(backend.engine)
    with (
        closing(sqlite3.connect(path)) as source,
        backend.engine.connect().execution_options(**WRITE) as connection,
        connection.begin(),
    ):
        for table in schema.sorted_tables:
            if table.name not in tables(source):
                continue
            names = columns_of(source, table.name)
            found = source.execute(f"SELECT {', '.join(names)} FROM {table.name} ORDER BY rowid")
            rows = [
                {name: _as(table.c[name], value) for name, value in zip(names, row, strict=True)}
                for row in found
            ]
            if rows:
                connection.execute(table.delete())
                connection.execute(table.insert(), rows)
            if "number" in names and rows:
                backend.count_beyond(connection, table, max(row["number"] for row in rows))


def _as(column: Column[Any], value: Any) -> Any:
    """SQLite's value, as a server takes it for its type."""
    if value is not None and isinstance(column.type, DateTime):
        return datetime.fromisoformat(value)
    return bool(value) if isinstance(column.type, Boolean) else value


def tables(connection: sqlite3.Connection) -> list[str]:
    """The catalog's own tables."""
    found = connection.execute(
        "SELECT name FROM main.sqlite_master WHERE type = 'table'"
        " AND name NOT LIKE 'sqlite%' AND name != 'alembic_version' ORDER BY name"
    )
    return [name for (name,) in found]


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """Their names."""
    return [row[1] for row in connection.execute(f"PRAGMA main.table_info({table})")]


def contents(path: Path) -> dict[str, dict[str, Rows]]:
    """What is in each table's columns, in the order of the rows."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: {
                column: connection.execute(
                    f"SELECT {column} FROM {table} ORDER BY rowid"
                ).fetchall()
                for column in columns_of(connection, table)
            }
            for table in tables(connection)
        }


def fill(path: Path) -> None:
    """Give each table that has none a row, of whatever its columns take."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN")
        connection.execute("PRAGMA defer_foreign_keys = ON")
        for table in tables(connection):
            if connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,):
                _add(connection, table)
        connection.commit()


def _add(connection: sqlite3.Connection, table: str) -> None:
    """Every number is 1, so that whatever refers to a row refers to the first one."""
    row = {
        # Of folders it is the one that is in no other.
        column: "root" if column == "kind" else _value(kind)
        for _, column, kind, *_ in connection.execute(f"PRAGMA table_info({table})")
    }
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", [*row.values()])


def _value(kind: str) -> object:
    match kind.partition("(")[0]:
        case "INTEGER" | "BIGINT" | "BOOLEAN":
            return 1
        case "DATETIME":
            return "2026-01-01 00:00:00.000000"
        case "BLOB":
            return b"x"
    return "Cafe\u0301"
