"""Locks; those that have expired are never returned."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, update

from catalog.model.activity import Lock, LockScope
from catalog.model.clock import now
from catalog.model.names import alike
from catalog.repository.rows import Rows
from catalog.repository.statements.prepared import Prepared
from catalog.repository.tables import locks

_ANY_LOCK = Prepared(select(locks.c.token).limit(1))


def _make_lock(row: Any) -> Lock:
    token, path, scope, deep, owner_xml, principal, timeout, expires_at, created_at = row
    return Lock(
        token, path, LockScope(scope), deep, owner_xml, principal, timeout, expires_at, created_at
    )


class LockRows(Rows):
    """Statements on `locks`."""

    def lock(self, token: str) -> Lock | None:
        """The lock with that token, or None."""
        found = self._locks(locks.c.token == token)
        return found[0] if found else None

    def has_locks(self) -> bool:
        """Whether there is any lock, even an expired one."""
        return _ANY_LOCK.row(self.connection) is not None

    def locks_over(self, path: str) -> list[Lock]:
        """The locks that cover `path`; those on the path itself come last."""
        found = self._locks(locks.c.path.in_(_with_all_above(alike(path))))
        return [lock for lock in found if lock.covers(path)]

    def locks_below(self, path: str) -> list[Lock]:
        """The locks on paths below the folder at `path`."""
        return self._locks(_is_below(path))

    def locks_at(self, path: str) -> list[Lock]:
        """The locks on `path` itself."""
        return self._locks(locks.c.path == alike(path))

    def count_locks(self, principal: str) -> int:
        """The number of locks that the principal holds."""
        statement = select(func.count()).where(
            locks.c.principal == principal, locks.c.expires_at > now()
        )
        return self.connection.execute(statement).scalar_one()

    def add_lock(self, lock: Lock) -> None:
        """Add a lock."""
        self.connection.execute(
            locks.insert().values(
                token=lock.token,
                # A lock on a name is also one on all names that look the same: they are one entry.
                path=alike(lock.path),
                scope=lock.scope,
                deep=lock.deep,
                owner_xml=lock.owner_xml,
                principal=lock.principal,
                timeout=lock.timeout,
                expires_at=lock.expires_at,
                created_at=lock.created_at,
            )
        )

    def renew_lock(self, token: str, timeout: int, expires_at: datetime) -> None:
        """Extend the life of a lock."""
        self.connection.execute(
            update(locks)
            .where(locks.c.token == token)
            .values(timeout=timeout, expires_at=expires_at)
        )

    def drop_lock(self, token: str) -> None:
        """Remove a lock, if it is still there."""
        self.connection.execute(delete(locks).where(locks.c.token == token))

    def drop_locks(self, path: str) -> None:
        """Remove the locks on `path` and on paths below it."""
        inside = or_(locks.c.path == alike(path), _is_below(path))
        self.connection.execute(delete(locks).where(inside))

    def forget_expired_locks(self) -> None:
        """Remove the locks whose time is over."""
        self.connection.execute(delete(locks).where(locks.c.expires_at <= now()))

    def _locks(self, condition: ColumnElement[bool]) -> list[Lock]:
        statement = select(locks).where(condition, locks.c.expires_at > now())
        rows = self.connection.execute(statement.order_by(locks.c.path, locks.c.created_at))
        return [_make_lock(row) for row in rows]


def _with_all_above(path: str) -> list[str]:
    """`/a/b` -> `/a/b`, `/a`, `/`."""
    found = [path]
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        found.append(path)
    return found


def _is_below(path: str) -> ColumnElement[bool]:
    # Not LIKE, which ignores case in SQLite, and not a range, as each database has its own order.
    path = alike(path)
    prefix = path.rstrip("/") + "/"
    return (func.substr(locks.c.path, 1, len(prefix)) == prefix) & (locks.c.path != path)
