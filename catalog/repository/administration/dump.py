"""All rows as values that JSON has, from one database and into another one.

Left out are the rows of processes (`tables.OF_PROCESSES`), and of the change feed all but its
newest row: who follows the feed begins behind it.  Memory is flat: rows come and go in pages.
Threading: as a transaction.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    LargeBinary,
    Table,
    and_,
    func,
    insert,
    select,
    tuple_,
    update,
)

from catalog.repository.engines.backend import Backend
from catalog.repository.tables import (
    COUNTED,
    OF_PROCESSES,
    UtcDateTime,
    changes,
    folders,
    metadata,
    schema_floor,
    store_marks,
)

MADE_WITH_THE_CATALOG = ("root", "store", "trash")
"""Kinds of folders that a new catalog has."""

PAGE = 1000
_PAGE_OF_BLOBS = 16
"""A blob may have 8 MiB."""
_NOT_YET = "/"
"""The name of a folder whose parent is not there yet: no folder is called so."""

Row = Sequence[Any]
_Convert = Callable[[Any], Any]


def tables() -> list[Table]:
    """The tables that are dumped; each comes after those that it refers to."""
    left_out = OF_PROCESSES | {schema_floor.name}  # the schema's own, and not the catalog's
    return [table for table in metadata.sorted_tables if table.name not in left_out]


def count(connection: Connection, table: Table) -> int:
    """The number of rows of a table that are dumped."""
    found: int = connection.execute(select(func.count()).select_from(table)).scalar_one()
    return min(found, 1) if table is changes else found


def rows(connection: Connection, table: Table) -> Iterator[list[Any]]:
    """The rows of a table as JSON has them, in the order of its key."""
    to_json = [_to_json(column) for column in table.columns]
    for row in _pages(connection, table):
        yield [
            value if value is None or convert is None else convert(value)
            for value, convert in zip(row, to_json, strict=True)
        ]


def _pages(connection: Connection, table: Table) -> Iterator[Row]:
    """By pages, not by one long statement: servers end those that take long."""
    key = list(table.primary_key.columns)
    has_blobs = any(isinstance(column.type, LargeBinary) for column in table.columns)
    size = _PAGE_OF_BLOBS if has_blobs else PAGE
    at = [list(table.columns).index(column) for column in key]
    first = select(table).order_by(*key).limit(size)
    if table is changes:
        first = first.where(table.c.number == select(func.max(table.c.number)).scalar_subquery())
    statement = first
    while True:
        page = connection.execute(statement).all()
        yield from page
        if len(page) < size:
            return
        last = [page[-1][index] for index in at]
        # The first condition says nothing new, but MariaDB finds a place in an index by it only.
        statement = first.where(and_(key[0] >= last[0], tuple_(*key) > tuple_(*last)))


def last_numbers(backend: Backend, connection: Connection) -> dict[str, int]:
    """Table -> the greatest number that it has ever given to a row, which is never used again."""
    found = {name: backend.last_number(connection, metadata.tables[name]) for name in COUNTED}
    return {name: number for name, number in found.items() if number}


def in_use(connection: Connection) -> str:
    """The first table with rows that a new catalog does not have; empty if there is none."""
    for table in tables():
        statement = select(table).limit(1)
        if table is folders:
            statement = statement.where(table.c.kind.not_in(MADE_WITH_THE_CATALOG))
        if (
            table not in (changes, store_marks)
            and connection.execute(statement).first() is not None
        ):
            return table.name
    return ""


def clear(connection: Connection) -> None:
    """Remove the rows of a new catalog."""
    connection.execute(changes.delete())
    connection.execute(store_marks.delete())
    numbers = select(folders.c.number).order_by(folders.c.number.desc())
    # One by one, from the leaves on: MariaDB looks at each row whether another one refers to it.
    for number in connection.execute(numbers).scalars().all():
        connection.execute(folders.delete().where(folders.c.number == number))


class Loading:
    """Rows on their way into one table."""

    def __init__(self, connection: Connection, table: Table, columns: Sequence[str]) -> None:
        """`columns` name the values of each row.  Raises ValueError if they are not the table's."""
        if sorted(columns) != sorted(table.columns.keys()):
            raise ValueError(f"{table.name} has other columns")
        self._connection = connection
        self._table = table
        self._columns = columns
        self._from_json = [_from_json(table.c[name]) for name in columns]
        has_blobs = any(isinstance(column.type, LargeBinary) for column in table.columns)
        self._size = _PAGE_OF_BLOBS if has_blobs else PAGE
        self._page: list[dict[str, Any]] = []
        self._later: list[dict[str, Any]] = []

    def add(self, row: Row) -> None:
        """Add one row.  Raises ValueError for a value of another kind."""
        values = [
            value if value is None or convert is None else convert(value)
            for value, convert in zip(row, self._from_json, strict=True)
        ]
        self._page.append(self._ordered(dict(zip(self._columns, values, strict=True))))
        if len(self._page) >= self._size:
            self._flush()

    def end(self) -> None:
        """Write what is left."""
        self._flush()
        for row in self._later:
            at = folders.c.number == row["number"]
            values = {"parent": row["parent"], "name": row["name"]}
            self._connection.execute(update(folders).where(at).values(values))

    def _ordered(self, row: dict[str, Any]) -> dict[str, Any]:
        """A folder that was moved into a younger one gets its place at the end."""
        if self._table is not folders or row["parent"] <= row["number"]:
            return row
        self._later.append(row)
        return row | {"parent": row["number"], "name": _NOT_YET}

    def _flush(self) -> None:
        if self._page:
            self._connection.execute(insert(self._table), self._page)
            self._page = []


def go_on(backend: Backend, connection: Connection, numbers: dict[str, int]) -> None:
    """Let the numbers of new rows go on after these.

    The last act of a transaction: MariaDB may commit with it.
    """
    for name in COUNTED:
        if name in numbers:
            backend.count_beyond(connection, metadata.tables[name], numbers[name])


def _to_json(column: Column[Any]) -> _Convert | None:
    if isinstance(column.type, UtcDateTime):
        return _time_to_json
    return _blob_to_json if isinstance(column.type, LargeBinary) else None


def _time_to_json(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _blob_to_json(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _from_json(column: Column[Any]) -> _Convert | None:
    if isinstance(column.type, UtcDateTime):
        return datetime.fromisoformat
    return base64.b64decode if isinstance(column.type, LargeBinary) else None
