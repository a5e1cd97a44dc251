"""A million images: filters and the trash begin at an index, and totals are counted already"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    # An older program would change images and not their totals.
    op.execute("UPDATE schema_floor SET oldest = '0012'")
    op.create_index(
        "ix_properties_value",
        "properties",
        ["value"],
        postgresql_using="hash",
        mysql_length=64,
        mariadb_length=64,
    )
    op.create_index("ix_tags_tag", "tags", ["tag"])
    op.create_index("ix_members_member", "members", ["member"])
    _trash()
    _totals()


def _trash() -> None:
    op.add_column("locations", sa.Column("trashed_at", sa.DateTime()))
    op.execute(
        """
        UPDATE locations SET trashed_at =
            (SELECT coalesce(deleted_at, updated_at) FROM images WHERE number = locations.image)
        WHERE folder IN (SELECT number FROM folders WHERE kind = 'trash')
        """
    )
    op.create_index("ix_locations_folder_trashed_at", "locations", ["folder", "trashed_at", "name"])


def _totals() -> None:
    op.create_table(
        "image_counts",
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("status", name="pk_image_counts"),
    )
    op.create_table(
        "totals",
        sa.Column("store", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("in_progress", sa.BigInteger(), nullable=False),
        sa.Column("trashed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("store", "owner", "visibility", name="pk_totals"),
    )
    # An interrupted upgrade is repeated by MariaDB: it must not count twice.
    op.execute("DELETE FROM image_counts")
    op.execute("DELETE FROM totals")
    op.execute("INSERT INTO image_counts SELECT status, count(*) FROM images GROUP BY status")
    op.execute(
        """
        INSERT INTO totals
        SELECT locations.store, images.owner, images.visibility,
            sum(CASE WHEN status = 'pending_delete' THEN 0 ELSE 1 END),
            sum(CASE WHEN status = 'pending_delete' THEN 0 ELSE images.size END),
            sum(CASE WHEN status IN ('saving', 'uploading', 'importing') THEN 1 ELSE 0 END),
            sum(CASE WHEN status = 'pending_delete' THEN 1 ELSE 0 END)
        FROM locations JOIN images ON images.number = locations.image
        WHERE locations.folder IS NOT NULL
        GROUP BY locations.store, images.owner, images.visibility
        """
    )
