"""The schema's version, and its migration to the newest."""

from __future__ import annotations

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from catalog.errors import CatalogFull, CatalogUnavailable, NoCatalog, SchemaTooNew
from catalog.repository.engine import reserve_of
from catalog.repository.engines.backend import WRITE, Backend

SCHEMA = "0009"
"""The newest migration that this program knows; a test compares it with `migrations/`."""


def schema_version(backend: Backend) -> str | None:
    """The version of the database's schema; None for an empty database."""
    with backend.errors(), backend.connect() as connection:
        return _version(connection)


def _version(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    version: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar()
    return version


def check_schema(backend: Backend) -> None:
    """Migrate an older schema; refuse a newer or a missing one.

    Raises NoCatalog, SchemaTooNew.
    """
    version = _first_look(backend)
    if version is None:
        raise NoCatalog(backend.where)
    if version != SCHEMA:
        migrate(backend)


def make_schema(backend: Backend) -> None:
    """Make the schema, or migrate an older one.  Raises SchemaTooNew."""
    if schema_version(backend) != SCHEMA:
        migrate(backend)


def _first_look(backend: Backend) -> str | None:
    """As `schema_version`, with the reserve: SQLite needs some room even to begin."""
    reserve = reserve_of(backend)
    while True:
        try:
            return schema_version(backend)
        except CatalogFull:
            if not reserve.release():
                raise


def _check_not_newer(backend: Backend, version: str | None) -> None:
    """Raise SchemaTooNew if a newer program has made the schema."""
    if version is not None and version > SCHEMA:
        where = backend.where
        raise SchemaTooNew(where, f"schema {version} is newer than {SCHEMA}: upgrade imagefs")


def migrate(backend: Backend) -> None:
    """Make the schema, or bring it up to `SCHEMA`: by all steps, or by none.

    MariaDB commits each change by itself; there an interrupted upgrade goes on when it is repeated.
    Raises SchemaTooNew.
    """
    # Imported here: Alembic takes longer to load than most commands take to run.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "catalog.repository:migrations")
    try:
        with (
            backend.errors(),
            backend.turn_to_migrate(),
            backend.connect().execution_options(**WRITE) as connection,
            # Begun here, because Alembic would commit each step.  If one step failed then, the
            # catalog would have a version that no program knows.
            connection.begin(),
        ):
            _check_not_newer(backend, _version(connection))
            config.attributes["connection"] = connection
            command.upgrade(config, SCHEMA)
    except SQLAlchemyError as error:
        raise CatalogUnavailable(backend.where, str(error)) from error
