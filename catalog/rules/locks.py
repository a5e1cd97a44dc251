"""Locks on paths of the tree: a promise to a client that others do not write there.

Only WebDAV asks for locks and obeys them (RFC 4918 §6, §7).  A lock is on a path, not on an image:
DELETE removes it, and it does not follow MOVE.  Locks are rows, so that every process sees them and
a restart keeps them.  Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby
from uuid import uuid4

from catalog.catalog import Catalog
from catalog.errors import InvalidValue, Locked, NotFound, QuotaExceeded
from catalog.model.activity import Lock, LockScope
from catalog.model.clock import now
from catalog.repository.database import Repository

DEFAULT_TIMEOUT = 3600
"""Seconds."""
MAX_TIMEOUT = 86400
"""Seconds.  A longer time-out, also `Infinite`, is shortened: a client that disappears never
unlocks."""
MAX_OWNER_XML = 8192
"""Characters."""
MAX_LOCKS = 1000
"""The number of locks that one principal can hold."""


@dataclass(frozen=True, slots=True)
class LockRequest:
    """The lock a client wants."""

    path: str
    principal: str
    scope: LockScope = LockScope.EXCLUSIVE
    deep: bool = False
    owner_xml: str = ""
    timeout: int | None = None
    """Seconds; None for the default."""


def create(catalog: Catalog, wanted: LockRequest) -> Lock:
    """Lock a path, which need not exist.

    Raises Locked, QuotaExceeded, and InvalidValue for too long an `owner_xml`.
    """
    if len(wanted.owner_xml) > MAX_OWNER_XML:
        raise InvalidValue("owner", f"is at most {MAX_OWNER_XML} characters")
    lock = _granted(wanted)
    with catalog.write() as repository:
        repository.forget_expired_locks()
        _check_no_conflict(repository, lock)
        if repository.count_locks(lock.principal) >= MAX_LOCKS:
            raise QuotaExceeded(lock.principal, f"holds {MAX_LOCKS} locks already")
        repository.add_lock(lock)
    return lock


def refresh(catalog: Catalog, token: str, timeout: int | None = None) -> Lock:
    """Let a lock live for another `timeout` seconds from now.  Raises NotFound."""
    with catalog.write() as repository:
        lock = repository.lock(token)
        if lock is None:
            raise NotFound(token, "there is no such lock, or it has expired")
        seconds = _allowed(timeout)
        renewed = replace(lock, timeout=seconds, expires_at=now() + timedelta(seconds=seconds))
        repository.renew_lock(token, renewed.timeout, renewed.expires_at)
    return renewed


def release(catalog: Catalog, token: str) -> None:
    """Give a lock up, if it is still there."""
    with catalog.write() as repository:
        repository.drop_lock(token)


def drop_tree(catalog: Catalog, path: str) -> None:
    """Drop the locks on a path and on all below, after it was deleted or moved."""
    with catalog.write() as repository:
        repository.drop_locks(path)


def find(catalog: Catalog, token: str) -> Lock | None:
    """The lock with that token; None if there is none, or if it has expired."""
    with catalog.read() as repository:
        return repository.lock(token)


def at(catalog: Catalog, path: str, *, below: bool = False) -> list[Lock]:
    """The locks on `path` itself, and with `below` on everything under it."""
    with catalog.read() as repository:
        if not repository.has_locks():
            return []
        found = repository.locks_at(path)
        return found + repository.locks_below(path) if below else found


def over(catalog: Catalog, path: str) -> list[Lock]:
    """The locks that apply to `path`: its own, and deep ones above it."""
    with catalog.read() as repository:
        return repository.locks_over(path)


def check_write(
    catalog: Catalog, path: str, principal: str, tokens: Collection[str], *, below: bool = False
) -> None:
    """Raise Locked unless the principal may write at `path`; with `below`, under it too."""
    with catalog.read() as repository:
        held = held_at(repository, path, below=below)
    Writing(path, principal, tokens).check(held, below=below)


@dataclass(frozen=True, slots=True)
class Held:
    """The locks that apply to a write."""

    over: tuple[Lock, ...] = ()
    """Locks that apply to the path."""
    below: tuple[Lock, ...] | None = None
    """Locks on paths under it, ordered by path; None if they were not read."""


NOT_HELD = Held()


def held_at(repository: Repository, path: str, *, below: bool = False) -> Held:
    """The locks that apply to a path; with `below`, also those under it, perhaps many."""
    if not repository.has_locks():
        return Held(below=()) if below else NOT_HELD
    inside = tuple(repository.locks_below(path)) if below else None
    return Held(tuple(repository.locks_over(path)), inside)


@dataclass(frozen=True, slots=True)
class Writing:
    """A write at a path by a principal, with the lock tokens that the client has sent."""

    path: str
    principal: str
    tokens: Collection[str]

    def check(self, held: Held, *, below: bool = False) -> None:
        """Raise Locked unless the locks allow the write; with `below`, also under the path.

        Where there are locks, a client may write if it holds one of them and sends its token
        (RFC 4918 §6.4, §7).
        """
        groups = [list(held.over)]
        if below:
            assert held.below is not None
            # Grouped by path; the rows come in the order of paths.  Several locks on one path are
            # shared locks, and holding one of them is enough.
            inside = groupby(held.below, key=lambda lock: lock.path)
            groups += [list(group) for _path, group in inside]
        blocking = [lock for group in groups if self._is_kept_out(group) for lock in group]
        if blocking:
            raise _locked(self.path, blocking)

    def _is_kept_out(self, group: list[Lock]) -> bool:
        own = (each for each in group if each.principal == self.principal)
        return bool(group) and not any(each.token in self.tokens for each in own)


def _granted(wanted: LockRequest) -> Lock:
    at, seconds = now(), _allowed(wanted.timeout)
    return Lock(
        # The scheme every WebDAV client knows (RFC 4918 appendix C).
        token=f"opaquelocktoken:{uuid4()}",
        path=wanted.path,
        scope=wanted.scope,
        deep=wanted.deep,
        owner_xml=wanted.owner_xml,
        principal=wanted.principal,
        timeout=seconds,
        expires_at=at + timedelta(seconds=seconds),
        created_at=at,
    )


def _allowed(timeout: int | None) -> int:
    return DEFAULT_TIMEOUT if timeout is None else max(1, min(timeout, MAX_TIMEOUT))


def _check_no_conflict(repository: Repository, lock: Lock) -> None:
    """Raise Locked if the new lock, or another one that applies here, is exclusive."""
    others = repository.locks_over(lock.path)
    if lock.deep:
        others += repository.locks_below(lock.path)
    conflicting = [other for other in others if LockScope.EXCLUSIVE in (lock.scope, other.scope)]
    if conflicting:
        raise _locked(lock.path, conflicting)


def _locked(path: str, locks: list[Lock]) -> Locked:
    held = (f"{lock.principal} until {lock.expires_at:%Y-%m-%d %H:%M:%S} UTC" for lock in locks)
    paths = tuple(sorted({lock.path for lock in locks}))
    return Locked(path, paths, f"is locked by {', '.join(dict.fromkeys(held))}")
