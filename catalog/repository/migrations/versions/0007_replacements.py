"""What takes the place of what, and what is spared"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

# As in catalog/repository/tables.py: a migration keeps its own, because the models move on.
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "replacements",
        sa.Column("image", Number, nullable=False),
        sa.Column("replaced", Number, nullable=False),
        sa.ForeignKeyConstraint(
            ["image"], ["images.number"], name="fk_replacements_image", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image", name="pk_replacements"),
    )
    op.create_index("ix_replacements_replaced", "replacements", ["replaced"])
    op.create_table(
        "spared",
        sa.Column("image", Number, nullable=False),
        sa.Column("failed_at", sa.DateTime(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image"], ["images.number"], name="fk_spared_image", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image", name="pk_spared"),
    )
    op.create_index("ix_images_name_status", "images", ["name", "status"])
