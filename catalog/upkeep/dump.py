"""The whole catalog as lines of JSON, out of one database and into another one of any kind.

The file, by lines:

    {"imagefs": "dump", "format": 1, …}     a header: versions, the number of rows of each table
    {"table": "images", "columns": […]}     then its rows, an array each; so on for every table
    {"end": true, "rows": N, "sha256": …}   a trailer: a file that was cut has none

Times are ISO 8601 in UTC, blobs base64.  It holds the hashes of passwords.  What it leaves out is
in `catalog.repository.administration.dump`.  Threading: any.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from catalog.errors import AlreadyExists, InvalidValue, SchemaTooNew, SchemaTooOld
from catalog.repository.administration import dump as rows
from catalog.repository.database import Database, Repository
from catalog.repository.schema import SCHEMA
from catalog.repository.tables import OF_PROCESSES

FORMAT = 1
_DUMP = "the dump"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An image whose upload or copy was in progress, which a dump does not take along."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Dumped:
    """What was written or read: the number of rows of all tables, and what was left out."""

    rows: int
    left_out: tuple[LeftOut, ...] = ()


def dump(url: str, write: Callable[[bytes], object]) -> Dumped:
    """Write everything that the database at `url` has at one moment, also while others use it.

    Raises NoCatalog, CatalogUnavailable, SchemaTooNew and SchemaTooOld for another schema.
    """
    database = Database.open(url)
    try:
        database.check_schema()
        _check_same(database)
        with database.read() as repository:
            digest = _Digest(write)
            for line in _lines(repository):
                digest.add(line)
            digest.end()
            return Dumped(digest.rows, _uploads(repository))
    finally:
        database.close()


def load(url: str, lines: Iterable[bytes]) -> Dumped:
    """Fill the database at `url` with a dump, all of it or nothing.

    It is empty, or has a new catalog; on MariaDB a schema that was made for it stays.  Raises
    AlreadyExists if there is more, InvalidValue for what is no whole dump, SchemaTooNew and
    SchemaTooOld for a dump of another schema, CatalogUnavailable.
    """
    database = Database.open(url, create=True)
    try:
        database.make_schema()
        with database.write() as repository:
            return _Load(repository, database.backend.where).run(lines)
    finally:
        database.close()


def _check_same(database: Database) -> None:
    """A newer schema, which this program may use otherwise, has more than it would dump."""
    schema = database.schema()
    if schema != SCHEMA:
        told = f"schema {schema} has more than this program knows: use the newer one"
        raise SchemaTooNew(database.backend.where, told)


def _lines(repository: Repository) -> Iterator[Any]:
    connection, backend = repository.connection, repository.backend
    tables = rows.tables()
    yield {
        "imagefs": "dump",
        "format": FORMAT,
        "schema": SCHEMA,
        "program": version("imagefs"),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "left_out": sorted(OF_PROCESSES),
        "tables": {table.name: rows.count(connection, table) for table in tables},
        "last_numbers": rows.last_numbers(backend, connection),
    }
    for table in tables:
        yield {"table": table.name, "columns": table.columns.keys()}
        yield from rows.rows(connection, table)


def _uploads(repository: Repository) -> tuple[LeftOut, ...]:
    images = [repository.image(record.image) for record in repository.uploads()]
    return tuple(LeftOut(image.id, image.name) for image in images)


class _Digest:
    """Writes lines, and counts and digests them for the trailer."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._hash = hashlib.sha256()
        self.rows = 0

    def add(self, line: Any) -> None:
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self.rows += isinstance(line, list)
        self._hash.update(text)
        self._write(text)

    def end(self) -> None:
        trailer = {"end": True, "rows": self.rows, "sha256": self._hash.hexdigest()}
        self._write(json.dumps(trailer).encode() + b"\n")


class _Load:
    """One dump on its way into a database."""

    def __init__(self, repository: Repository, where: str) -> None:
        self._repository = repository
        self._connection = repository.connection
        self._where = where
        self._left = {table.name: table for table in rows.tables()}
        self._loading: rows.Loading | None = None
        self._counts: dict[str, int] = {}
        self._hash = hashlib.sha256()
        self._rows = 0

    def run(self, lines: Iterable[bytes]) -> Dumped:
        found = iter(lines)
        try:
            header = _check_header(self._next(found))
            self._check_new()
            rows.clear(self._connection)
            trailer = self._tables(found)
            self._check_end(trailer, header["tables"], next(found, b""))
            numbers = {str(name): int(number) for name, number in header["last_numbers"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidValue(_DUMP, f"line {self._lines_read}: {error}") from error
        rows.go_on(self._repository.backend, self._connection, numbers)
        return Dumped(self._rows)

    _lines_read = 0

    def _next(self, lines: Iterator[bytes]) -> Any:
        text = next(lines, b"")
        self._lines_read += 1
        if not text.endswith(b"\n"):
            raise InvalidValue(_DUMP, "is cut: it has no last line")
        line = json.loads(text)
        if not (isinstance(line, dict) and line.get("end")):
            self._hash.update(text)
        return line

    def _check_new(self) -> None:
        table = rows.in_use(self._connection)
        if table:
            told = f"has rows in {table}: a dump is loaded into an empty database only"
            raise AlreadyExists(self._where, told)

    def _tables(self, lines: Iterator[bytes]) -> dict[str, Any]:
        """Read all tables; return the trailer."""
        name = ""
        while True:
            line = self._next(lines)
            if isinstance(line, list):
                if self._loading is None:
                    raise ValueError("a row of no table")
                self._loading.add(line)
                self._counts[name] += 1
                self._rows += 1
                continue
            if self._loading is not None:
                self._loading.end()
            if line.get("end"):
                return dict(line)
            name = line["table"]
            table = self._left.pop(name)
            self._loading = rows.Loading(self._connection, table, line["columns"])
            self._counts[name] = 0

    def _check_end(self, trailer: dict[str, Any], tables: dict[str, int], more: bytes) -> None:
        if more:
            raise ValueError("something follows the last line")
        is_whole = trailer["rows"] == self._rows and self._counts == tables and not self._left
        if not is_whole or trailer["sha256"] != self._hash.hexdigest():
            raise ValueError("it was changed: the digest is another one")


def _check_header(header: Any) -> dict[str, Any]:
    if not isinstance(header, dict) or header.get("imagefs") != "dump":
        raise ValueError("is no dump of imagefs")
    program, schema = header["program"], header["schema"]
    if header["format"] > FORMAT or schema > SCHEMA:
        raise SchemaTooNew(_DUMP, f"is of imagefs {program}: load it with that one, or a newer one")
    if schema < SCHEMA:
        told = f"is of imagefs {program}: load it with that one, then 'imagefs db upgrade'"
        raise SchemaTooOld(_DUMP, told)
    return header
