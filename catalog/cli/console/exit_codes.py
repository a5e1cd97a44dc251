"""One table from the catalog's errors to exit codes (docs/commands.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from catalog import errors
from catalog.errors import CatalogError

OK = 0
FAILURE = 1
USAGE = 2
PARTLY = 3
NOT_FOUND = 4
TRY_AGAIN = 5
NO_CATALOG = 10
LOCKED = 11
NOT_ALLOWED = 12
SCHEMA_TOO_NEW = 13
DAMAGED = 14
SCHEMA_TOO_OLD = 15
INTERRUPTED = 130

EXIT_CODES: Mapping[type[CatalogError], int] = {
    errors.CatalogError: FAILURE,
    errors.NotFound: NOT_FOUND,
    errors.AlreadyExists: FAILURE,
    errors.NotAFolder: FAILURE,
    errors.IsAFolder: FAILURE,
    errors.FolderNotEmpty: FAILURE,
    errors.Conflict: TRY_AGAIN,
    # Waiting does not change a status: the same command would fail again.
    errors.InvalidTransition: FAILURE,
    errors.Locked: TRY_AGAIN,
    errors.Spared: TRY_AGAIN,
    errors.Immutable: NOT_ALLOWED,
    errors.Protected: NOT_ALLOWED,
    errors.Forbidden: NOT_ALLOWED,
    errors.Deactivated: NOT_ALLOWED,
    errors.NotAuthenticated: NOT_ALLOWED,
    errors.TooManyAttempts: TRY_AGAIN,
    errors.ReadOnlyStore: NOT_ALLOWED,
    errors.InvalidImage: FAILURE,
    errors.InvalidName: USAGE,
    errors.InvalidValue: USAGE,
    errors.ImageTooLarge: FAILURE,
    errors.QuotaExceeded: FAILURE,
    errors.StoreFull: TRY_AGAIN,
    errors.IncompleteUpload: FAILURE,
    errors.DigestMismatch: FAILURE,
    errors.DataDamaged: FAILURE,
    errors.ImageKilled: FAILURE,
    errors.StoreUnavailable: TRY_AGAIN,
    errors.StoreBusy: TRY_AGAIN,
    # The same command would fail again: the settings or the server have to be changed first.
    errors.StoreRefused: FAILURE,
    errors.StoreLacks: FAILURE,
    errors.DataChanged: TRY_AGAIN,
    errors.NotSupported: FAILURE,
    errors.CatalogUnavailable: TRY_AGAIN,
    errors.NoCatalog: NO_CATALOG,
    errors.SchemaTooNew: SCHEMA_TOO_NEW,
    errors.SchemaTooOld: SCHEMA_TOO_OLD,
    errors.CatalogAway: TRY_AGAIN,
    errors.CatalogDamaged: DAMAGED,
    errors.CatalogForbidden: NOT_ALLOWED,
    errors.CatalogFull: TRY_AGAIN,
    errors.CatalogLocked: LOCKED,
    errors.InvalidSettings: USAGE,
}
"""Exit codes for all classes of errors; a test checks that none is missing."""


def exit_code(error: CatalogError) -> int:
    """The exit code of a command that ended with this error."""
    return EXIT_CODES[type(error)]


def combined(codes: Iterable[int]) -> int:
    """The exit code of a command with several arguments, from the code of each."""
    all_codes = list(codes)
    failed = {code for code in all_codes if code != OK}
    if not failed:
        return OK
    if OK in all_codes:
        return PARTLY
    return failed.pop() if len(failed) == 1 else FAILURE
