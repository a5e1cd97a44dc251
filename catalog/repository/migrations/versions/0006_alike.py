"""Names that look the same are found as one"""

from __future__ import annotations

from unicodedata import normalize

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

# As in catalog/repository/tables.py and catalog/model/names.py: a migration keeps its own, because
# they move on.
Name = sa.String(255)
SPACES = dict.fromkeys([0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " ")


def upgrade() -> None:
    for table, folder in (("folders", "parent"), ("locations", "folder")):
        op.add_column(table, sa.Column("alike", Name))
        op.create_index(f"ix_{table}_{folder}_alike", table, [folder, "alike"])
        _fill(table)


def _fill(table: str) -> None:
    """Nothing is renamed: of names that look the same already, each is still found by its own."""
    if op.get_context().as_sql:
        op.execute(f"-- {table}.alike is filled row by row")
        return
    rows = sa.table(table, sa.column("number"), sa.column("name"), sa.column("alike"))
    connection = op.get_bind()
    found = connection.execute(
        sa.select(rows.c.number, rows.c.name).where(rows.c.name.is_not(None))
    )
    for number, name in found.all():
        alike = normalize("NFC", name).translate(SPACES)
        if alike != name:
            connection.execute(sa.update(rows).where(rows.c.number == number).values(alike=alike))
