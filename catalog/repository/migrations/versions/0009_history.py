"""Who changed what of an image, when, and through which frontend"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

# As in catalog/repository/tables.py: a migration keeps its own, because the models move on.
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # Images that are there already begin their history with their next change.
    op.create_table(
        "history",
        sa.Column("number", Number, nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("image", Number, nullable=False),
        sa.Column("image_id", sa.String(length=36)),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("frontend", sa.String(length=16), nullable=False),
        sa.Column("principal", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_history"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_history_image", "history", ["image"])
    op.create_index("ix_history_image_id", "history", ["image_id"])
