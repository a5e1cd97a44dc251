"""The schema's history, for Alembic; `catalog.repository.schema.migrate` runs it."""
