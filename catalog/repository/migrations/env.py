"""Alembic's environment: the connection comes from `catalog.repository.schema.migrate`."""

from __future__ import annotations

from alembic import context

from catalog.repository.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most things in place: rebuild the table instead.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
