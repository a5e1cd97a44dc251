"""A copy of the catalog's database, made while others work on it.

Scope: SQLite; a server has tools of its own.  Threading: any.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from catalog.appearing import appearing
from catalog.errors import (
    CatalogDamaged,
    CatalogUnavailable,
    InvalidValue,
    NoCatalog,
    NotSupported,
    StoreFull,
)
from catalog.repository.engines.opening import kind_and_file
from catalog.repository.engines.sqlite import damages_of

_OF_SERVERS = {"postgresql": "pg_dump", "mysql": "mysqldump", "mariadb": "mariadb-dump"}
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG}


def backup(url: str, target: Path) -> None:
    """Write a sound copy of the database at `url` to `target`, which appears in one step.

    The copy has every transaction that was committed before, and no part of any other.  An
    older file at `target` is replaced only after the copy was checked.  Raises NotSupported
    for a server, CatalogDamaged, StoreFull, CatalogUnavailable, InvalidValue, OSError.
    """
    kind, source = kind_and_file(url)
    tool = _OF_SERVERS.get(kind)
    if tool is not None:
        raise NotSupported("backup", f"the catalog is in a database server: use {tool}")
    if not source.exists():
        raise NoCatalog(str(source))
    _check_target(source, target)
    with appearing(target) as part:
        # Created by us, readable by the owner only, before SQLite opens it: the database holds
        # the hashes of passwords.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            _copy(source, part)
        finally:
            for end in ("-journal", "-wal", "-shm"):
                Path(f"{part}{end}").unlink(missing_ok=True)
        _make_durable(part)
    _make_durable(target.absolute().parent)


def _check_target(source: Path, target: Path) -> None:
    if target.exists() and not target.is_file():
        raise InvalidValue(str(target), "is not a regular file")
    ours = {f"{source}{end}" for end in ("", "-wal", "-shm", "-queue")}
    if str(target.resolve()) in {str(Path(each).resolve()) for each in ours}:
        raise InvalidValue(str(target), "is the catalog's own file")


def _copy(source: Path, part: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"file:{_quoted(source)}?mode=ro", uri=True)) as catalog,
            closing(sqlite3.connect(part, isolation_level=None)) as copy,
        ):
            # All pages in one step: in a WAL journal no writer waits for a reader.
            catalog.backup(copy, pages=-1)
            # Leave WAL mode: the copy is then one file, which SQLite can also open where it
            # cannot create a -shm file beside it.
            copy.execute("PRAGMA journal_mode=DELETE")
            found = damages_of(copy)
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _FULL:
            raise StoreFull(str(part.parent), "no space left for the backup") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise CatalogDamaged(str(source), str(error)) from error
        raise CatalogUnavailable(str(source), f"the backup failed: {error}") from error
    except UnicodeDecodeError as error:
        # SQLite's error message repeats text of the damaged file, which is not UTF-8.
        raise CatalogDamaged(str(source), "it holds text that is none") from error
    if found:
        raise CatalogDamaged(str(source), found[0])


def _quoted(path: Path) -> str:
    """A path as part of SQLite's `file:` URL."""
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _make_durable(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
