"""The part that all modules of the repository share: connection, change feed, checks of rows.

A damaged database contains rows that imagefs has never written.  Here, where rows become objects,
they become one kind of error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from functools import wraps
from types import FunctionType
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Table, and_
from sqlalchemy.exc import InvalidRequestError

from catalog import cause
from catalog.errors import CatalogDamaged
from catalog.model.activity import ChangeKind, EventKind, Told
from catalog.model.clock import now
from catalog.process import Process
from catalog.repository.statements.prepared import Prepared
from catalog.repository.tables import changes, history

_TELL = Prepared(changes.insert(), columns=("kind", "image", "folder", "name", "origin", "at"))
_RECORD = Prepared(
    history.insert(),
    columns=("at", "image", "image_id", "host", "frontend", "principal", "kind", "detail"),
)
_LONGEST_NAME = 255
_Method = TypeVar("_Method", bound=Callable[..., Any])


class Rows:
    """Statements over one connection with an open transaction."""

    def __init_subclass__(cls) -> None:
        """Let every public method raise CatalogDamaged for rows that make no sense."""
        super().__init_subclass__()
        for name, method in list(vars(cls).items()):
            if isinstance(method, FunctionType) and not name.startswith("_"):
                setattr(cls, name, _telling_damage(method))

    def __init__(
        self, connection: Connection, origin: str, stores: Container[str] | None = None
    ) -> None:
        """`origin` names this process in the change feed; `stores` are those in the tree.

        Without `stores` all of them are in the tree.  Entries in other stores have rows, but no
        name that anybody could find.
        """
        self.connection = connection
        self.origin = origin
        self.stores = stores
        self.told: list[Told] = []
        """What was appended to the change feed so far."""

    def left(self, folder: int, name: str) -> None:
        """Called when an entry or folder loses its name, in the same transaction."""

    def counted(self, table: Table, number: int) -> None:
        """Called when a row was added with a given number, in the same transaction."""

    def count_again(self, image: int) -> None:
        """Called before an image's row or its entries change, in the same transaction."""

    def count_new(self, image: int) -> None:
        """Called when an image was added, in the same transaction."""

    def count_forgotten(self, number: int) -> None:
        """Called when so many rows of deleted images were dropped, in the same transaction."""

    def tell(
        self,
        kind: ChangeKind,
        *,
        image: int | None = None,
        folder: int | None = None,
        name: str | None = None,
    ) -> None:
        """Append to the change feed, in the transaction of the change itself."""
        self.told.append(Told(kind, folder, name, image))
        _TELL.change(
            self.connection,
            kind=kind,
            image=image,
            folder=folder,
            name=name,
            origin=self.origin,
            at=now(),
        )

    def record(
        self, kind: EventKind, image: int, *, image_id: str | None = None, **detail: Any
    ) -> None:
        """Append to the image's history, in the transaction of the change itself.

        Who did it is the cause of what this thread does.  `image_id` finds the image's history when
        its row is gone.
        """
        present = cause.current()
        _RECORD.change(
            self.connection,
            at=now(),
            image=image,
            image_id=image_id,
            host=self.origin.partition("/")[0],
            frontend=present.frontend,
            principal=present.principal[:_LONGEST_NAME],
            kind=kind,
            detail=json.dumps(detail, ensure_ascii=False),
        )


def _telling_damage(method: _Method) -> _Method:
    @wraps(method)
    def told(self: Rows, *arguments: Any, **named: Any) -> Any:
        try:
            return method(self, *arguments, **named)
        except (UnicodeEncodeError, OverflowError):
            raise  # from the caller's values, not from a row
        except (ValueError, TypeError, LookupError, AttributeError, InvalidRequestError) as error:
            where = self.connection.engine.url.render_as_string(hide_password=True)
            raise CatalogDamaged(where, f"a row makes no sense: {error}") from error

    return told  # type: ignore[return-value]


def is_of(table: Table, process: Process) -> ColumnElement[bool]:
    """Whether a row of a table of processes is of this one."""
    return and_(*(table.c[name] == value for name, value in values_of(process).items()))


def values_of(process: Process) -> dict[str, Any]:
    """The columns that name a process, in each table that has them."""
    return {
        "host": process.host,
        "boot": process.boot,
        "pid": process.pid,
        "started": process.started,
    }


def going_on(after: int, last: int) -> None:
    """Raise ValueError unless a page ends behind `after`.

    With a damaged index whoever reads page by page would go in circles.
    """
    if last <= after:
        raise ValueError(f"row {last} comes behind row {after}")


class RowCheck:
    """Checks that the values of a row have their columns' types: SQLite itself accepts any."""

    def __init__(self, *columns: Column[Any]) -> None:
        self._columns = columns
        self._good: set[tuple[type, ...]] = set()

    def __call__(self, row: Sequence[Any]) -> None:
        """Raise ValueError if one has not.  Only the first row with the same types takes time."""
        kinds = tuple(map(type, row))
        if kinds in self._good:
            return
        for column, value in zip(self._columns, row, strict=True):
            if not (column.nullable if value is None else _fits(column, value)):
                raise ValueError(f"{column.table.name}.{column.name} is {str(value)[:60]!r}")
        self._good.add(kinds)


def _fits(column: Column[Any], value: object) -> bool:
    return isinstance(value, column.type.python_type)
