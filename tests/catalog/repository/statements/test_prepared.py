"""Prepared statements do what SQLAlchemy would do with the same statement."""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, bindparam, delete, or_, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError

import catalog.repository
from catalog.catalog import Catalog
from catalog.model.access import Role
from catalog.repository.statements.prepared import Prepared, _compile
from catalog.repository.tables import folders, users

AT = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
ADD = Prepared(users.insert(), columns=users.c.keys())
BY_NAME = Prepared(select(users).where(users.c.name == bindparam("name")))


def add(connection: Connection, name: str) -> None:
    """A user."""
    values = {"password_hash": "x", "role": Role.MEMBER, "project": "", "created_at": AT}
    ADD.change(connection, name=name, updated_at=AT, **values)


def statements() -> list[tuple[str, Prepared]]:
    """Every prepared statement of the repository that has a name."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(catalog.repository.__path__, "catalog.repository.")
        if "migrations" not in found.name
    ]
    return [
        (name, value)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Prepared)
    ]


@pytest.mark.parametrize("dialect", [sqlite, postgresql, mysql], ids=lambda it: it.__name__)
def test_each_statement_can_be_written_for_each_database(dialect: object) -> None:
    """What is special to one database must not be in a prepared statement."""
    found = statements()
    assert len(found) > 30
    for name, prepared in found:
        plan = _compile(prepared._statement, prepared._columns, dialect.dialect())  # type: ignore[attr-defined]
        assert plan.text, name


def test_values_and_rows_are_converted(catalog: Catalog) -> None:
    """Times are aware and truth values are no numbers, in both directions."""
    with catalog.write() as repository:
        add(repository.connection, "anna")
        (row,) = BY_NAME.rows(repository.connection, name="anna")
        plain = repository.connection.execute(select(users).where(users.c.name == "anna")).one()
        assert list(row) == list(plain)
        assert row[-1] == AT
        folder = Prepared(select(folders.c.temporary).where(folders.c.number == 1))
        assert list(folder.row(repository.connection)) == [False]
        assert isinstance(folder.row(repository.connection)[0], bool)


def test_values_in_the_statement_itself(catalog: Catalog) -> None:
    """A condition with fixed values needs none at the execution."""
    is_one = or_(users.c.name == "anna", users.c.name == "bert")
    rename = Prepared(update(users).where(is_one), columns=("project",))
    with catalog.write() as repository:
        for name in ("anna", "bert", "carl"):
            add(repository.connection, name)
        assert rename.change(repository.connection, project="p") == 2
        assert BY_NAME.row(repository.connection, name="carl")[3] == ""
        assert Prepared(delete(users).where(is_one)).change(repository.connection) == 2


def test_a_value_that_is_not_given_is_no_null(catalog: Catalog) -> None:
    """A mistake of ours must not write or find rows without the value."""
    with catalog.read() as repository, pytest.raises(KeyError):
        BY_NAME.rows(repository.connection)


def test_a_violated_constraint(catalog: Catalog) -> None:
    """It is SQLAlchemy's error, which the repository catches."""
    with catalog.write() as repository:
        add(repository.connection, "anna")
        with pytest.raises(IntegrityError, match=r"(?i)unique|duplicate"):
            add(repository.connection, "anna")


def test_a_read_begins_a_transaction(catalog: Catalog) -> None:
    """Two reads of one transaction have one view, although another one is committed between."""
    with catalog.read() as repository:
        assert BY_NAME.row(repository.connection, name="anna") is None
        with catalog.write() as other:
            add(other.connection, "anna")
        assert BY_NAME.row(repository.connection, name="anna") is None
    with catalog.read() as repository:
        assert BY_NAME.row(repository.connection, name="anna") is not None


def test_a_failed_write_is_rolled_back(catalog: Catalog) -> None:
    """An exception in the block leaves nothing of what was executed in it."""
    with suppress(ZeroDivisionError), catalog.write() as repository:
        add(repository.connection, "anna")
        raise ZeroDivisionError
    with catalog.read() as repository:
        assert BY_NAME.row(repository.connection, name="anna") is None


@pytest.mark.may_log("Exception (closing|terminating) connection")  # PyMySQL: it is closed already
def test_a_lost_connection_is_not_used_again(catalog: Catalog) -> None:
    """The pool gets a new one for the next transaction."""
    with catalog.read() as repository:
        BY_NAME.rows(repository.connection, name="anna")
        driver = repository.connection.connection.driver_connection
        assert driver is not None
        driver.close()
        with pytest.raises(DBAPIError) as found:
            BY_NAME.rows(repository.connection, name="anna")
        assert found.value.connection_invalidated
        assert repository.connection.invalidated
    with catalog.read() as repository:
        assert BY_NAME.row(repository.connection, name="anna") is None
