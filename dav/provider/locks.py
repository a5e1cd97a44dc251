"""The catalog's locks as wsgidav's lock manager (its `wsgidav.lock_man.lock_manager`).

Scope: translates names and values; the catalog's `locks` decide.  A `url` of wsgidav is a quoted
path.  Threading: any thread.

This process or another one may grant a LOCK while a PUT is going on.  So a request that takes long
to write calls `check_request` once more before it publishes the data.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from wsgidav.dav_error import (
    DAVError,
    DAVErrorCondition,
    PRECONDITION_CODE_LockConflict,
    PRECONDITION_CODE_LockTokenMismatch,
    PRECONDITION_CODE_MissingLockToken,
)

from catalog.catalog import Catalog
from catalog.errors import CatalogError, Locked, NotFound
from catalog.model.activity import Lock, LockScope
from catalog.rules import locks, users
from catalog.rules.locks import LockRequest, Writing
from dav.provider.errors import to_dav_error
from web.exchange.environ import Environ

Described = dict[str, Any]
"""A lock in the form of wsgidav."""

_DECLARATION = re.compile(r"^<\?xml[^>]*\?>\s*")


class LockManager:
    """The methods that wsgidav calls of its `LockManager`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    # -- locking -----------------------------------------------------------------------

    def acquire(
        self,
        *,
        url: str,
        lock_type: str,
        lock_scope: str,
        lock_depth: str,
        lock_owner: bytes,
        timeout: int | None,
        principal: str,
        token_list: Collection[str],
    ) -> Described:
        """Lock a path.  Raises DAVError 423, 507, 400."""
        wanted = LockRequest(
            path=_path(url),
            principal=principal,
            scope=LockScope(lock_scope),
            deep=lock_depth == "infinity",
            owner_xml=_element(lock_owner),
            timeout=_seconds(timeout),
        )
        try:
            return _described(locks.create(self._catalog, wanted))
        except Locked as error:
            raise locked(error, PRECONDITION_CODE_LockConflict) from error
        except CatalogError as error:
            raise to_dav_error(error) from error

    def refresh(self, token: str, *, timeout: int | None = None) -> Described:
        """Let a lock live longer.  Raises DAVError 412 for one that is gone."""
        try:
            return _described(locks.refresh(self._catalog, token, _seconds(timeout)))
        except NotFound as error:
            raise DAVError(
                HTTPStatus.PRECONDITION_FAILED,
                str(error),
                err_condition=PRECONDITION_CODE_LockTokenMismatch,
            ) from error

    def release(self, token: str) -> None:
        """Give a lock up."""
        locks.release(self._catalog, token)

    def remove_all_locks_from_url(self, url: str, *, recursive: bool = False) -> None:
        """Drop the locks on a path that was deleted, and on all below it."""
        self.drop_tree(_path(url))

    def drop_tree(self, path: str) -> None:
        """Drop the locks on a path, which is not quoted, and on all below."""
        locks.drop_tree(self._catalog, _normal(path))

    # -- writing under locks -----------------------------------------------------------

    def check_write_permission(
        self, *, url: str, depth: str, token_list: Collection[str], principal: str
    ) -> None:
        """Raise DAVError 423 unless the locks allow the principal to write there."""
        below = depth == "infinity"
        try:
            locks.check_write(self._catalog, _path(url), principal, token_list, below=below)
        except Locked as error:
            raise locked(error) from error

    def check_request(self, environ: dict[str, Any]) -> None:
        """Raise DAVError 423 unless a request may write at its own path, with its own tokens."""
        self.check_write_permission(
            url=quote(environ["PATH_INFO"]),
            depth="0",
            token_list=environ["wsgidav.ifLockTokenList"],
            principal=environ["wsgidav.user_name"],
        )

    @contextmanager
    def write_transaction(
        self, *, url: str, token_list: Collection[str], principal: str, depth: str = "0"
    ) -> Iterator[None]:
        """Check before the short write of a PROPPATCH."""
        self.check_write_permission(
            url=url, depth=depth, token_list=token_list, principal=principal
        )
        yield

    # -- looking -----------------------------------------------------------------------

    def is_url_locked(self, url: str) -> bool:
        """Whether the path itself is locked."""
        return bool(locks.at(self._catalog, _path(url)))

    def is_url_locked_by_token(self, url: str, lock_token: str) -> bool:
        """Whether the lock with that token applies to the path."""
        lock = locks.find(self._catalog, lock_token)
        return lock is not None and lock.covers(_path(url))

    def is_token_locked_by_user(self, token: str, principal: str) -> bool:
        """Whether the principal may release the lock: it holds it, or is an administrator."""
        lock = locks.find(self._catalog, token)
        return lock is not None and (lock.principal == principal or self._is_admin(principal))

    def _is_admin(self, name: str) -> bool:
        user = users.find(self._catalog, name)
        return user is not None and user.principal.is_admin

    def get_url_lock_list(self, url: str, *, recursive: bool = False) -> list[Described]:
        """The locks on the path itself, and perhaps on all below."""
        found = locks.at(self._catalog, _path(url), below=recursive)
        return [_described(lock) for lock in found]

    def get_indirect_url_lock_list(
        self, url: str, *, principal: str | None = None
    ) -> list[Described]:
        """The locks that apply to the path; only those of `principal`, if it is given."""
        found = locks.over(self._catalog, _path(url))
        return [_described(lock) for lock in found if principal in (None, lock.principal)]


def writing(environ: Environ, path: str) -> Writing:
    """A request's write at a path, with the tokens that its client has sent."""
    return Writing(_normal(path), environ["wsgidav.user_name"], environ["wsgidav.ifLockTokenList"])


def _element(document: bytes) -> str:
    """The element without the XML declaration, as it is put into other documents."""
    text = _DECLARATION.sub("", document.decode())
    try:
        if text:
            # Parse it alone: a reference to an entity that its own document declared would make
            # the other documents invalid.
            ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DAVError(HTTPStatus.BAD_REQUEST, f"the lock's owner: {error}") from error
    return text


def _path(url: str) -> str:
    return _normal(unquote(url))


def _normal(path: str) -> str:
    return "/" + path.strip("/")


def _seconds(timeout: int | None) -> int | None:
    """The time-out as wsgidav gives it: None if there was none, -1 for `Infinite`."""
    return locks.MAX_TIMEOUT if timeout is not None and timeout < 0 else timeout


def _described(lock: Lock) -> Described:
    return {
        "token": lock.token,
        "root": quote(lock.path),
        "type": "write",
        "scope": str(lock.scope),
        "depth": "infinity" if lock.deep else "0",
        "owner": lock.owner_xml.encode(),
        "principal": lock.principal,
        "timeout": lock.timeout,
        "expire": lock.expires_at.timestamp(),
    }


def locked(error: Locked, code: str = PRECONDITION_CODE_MissingLockToken) -> DAVError:
    """The refusal because of a lock, as an error of wsgidav."""
    condition = DAVErrorCondition(code)
    for path in error.paths:
        condition.add_href(quote(path))
    return DAVError(HTTPStatus.LOCKED, str(error), err_condition=condition)
