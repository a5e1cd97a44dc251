"""The schema's version, which programs may use it, and its migrations.

The rules: docs/adr/0032-two-versions-side-by-side.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select, text
from sqlalchemy.exc import SQLAlchemyError

from catalog.errors import CatalogFull, CatalogUnavailable, NoCatalog, SchemaTooNew, SchemaTooOld
from catalog.repository.engines.backend import WRITE, Backend
from catalog.repository.engines.opening import reserve_of
from catalog.repository.tables import schema_floor

if TYPE_CHECKING:
    from alembic.config import Config

SCHEMA = "0013"
"""The newest migration that this program knows; a test compares it with `migrations/`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One migration."""

    revision: str
    title: str


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
    """Let only such programs use the schema as may.

    An older one is migrated, but in a server, where others may be using it.  Raises NoCatalog,
    SchemaTooNew, SchemaTooOld.
    """
    version = _first_look(backend)
    if version is None:
        raise NoCatalog(backend.where)
    if version > SCHEMA:
        check_usable(backend, version)
    elif version < SCHEMA and backend.is_shared:
        told = f"schema {version} is older than {SCHEMA}, this program's: run 'imagefs db upgrade'"
        raise SchemaTooOld(backend.where, told)
    elif version < SCHEMA:
        migrate(backend)


def make_schema(backend: Backend) -> None:
    """Make the schema where there is none.  Otherwise as `check_schema`."""
    if schema_version(backend) is None:
        migrate(backend)
    else:
        check_schema(backend)


def check_usable(backend: Backend, version: str) -> None:
    """Raise SchemaTooNew if this program may not use a newer schema."""
    with backend.errors(), backend.connect() as connection:
        if connection.dialect.has_table(connection, schema_floor.name):
            oldest = connection.execute(select(schema_floor.c.oldest)).scalar()
            if oldest is not None and oldest <= SCHEMA:
                return
    raise _too_new(backend, version)


def _too_new(backend: Backend, version: str) -> SchemaTooNew:
    told = f"schema {version} is newer than {SCHEMA}: upgrade imagefs"
    return SchemaTooNew(backend.where, told)


def _first_look(backend: Backend) -> str | None:
    """As `schema_version`, with the reserve: SQLite needs some room even to begin."""
    reserve = reserve_of(backend)
    while True:
        try:
            return schema_version(backend)
        except CatalogFull:
            if not reserve.release():
                raise


def steps(version: str | None) -> list[Step]:
    """The migrations that lead from a version to this program's, the first one first."""
    from alembic.script import ScriptDirectory

    found = ScriptDirectory.from_config(_config()).iterate_revisions(SCHEMA, version or "base")
    return [Step(script.revision, script.doc) for script in found][::-1]


def statements(backend: Backend, version: str | None) -> Iterator[tuple[Step, str]]:
    """Each migration with its SQL, of which nothing is done.

    What a migration fills in row by row is named in a comment.
    """
    from alembic import command

    with backend.errors(), backend.connect() as connection:
        for step in steps(version):
            config = _config(connection)
            config.output_buffer = written = StringIO()
            command.upgrade(config, f"{version or 'base'}:{step.revision}", sql=True)
            version = step.revision
            yield step, written.getvalue().strip()


def migrate(backend: Backend) -> None:
    """Make the schema, or bring it up to `SCHEMA`: by all steps, or by none.

    MariaDB commits each change by itself; there an interrupted upgrade goes on when it is repeated.
    Raises SchemaTooNew, CatalogLocked.
    """
    # Imported here: Alembic takes longer to load than most commands take to run.
    from alembic import command

    try:
        with (
            backend.errors(),
            backend.turn_to_migrate(),
            backend.connect().execution_options(**WRITE) as connection,
            # Begun here, because Alembic would commit each step.  If one step failed then, the
            # catalog would have a version that no program knows.
            connection.begin(),
        ):
            backend.begin_migration(connection)
            version = _version(connection)
            if version is not None and version > SCHEMA:
                # Another program may have made it newer while this one waited for its turn.
                raise _too_new(backend, version)
            command.upgrade(_config(connection), SCHEMA)
    except SQLAlchemyError as error:
        raise CatalogUnavailable(backend.where, str(error)) from error


def _config(connection: Any = None) -> Config:
    """Alembic's configuration; its environment takes the connection from there."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "catalog.repository:migrations")
    config.attributes["connection"] = connection
    return config
