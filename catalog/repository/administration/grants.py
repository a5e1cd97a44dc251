"""What a program's user of a database server needs, and no more."""

from __future__ import annotations

from enum import StrEnum

from catalog.repository.engines.backend import Backend
from catalog.repository.tables import (
    OF_PROCESSES,
    changes,
    last_uses,
    metadata,
    schema_floor,
    uploads,
    users,
)
from catalog.repository.tables import history as history_table

VERSION = "alembic_version"


class Role(StrEnum):
    """Who connects to the database."""

    READER = "reader"
    """A mount with `-o ro`."""
    UPLOADER = "uploader"
    """A mount that is written to, and commands but those for users."""
    SERVER = "server"
    """`imagefs dav` and the timers."""


_OWN = OF_PROCESSES - {uploads.name} | {last_uses.name}
"""What a reader writes: that it lives, and what it has open."""
_APPENDED = frozenset({changes.name, history_table.name})
"""What nobody changes; old rows go with `imagefs scrub`."""
_FIXED = frozenset({VERSION, schema_floor.name, users.name})
"""What only the owner changes: `imagefs db upgrade`, `imagefs user`."""
_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")


def grants(backend: Backend, role: Role, user: str) -> list[str]:
    """The SQL that gives a user the rights of a role.  Raises NotSupported for SQLite."""
    names = [VERSION, *(table.name for table in metadata.sorted_tables)]
    rights = {name: verbs for name in names if (verbs := _rights(role, name))}
    return backend.grants(user, rights)


def _rights(role: Role, table: str) -> tuple[str, ...]:
    if table in _OWN:
        return _ALL
    if table == users.name and role is not Role.SERVER:
        return ()  # it has the hashes of passwords
    if role is Role.READER or table in _FIXED:
        return ("SELECT",)
    if table in _APPENDED:
        return ("SELECT", "INSERT", "DELETE") if role is Role.SERVER else ("SELECT", "INSERT")
    return _ALL
