"""The errno of each error of the catalog: one table for every handler.

A test goes through all classes of `catalog.errors` and demands an entry for each.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from catalog import errors
from catalog.errors import CatalogError

ERRNO: Mapping[type[CatalogError], int] = {
    errors.CatalogError: errno.EIO,
    errors.NotFound: errno.ENOENT,
    errors.AlreadyExists: errno.EEXIST,
    errors.NotAFolder: errno.ENOTDIR,
    errors.IsAFolder: errno.EISDIR,
    errors.FolderNotEmpty: errno.ENOTEMPTY,
    errors.Conflict: errno.EBUSY,
    errors.InvalidTransition: errno.EBUSY,
    errors.Locked: errno.EBUSY,
    errors.Spared: errno.EBUSY,
    errors.Immutable: errno.EPERM,
    errors.Protected: errno.EPERM,
    errors.Forbidden: errno.EACCES,
    errors.Deactivated: errno.EACCES,
    errors.NotAuthenticated: errno.EACCES,
    errors.TooManyAttempts: errno.EACCES,
    errors.ReadOnlyStore: errno.EROFS,
    errors.InvalidImage: errno.EINVAL,
    errors.InvalidName: errno.EINVAL,
    errors.InvalidValue: errno.EINVAL,
    errors.ImageTooLarge: errno.EFBIG,
    errors.QuotaExceeded: errno.EDQUOT,
    errors.StoreFull: errno.ENOSPC,
    errors.IncompleteUpload: errno.EIO,
    errors.DigestMismatch: errno.EIO,
    errors.DataDamaged: errno.EIO,
    errors.ImageKilled: errno.EIO,
    errors.StoreUnavailable: errno.EIO,
    errors.StoreBusy: errno.EIO,
    errors.StoreRefused: errno.EIO,
    errors.StoreLacks: errno.EIO,
    errors.DataChanged: errno.EIO,
    # The errno of link(2) and symlink(2) on file systems without links.
    errors.NotSupported: errno.EPERM,
    errors.CatalogUnavailable: errno.EIO,
    errors.CatalogAway: errno.EIO,
    errors.CatalogDamaged: errno.EIO,
    errors.CatalogForbidden: errno.EIO,
    errors.CatalogFull: errno.ENOSPC,
    errors.NoCatalog: errno.EIO,
    errors.SchemaTooNew: errno.EIO,
    errors.SchemaTooOld: errno.EIO,
    errors.CatalogLocked: errno.EAGAIN,
    errors.InvalidSettings: errno.EINVAL,
}


def to_errno(error: CatalogError) -> int:
    """The errno of a catalog error: that of its class, or of its nearest ancestor."""
    for kind in type(error).__mro__:
        if kind in ERRNO:
            return ERRNO[kind]
    return errno.EIO
