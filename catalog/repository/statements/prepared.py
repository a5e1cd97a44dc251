"""Statements that are compiled once, and executed past SQLAlchemy's own way.

To build a statement, find it in SQLAlchemy's cache and wrap its result takes ten times as long as
SQLite needs to answer it.  Statements of everyday requests are therefore `Prepared`: SQLAlchemy
writes their SQL for the kind of database at hand, and its types convert the values, so that they
work on every database.  SQLAlchemy's events see only the transaction.

Threading: any thread; a connection belongs to one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Delete, Dialect, Insert, Select, Update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

_Convert = Callable[[Any], Any]
_Result = TypeVar("_Result")
_Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A value that the driver gets with a statement."""

    name: str
    is_given: bool
    """Whether each execution gives its value; otherwise it is always `fixed`."""
    fixed: Any
    convert: _Convert | None
    """Makes the driver's value of a given one."""

    def of(self, values: Mapping[str, Any]) -> Any:
        if not self.is_given:
            return self.fixed
        value = values[self.name]
        return value if self.convert is None else self.convert(value)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A statement as one kind of database gets it."""

    text: str
    wanted: tuple[_Parameter, ...]
    is_positional: bool
    found: tuple[tuple[int, _Convert], ...]
    """The columns of the result that are converted: position, how."""

    def parameters(self, values: Mapping[str, Any]) -> tuple[Any, ...] | dict[str, Any]:
        """The values as the driver takes them."""
        if self.is_positional:
            return tuple([each.of(values) for each in self.wanted])
        return {each.name: each.of(values) for each in self.wanted}

    def converted(self, rows: Collection[Any]) -> list[Any]:
        """The driver's rows with the values that the columns' types promise."""
        if not self.found:
            return list(rows)
        converted = []
        for row in rows:
            fields = list(row)
            for at, convert in self.found:
                fields[at] = convert(fields[at])
            converted.append(fields)
        return converted


class Prepared:
    """One statement, without `IN` lists.  Its values are given by name at each execution."""

    def __init__(self, statement: _Statement, columns: Collection[str] = ()) -> None:
        """`columns` are those that an INSERT or UPDATE sets, each from the value of its name."""
        self._statement = statement
        self._columns = list(columns) or None
        self._plans: dict[tuple[str, str], _Plan] = {}

    def rows(self, connection: Connection, **values: Any) -> list[Any]:
        """Execute it; all rows of its result, each a sequence of values."""
        plan = self._plan(connection.dialect)
        return plan.converted(_execute(connection, plan, values, _all_rows))

    def row(self, connection: Connection, **values: Any) -> Any:
        """Execute it; the first row of its result, or None."""
        found = self.rows(connection, **values)
        return found[0] if found else None

    def change(self, connection: Connection, **values: Any) -> int:
        """Execute it; the number of rows that it has changed."""
        return _execute(connection, self._plan(connection.dialect), values, _row_count)

    def _plan(self, dialect: Dialect) -> _Plan:
        key = dialect.name, dialect.driver
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = _compile(self._statement, self._columns, dialect)
        return plan


def _all_rows(cursor: Any) -> list[Any]:
    return list(cursor.fetchall())


def _row_count(cursor: Any) -> int:
    return int(cursor.rowcount)


def _execute(
    connection: Connection, plan: _Plan, values: Mapping[str, Any], take: Callable[[Any], _Result]
) -> _Result:
    """Execute a statement in the connection's transaction, which is begun if there is none."""
    if not connection.in_transaction():
        connection.begin()
    parameters = plan.parameters(values)
    try:
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(plan.text, parameters)
            return take(cursor)
    except Exception as error:
        driver = connection.dialect.dbapi
        if driver is None or not isinstance(error, driver.Error):
            raise
        raise _as_by_sqlalchemy(connection, plan, parameters, error, driver.Error) from error


def _compile(statement: _Statement, columns: list[str] | None, dialect: Dialect) -> _Plan:
    compiled = statement.compile(dialect=dialect, column_keys=columns)
    assert isinstance(compiled, SQLCompiler)
    names = compiled.positiontup if compiled.positional else compiled.params
    wanted = tuple(_parameter(compiled, name, dialect) for name in names or ())
    found = []
    for at, column in enumerate(statement.exported_columns):
        convert = column.type.dialect_impl(dialect).result_processor(dialect, None)
        if convert is not None:
            found.append((at, convert))
    return _Plan(str(compiled), wanted, bool(compiled.positional), tuple(found))


def _parameter(compiled: SQLCompiler, name: str, dialect: Dialect) -> _Parameter:
    bind = compiled.binds[name]
    convert = bind.type.dialect_impl(dialect).bind_processor(dialect)
    if bind.required:
        return _Parameter(name, True, None, convert)
    fixed = bind.effective_value
    return _Parameter(name, False, fixed if convert is None else convert(fixed), None)


def _as_by_sqlalchemy(
    connection: Connection, plan: _Plan, parameters: Any, error: Any, base: type[Exception]
) -> BaseException:
    """What SQLAlchemy would raise for the driver's error; a lost connection is not used again."""
    dialect = connection.dialect
    is_lost = dialect.is_disconnect(error, connection.connection.dbapi_connection, None)
    if is_lost:
        connection.invalidate(error)
    raised: BaseException = DBAPIError.instance(
        plan.text, parameters, error, base, connection_invalidated=is_lost, dialect=dialect
    )
    return raised
