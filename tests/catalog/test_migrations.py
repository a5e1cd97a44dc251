"""The migrations make exactly what the models say."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from catalog.catalog import Catalog
from catalog.database import SCHEMA
from catalog.models import metadata


def test_a_fresh_schema_is_that_of_the_models(catalog: Catalog) -> None:
    """Alembic finds no difference between the migrated database and models.py."""
    with catalog.read() as repository:
        context = MigrationContext.configure(
            repository.connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_every_table_of_the_models_is_made(catalog: Catalog) -> None:
    """The comparison above cannot pass on an empty database."""
    with catalog.read() as repository:
        made = set(repository.connection.dialect.get_table_names(repository.connection))
    assert made == {*metadata.tables, "alembic_version"}


def test_schema_is_the_newest_revision() -> None:
    """`SCHEMA` names the only head there is."""
    config = Config()
    config.set_main_option("script_location", "catalog:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA]


def test_numbers_are_never_used_again(catalog: Catalog) -> None:
    """Every table whose number is an inode or a cookie counts up for ever (AUTOINCREMENT)."""
    with catalog.read() as repository:
        rows = repository.connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'"
        )
        assert {"images", "folders", "locations", "changes"} <= set(rows.scalars())
