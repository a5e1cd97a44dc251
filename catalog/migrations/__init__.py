"""The schema's history, for Alembic; `catalog.database.migrate` runs it."""
