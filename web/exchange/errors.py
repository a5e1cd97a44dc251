"""One table from the catalog's errors to HTTP statuses.

A test requires an entry for each class in the tree of `catalog.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from catalog import errors
from catalog.errors import CatalogError
from catalog.model.access import Principal

_S = HTTPStatus

STATUS: Mapping[type[CatalogError], HTTPStatus] = {
    errors.CatalogError: _S.INTERNAL_SERVER_ERROR,
    errors.NotFound: _S.NOT_FOUND,
    errors.AlreadyExists: _S.CONFLICT,
    errors.NotAFolder: _S.CONFLICT,
    errors.IsAFolder: _S.METHOD_NOT_ALLOWED,
    errors.FolderNotEmpty: _S.CONFLICT,
    errors.Conflict: _S.CONFLICT,
    errors.InvalidTransition: _S.CONFLICT,
    errors.Locked: _S.LOCKED,
    errors.Spared: _S.CONFLICT,
    errors.Immutable: _S.FORBIDDEN,
    errors.Protected: _S.FORBIDDEN,
    errors.Forbidden: _S.FORBIDDEN,
    errors.Deactivated: _S.FORBIDDEN,
    errors.NotAuthenticated: _S.UNAUTHORIZED,
    errors.TooManyAttempts: _S.TOO_MANY_REQUESTS,
    errors.ReadOnlyStore: _S.FORBIDDEN,
    errors.InvalidImage: _S.UNSUPPORTED_MEDIA_TYPE,
    errors.InvalidName: _S.BAD_REQUEST,
    errors.InvalidValue: _S.BAD_REQUEST,
    errors.ImageTooLarge: _S.REQUEST_ENTITY_TOO_LARGE,
    errors.QuotaExceeded: _S.INSUFFICIENT_STORAGE,
    errors.StoreFull: _S.INSUFFICIENT_STORAGE,
    errors.IncompleteUpload: _S.BAD_REQUEST,
    errors.DigestMismatch: _S.BAD_REQUEST,
    # While reading: the data behind this server is damaged; the request is right.
    errors.DataDamaged: _S.BAD_GATEWAY,
    errors.ImageKilled: _S.NOT_FOUND,
    errors.StoreUnavailable: _S.SERVICE_UNAVAILABLE,
    errors.StoreBusy: _S.SERVICE_UNAVAILABLE,
    errors.StoreRefused: _S.SERVICE_UNAVAILABLE,
    errors.StoreLacks: _S.SERVICE_UNAVAILABLE,
    errors.DataChanged: _S.SERVICE_UNAVAILABLE,
    errors.NotSupported: _S.FORBIDDEN,
    errors.CatalogUnavailable: _S.SERVICE_UNAVAILABLE,
    errors.CatalogAway: _S.SERVICE_UNAVAILABLE,
    errors.CatalogDamaged: _S.SERVICE_UNAVAILABLE,
    errors.NoCatalog: _S.SERVICE_UNAVAILABLE,
    errors.SchemaTooNew: _S.SERVICE_UNAVAILABLE,
    errors.SchemaTooOld: _S.SERVICE_UNAVAILABLE,
    errors.CatalogForbidden: _S.SERVICE_UNAVAILABLE,
    errors.CatalogFull: _S.INSUFFICIENT_STORAGE,
    errors.CatalogLocked: _S.SERVICE_UNAVAILABLE,
    errors.InvalidSettings: _S.INTERNAL_SERVER_ERROR,
}


class HttpError(Exception):
    """A refusal that exists only in HTTP: a failed precondition, a range out of bounds."""

    def __init__(
        self, status: HTTPStatus, reason: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(reason or status.phrase)
        self.status = status
        self.headers = headers


def to_status(error: CatalogError) -> HTTPStatus:
    """The status of a catalog error: its own entry, or its nearest ancestor's."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def told(error: CatalogError, principal: Principal | None) -> str:
    """The text of an error for a principal; None is a client that is not logged in.

    The text of a failure of the server can contain paths, hosts and statements.  Only an
    administrator gets to see it; for all others it is in the log.
    """
    is_admin = principal is not None and principal.is_admin
    is_full = isinstance(error, errors.StoreFull | errors.CatalogFull)
    is_ours = is_full or to_status(error) in _OURS
    return error.summary if is_ours and not is_admin else str(error)


_OURS = frozenset({_S.INTERNAL_SERVER_ERROR, _S.BAD_GATEWAY, _S.SERVICE_UNAVAILABLE})
