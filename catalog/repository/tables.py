"""The catalog's tables (SQLAlchemy Core).

`migrations/` makes them; a test proves that both agree.  Only the repository reads
this module.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _parse_utc(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(f"{text}+00:00")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime, kept without its zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        # Listings have thousands: SQLite's text becomes aware in one step, not in three.
        if dialect.name == "sqlite":
            return _parse_utc
        return super().result_processor(dialect, coltype)


# SQLite counts up only in a column of type INTEGER; 64 bits there in any case.
Number = BigInteger().with_variant(Integer, "sqlite")
# Names compare by byte, on every database (engines/columns.py).
Name = String(255)
Path = Text()
# A digest of 32 bytes per 4 MiB: 8 MiB for an image of 1 TiB.
Blob = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")

# One row: the oldest schema whose programs may use this one.  A migration that breaks older
# programs sets it (docs/adr/0032-two-versions-side-by-side.md).
schema_floor = Table(
    "schema_floor",
    metadata,
    Column("oldest", String(32), primary_key=True),
)

images = Table(
    "images",
    metadata,
    Column("number", Number, primary_key=True),  # the inode's base; never used again
    Column("id", String(36), nullable=False, unique=True),
    Column("name", Name, nullable=False),  # the entry's name, also after its deletion
    Column("status", String(16), nullable=False),
    Column("owner", String(255), nullable=False),  # a user of the host or a project
    Column("visibility", String(16), nullable=False),
    Column("disk_format", String(16)),
    Column("container_format", String(16), nullable=False),
    Column("size", BigInteger, nullable=False),  # bytes
    Column("virtual_size", BigInteger),  # bytes
    Column("min_disk", Integer, nullable=False),  # GiB
    Column("min_ram", Integer, nullable=False),  # MiB
    Column("protected", Boolean, nullable=False),
    Column("os_hidden", Boolean, nullable=False),
    Column("os_hash_algo", String(16)),
    Column("os_hash_value", String(128)),
    Column("checksum", String(32)),  # md5, only when asked for
    Column("expected_size", BigInteger),  # bytes; what the uploader said it would be
    Column("expected_hash", String(128)),  # hex; its length shows the algorithm
    Column("message", Text, nullable=False),
    Column("mtime", BigInteger, nullable=False),  # nanoseconds since 1970
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("deleted_at", UtcDateTime),  # when it went to the trash
    Column("status_before_delete", String(16)),  # what a restore leads back to
    Column("deleted_by", String(255)),  # a principal's name
    Column("gate", Integer),  # the version of the format gate that accepted the data
    Index(None, "status"),
    # What was deleted from a name is asked for whenever one is made.
    Index("ix_images_name_status", "name", "status"),
    sqlite_autoincrement=True,
)

properties = Table(
    "properties",
    metadata,
    Column("image", Number, ForeignKey("images.number", ondelete="CASCADE"), primary_key=True),
    Column("name", Name, primary_key=True),
    Column("value", Text, nullable=False),
)
# Filters begin here.  Values may be longer than what a B-tree takes: PostgreSQL hashes them, and
# MariaDB indexes their beginning.
Index(
    "ix_properties_value",
    properties.c.value,
    postgresql_using="hash",
    mysql_length=64,
    mariadb_length=64,
)

tags = Table(
    "tags",
    metadata,
    Column("image", Number, ForeignKey("images.number", ondelete="CASCADE"), primary_key=True),
    Column("tag", Name, primary_key=True),
    Index(None, "tag"),
)

folders = Table(
    "folders",
    metadata,
    Column("number", Number, primary_key=True),
    Column("parent", Number, ForeignKey("folders.number"), nullable=False),  # the root: itself
    Column("store", String(64), nullable=False),  # empty for the root
    Column("name", Name, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("temporary", Boolean, nullable=False),  # nothing inside is ever published
    Column("owner", String(255), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("alike", Name),  # `names.alike` of the name; null where that is the name itself
    UniqueConstraint("parent", "name"),
    Index(None, "parent", "alike"),
    sqlite_autoincrement=True,
)

# A location is an image's copy in a store, and, while it has a folder, the entry there.
locations = Table(
    "locations",
    metadata,
    Column("number", Number, primary_key=True),  # readdir's cookie: order of creation
    Column("image", Number, ForeignKey("images.number"), nullable=False),
    Column("store", String(64), nullable=False),
    Column("url", Text),  # what the store's commit returned; null while pending
    Column("state", String(16), nullable=False),
    Column("folder", Number, ForeignKey("folders.number")),  # null: no longer an entry
    Column("name", Name),
    Column("trashed_from", Number),  # no foreign key: that folder may have gone
    Column("alike", Name),  # as in `folders`
    Column("trashed_at", UtcDateTime),  # null outside the trash
    UniqueConstraint("folder", "name"),
    Index(None, "folder", "alike"),
    UniqueConstraint("image", "store"),
    Index(None, "state"),
    sqlite_autoincrement=True,
)
# Listing a folder page by page walks this index and sorts nothing.
Index("ix_locations_folder_number", locations.c.folder, locations.c.number)
# The trash shows what was deleted last.
Index(
    "ix_locations_folder_trashed_at",
    locations.c.folder,
    locations.c.trashed_at,
    locations.c.name,
)

chunk_digests = Table(
    "chunk_digests",
    metadata,
    Column("image", Number, ForeignKey("images.number", ondelete="CASCADE"), primary_key=True),
    Column("algo", String(16), nullable=False),
    Column("chunk_size", Integer, nullable=False),  # bytes
    Column("digests", Blob, nullable=False),  # all of them, one after the other
)

# Copies that were found to be other than their digests say: read last, until they are repaired.
damages = Table(
    "damages",
    metadata,
    Column(
        "location", Number, ForeignKey("locations.number", ondelete="CASCADE"), primary_key=True
    ),
    Column("found_at", UtcDateTime, nullable=False),
)

# Copies that are to be made in the background (the setting `replicas` of a store).
wanted_copies = Table(
    "wanted_copies",
    metadata,
    Column("image", Number, ForeignKey("images.number", ondelete="CASCADE"), primary_key=True),
    Column("store", String(64), primary_key=True),
    Column("attempts", Integer, nullable=False),  # that failed
    Column("due_at", UtcDateTime, nullable=False),
)

# Which image has taken, or is to take, the place of which.
replacements = Table(
    "replacements",
    metadata,
    Column("image", Number, ForeignKey("images.number", ondelete="CASCADE"), primary_key=True),
    Column("replaced", Number, nullable=False),  # no foreign key: that image may be long gone
    Index(None, "replaced"),
)

# Images that a replacement has failed of: who deletes their name may not mean them.
spared = Table(
    "spared",
    metadata,
    Column("image", Number, ForeignKey("images.number", ondelete="CASCADE"), primary_key=True),
    Column("failed_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
)

uploads = Table(
    "uploads",
    metadata,
    Column("image", Number, ForeignKey("images.number", ondelete="CASCADE"), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("boot", String(64), nullable=False),  # boot id and pid namespace
    Column("pid", Integer, nullable=False),
    Column("started", BigInteger, nullable=False),  # the process' start, in ticks from boot
    Column("staged", Text, nullable=False),  # path of the staging file on that host
    Column("started_at", UtcDateTime, nullable=False),
    Column("heartbeat_at", UtcDateTime, nullable=False),
)

# Which folder a store has on every host: another host may have one of its own at that path.
store_marks = Table(
    "store_marks",
    metadata,
    Column("store", String(64), primary_key=True),
    Column("mark", String(64), nullable=False),  # in the folder's marker
)

# The mounts and servers of the catalog, on all hosts.
processes = Table(
    "processes",
    metadata,
    Column("host", String(255), primary_key=True),
    Column("boot", String(64), primary_key=True),  # boot id and pid namespace
    Column("pid", Integer, primary_key=True, autoincrement=False),
    Column("started", BigInteger, primary_key=True, autoincrement=False),  # ticks from boot
    Column("kind", String(16), nullable=False),
    Column("place", Text, nullable=False),  # a mount point, or an address
    Column("version", String(32), nullable=False),  # of imagefs
    Column("registered_at", UtcDateTime, nullable=False),
    Column("heard_since", UtcDateTime, nullable=False),  # without a gap until `heartbeat_at`
    Column("heartbeat_at", UtcDateTime, nullable=False),
)

# What a mount holds open: the scrubber spares it.
leases = Table(
    "leases",
    metadata,
    Column("image", Number, ForeignKey("images.number", ondelete="CASCADE"), primary_key=True),
    Column("host", String(255), primary_key=True),
    Column("boot", String(64), primary_key=True),
    Column("pid", Integer, primary_key=True),
    Column("started", BigInteger, primary_key=True),
    Column("heartbeat_at", UtcDateTime, nullable=False),
    Column("users", Text),  # JSON: pairs of who has it open and since when
)

# When an image was last open: a guest that is shut off holds nothing, and needs its disk again.
last_uses = Table(
    "last_uses",
    metadata,
    Column("image", Number, ForeignKey("images.number", ondelete="CASCADE"), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
)

# Append-only, written in the same transaction as the change itself.
changes = Table(
    "changes",
    metadata,
    Column("number", Number, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("folder", Number),
    Column("name", Name),
    Column("image", Number),
    Column("origin", String(400), nullable=False),  # the process, so that it skips its own
    Column("at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

# What was done with images, kept longer than the images' own rows.
history = Table(
    "history",
    metadata,
    Column("number", Number, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("image", Number, nullable=False),
    # Only where it is needed to find the image when its row is gone.
    Column("image_id", String(36)),
    Column("host", String(255), nullable=False),
    Column("frontend", String(16), nullable=False),  # empty for work of imagefs itself
    Column("principal", Name, nullable=False),  # empty if nobody asked for it
    Column("kind", String(16), nullable=False),
    Column("detail", Text, nullable=False),  # JSON: an object
    Index(None, "image"),
    Index(None, "image_id"),
    sqlite_autoincrement=True,
)

# Who may log in over the network; the users of the host are the host's own.
users = Table(
    "users",
    metadata,
    Column("name", Name, primary_key=True),
    Column("password_hash", String(255), nullable=False),  # argon2, with its parameters
    Column("role", String(16), nullable=False),
    Column("project", Name, nullable=False),  # empty for none
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

# Who reads a shared image besides its owner.
members = Table(
    "members",
    metadata,
    Column("image", Number, ForeignKey("images.number", ondelete="CASCADE"), primary_key=True),
    Column("member", Name, primary_key=True),  # a project, or a user by its name
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "member"),
)

# Counters, kept in the transactions that change what they count (catalog/repository/browse.py).
image_counts = Table(
    "image_counts",
    metadata,
    Column("status", String(16), primary_key=True),
    Column("images", BigInteger, nullable=False),
)
totals = Table(
    "totals",
    metadata,
    Column("store", String(64), primary_key=True),
    Column("owner", String(255), primary_key=True),
    Column("visibility", String(16), primary_key=True),
    Column("images", BigInteger, nullable=False),  # entries outside the trash
    Column("size", BigInteger, nullable=False),  # bytes of these
    Column("in_progress", BigInteger, nullable=False),
    Column("trashed", BigInteger, nullable=False),
)

locks = Table(
    "locks",
    metadata,
    Column("token", String(64), primary_key=True),
    Column("path", Path, nullable=False),  # absolute in the tree; it need not exist
    Column("scope", String(16), nullable=False),
    Column("deep", Boolean, nullable=False),  # also over everything below the path
    Column("owner_xml", Text, nullable=False),  # what the client says of itself
    Column("principal", Name, nullable=False),
    Column("timeout", Integer, nullable=False),  # seconds
    Column("expires_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
# MySQL indexes only the beginning of a text.
Index("ix_locks_path", locks.c.path, mysql_length=255, mariadb_length=255)

COUNTED = tuple(
    table.name
    for table in metadata.sorted_tables
    if table.dialect_options["sqlite"]["autoincrement"]
)
"""Tables whose numbers the database gives, and none twice."""
OF_PROCESSES = frozenset(
    table.name for table in metadata.sorted_tables if {"host", "boot", "pid"} <= set(table.c.keys())
)
"""Tables of what processes do now."""
