"""Who uses an image, and its last use"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

# As in catalog/repository/tables.py: a migration keeps its own, because the models move on.
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("leases", sa.Column("users", sa.Text()))
    op.create_table(
        "last_uses",
        sa.Column("image", Number, nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image"], ["images.number"], name="fk_last_uses_image", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image", name="pk_last_uses"),
    )
