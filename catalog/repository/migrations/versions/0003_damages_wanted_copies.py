"""Damaged copies, copies to be made"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# As in catalog/repository/tables.py: a migration keeps its own, because the models move on.
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "damages",
        sa.Column("location", Number, nullable=False),
        sa.Column("found_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["location"], ["locations.number"], name="fk_damages_location", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("location", name="pk_damages"),
    )
    op.create_table(
        "wanted_copies",
        sa.Column("image", Number, nullable=False),
        sa.Column("store", sa.String(length=64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image"], ["images.number"], name="fk_wanted_copies_image", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image", "store", name="pk_wanted_copies"),
    )
