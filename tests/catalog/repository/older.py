"""Databases as earlier versions of the program have left them, made by its own migrations."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from catalog.repository.engine import kind_and_file, open_backend
from catalog.repository.engines.backend import WRITE, Backend

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
            columns = ", ".join(columns_of(connection, table))
            connection.execute(
                f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}"
            )
        connection.commit()
    newer.unlink()


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
