"""The oldest schema whose programs may use this one"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "schema_floor",
        sa.Column("oldest", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("oldest", name="pk_schema_floor"),
    )
    op.execute("DELETE FROM schema_floor")  # on MariaDB this step may be done again
    op.execute("INSERT INTO schema_floor (oldest) VALUES ('0010')")
