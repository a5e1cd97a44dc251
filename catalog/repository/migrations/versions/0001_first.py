"""The first schema"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

# As in catalog/repository/tables.py: a migration keeps its own, because the models move on.
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Name = sa.String(255)
Blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("number", Number, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("folder", Number),
        sa.Column("name", Name),
        sa.Column("image", Number),
        sa.Column("origin", sa.String(length=400), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_changes"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "folders",
        sa.Column("number", Number, nullable=False),
        sa.Column("parent", Number, nullable=False),
        sa.Column("store", sa.String(length=64), nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("temporary", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["parent"], ["folders.number"], name="fk_folders_parent"),
        sa.PrimaryKeyConstraint("number", name="pk_folders"),
        sa.UniqueConstraint("parent", "name", name="uq_folders_parent_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "images",
        sa.Column("number", Number, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("disk_format", sa.String(length=16)),
        sa.Column("container_format", sa.String(length=16), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("virtual_size", sa.BigInteger()),
        sa.Column("min_disk", sa.Integer(), nullable=False),
        sa.Column("min_ram", sa.Integer(), nullable=False),
        sa.Column("protected", sa.Boolean(), nullable=False),
        sa.Column("os_hidden", sa.Boolean(), nullable=False),
        sa.Column("os_hash_algo", sa.String(length=16)),
        sa.Column("os_hash_value", sa.String(length=128)),
        sa.Column("checksum", sa.String(length=32)),
        sa.Column("expected_size", sa.BigInteger()),
        sa.Column("expected_hash", sa.String(length=128)),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("mtime", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("deleted_at", sa.DateTime()),
        sa.Column("status_before_delete", sa.String(length=16)),
        sa.PrimaryKeyConstraint("number", name="pk_images"),
        sa.UniqueConstraint("id", name="uq_images_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_images_status", "images", ["status"])

    op.create_table(
        "chunk_digests",
        sa.Column("image", Number, nullable=False),
        sa.Column("algo", sa.String(length=16), nullable=False),
        sa.Column("chunk_size", sa.Integer(), nullable=False),
        sa.Column("digests", Blob, nullable=False),
        sa.ForeignKeyConstraint(
            ["image"], ["images.number"], name="fk_chunk_digests_image", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image", name="pk_chunk_digests"),
    )
    op.create_table(
        "leases",
        sa.Column("image", Number, nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image"], ["images.number"], name="fk_leases_image", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image", "host", "boot", "pid", "started", name="pk_leases"),
    )
    op.create_table(
        "locations",
        sa.Column("number", Number, nullable=False),
        sa.Column("image", Number, nullable=False),
        sa.Column("store", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text()),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("folder", Number),
        sa.Column("name", Name),
        sa.Column("trashed_from", Number),
        sa.ForeignKeyConstraint(["folder"], ["folders.number"], name="fk_locations_folder"),
        sa.ForeignKeyConstraint(["image"], ["images.number"], name="fk_locations_image"),
        sa.PrimaryKeyConstraint("number", name="pk_locations"),
        sa.UniqueConstraint("folder", "name", name="uq_locations_folder_name"),
        sa.UniqueConstraint("image", "store", name="uq_locations_image_store"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_locations_folder_number", "locations", ["folder", "number"])
    op.create_index("ix_locations_state", "locations", ["state"])

    op.create_table(
        "properties",
        sa.Column("image", Number, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image"], ["images.number"], name="fk_properties_image", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image", "name", name="pk_properties"),
    )
    op.create_table(
        "tags",
        sa.Column("image", Number, nullable=False),
        sa.Column("tag", Name, nullable=False),
        sa.ForeignKeyConstraint(
            ["image"], ["images.number"], name="fk_tags_image", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image", "tag", name="pk_tags"),
    )
    op.create_table(
        "uploads",
        sa.Column("image", Number, nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("staged", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image"], ["images.number"], name="fk_uploads_image", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("image", name="pk_uploads"),
    )
