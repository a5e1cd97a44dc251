"""Users, members of shared images, locks"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# As in catalog/repository/tables.py: a migration keeps its own, because the models move on.
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Name = sa.String(255)
Path = sa.Text()


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("name", Name, nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("project", Name, nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_users"),
    )
    op.create_table(
        "members",
        sa.Column("image", Number, nullable=False),
        sa.Column("member", Name, nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image"], ["images.number"], name="fk_members_image", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image", "member", name="pk_members"),
    )
    op.create_table(
        "locks",
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("path", Path, nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("deep", sa.Boolean(), nullable=False),
        sa.Column("owner_xml", sa.Text(), nullable=False),
        sa.Column("principal", Name, nullable=False),
        sa.Column("timeout", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_locks"),
    )
    # MySQL indexes only the beginning of a text.
    op.create_index("ix_locks_path", "locks", ["path"], mysql_length=255, mariadb_length=255)
