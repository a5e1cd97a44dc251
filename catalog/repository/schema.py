"""The schema's version, and its migration to the newest."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from catalog.errors import CatalogFull, CatalogUnavailable, NoCatalog, SchemaTooNew
from catalog.repository.engine import catalog_errors, reserve_of
from catalog.repository.sqlite import WRITE, turn_to_write

SCHEMA = "0008"
"""The newest migration that this program knows; a test compares it with `migrations/`."""


def schema_version(engine: Engine) -> str | None:
    """The version of the database's schema; None for an empty database."""
    with catalog_errors(engine), engine.connect() as connection:
        return _version(connection)


def _version(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    version: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar()
    return version


def check_schema(engine: Engine) -> None:
    """Migrate an older schema; refuse a newer or a missing one.

    Raises NoCatalog, SchemaTooNew.
    """
    version = _first_look(engine)
    if version is None:
        raise NoCatalog(engine.url.render_as_string(hide_password=True))
    if version != SCHEMA:
        migrate(engine)


def make_schema(engine: Engine) -> None:
    """Make the schema, or migrate an older one.  Raises SchemaTooNew."""
    if schema_version(engine) != SCHEMA:
        migrate(engine)


def _first_look(engine: Engine) -> str | None:
    """As `schema_version`, with the reserve: SQLite needs some room even to begin."""
    reserve = reserve_of(engine)
    while True:
        try:
            return schema_version(engine)
        except CatalogFull:
            if not reserve.release():
                raise


def _check_not_newer(engine: Engine, version: str | None) -> None:
    """Raise SchemaTooNew if a newer program has made the schema."""
    if version is not None and version > SCHEMA:
        where = engine.url.render_as_string(hide_password=True)
        raise SchemaTooNew(where, f"schema {version} is newer than {SCHEMA}: upgrade imagefs")


def migrate(engine: Engine) -> None:
    """Make the schema, or bring it up to `SCHEMA`: by all steps, or by none.

    Raises SchemaTooNew.
    """
    # Imported here: Alembic takes longer to load than most commands take to run.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "catalog.repository:migrations")
    try:
        with (
            catalog_errors(engine),
            turn_to_write(engine),
            engine.connect().execution_options(**WRITE) as connection,
            # Begun here, because Alembic would commit each step.  If one step failed then, the
            # catalog would have a version that no program knows.
            connection.begin(),
        ):
            _check_not_newer(engine, _version(connection))
            config.attributes["connection"] = connection
            command.upgrade(config, SCHEMA)
    except SQLAlchemyError as error:
        raise CatalogUnavailable(engine.url.render_as_string(), str(error)) from error
