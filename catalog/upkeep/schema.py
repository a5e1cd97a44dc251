"""The schema of the catalog's database: what it is, whether it fits, and bringing it up to date.

Threading: any.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from catalog.errors import CatalogDamaged, CatalogError, NoCatalog, SchemaTooOld
from catalog.repository import schema
from catalog.repository.administration.grants import Role
from catalog.repository.administration.grants import grants as grants_of
from catalog.repository.database import Database
from catalog.repository.schema import SCHEMA, Step


@dataclass(frozen=True, slots=True)
class Checked:
    """One thing that was looked at; `problem` is None if it is as it should be."""

    subject: str
    detail: str
    problem: CatalogError | None = None


def check(url: str) -> Iterator[Checked]:
    """Look at the schema, the database and its server's settings.

    Raises NoCatalog, CatalogUnavailable.
    """
    with closing(Database.open(url)) as database:
        yield _schema(database)
        damages = database.damages()
        for damage in damages:
            yield Checked("database", damage, CatalogDamaged(database.backend.where, damage))
        if not damages:
            yield Checked("database", "is sound")
        unfit = database.unfit()
        for told in unfit:
            yield Checked("server", told, CatalogError("server", told))
        if not unfit:
            yield Checked("server", "its settings are fit")


def _schema(database: Database) -> Checked:
    version = _version(database)
    if version < SCHEMA:
        told = f"{version} is older than {SCHEMA}, this program's: run 'imagefs db upgrade'"
        return Checked("schema", told, SchemaTooOld(database.backend.where, told))
    if version == SCHEMA:
        return Checked("schema", f"{version} is this program's")
    try:
        schema.check_usable(database.backend, version)
    except CatalogError as error:
        return Checked("schema", error.reason, error)
    return Checked("schema", f"{version} is newer than {SCHEMA}, and this program may use it")


def upgrade(url: str) -> list[Step]:
    """Bring the schema up to date; return what was done.

    Raises NoCatalog, SchemaTooNew, CatalogUnavailable, CatalogLocked.
    """
    with closing(Database.open(url)) as database:
        todo = schema.steps(version) if (version := _version(database)) < SCHEMA else []
        if todo:
            schema.migrate(database.backend)
        return todo


def statements(url: str) -> Iterator[tuple[Step, str]]:
    """What `upgrade` would do: each step with its SQL.  Raises NoCatalog, CatalogUnavailable."""
    with closing(Database.open(url)) as database:
        version = _version(database)
        if version < SCHEMA:
            yield from schema.statements(database.backend, version)


def _version(database: Database) -> str:
    version = database.schema()
    if version is None:
        raise NoCatalog(database.backend.where)
    return version


def grants(url: str, role: str, user: str) -> list[str]:
    """The SQL that gives a user of the server the rights of a role, a line for each statement.

    Raises NotSupported for SQLite.
    """
    with closing(Database.open(url)) as database:
        return grants_of(database.backend, Role(role), user)
