"""Every failure that the catalog reports to its callers, as one tree of exceptions.

A class has fields, not a finished sentence; `str()` makes the line that a person reads.  The
frontends have the tables that map a class to an errno (`imagefs/errors.py`) or to an HTTP status
(`web/exchange/errors.py`).
"""

from __future__ import annotations

from datetime import datetime


class CatalogError(Exception):
    """The root of the tree: anything that the catalog refuses or fails to do."""

    def __init__(self, subject: str, reason: str = "") -> None:
        """`subject` is what the failure is about (a path, an id, a store); `reason` says why."""
        super().__init__(subject, reason)
        self.subject = subject
        self.reason = reason

    summary = "failed"

    def __str__(self) -> str:
        reason = self.reason or self.summary
        return f"{self.subject}: {reason}" if self.subject else reason

    def beside(self, subject: str) -> str:
        """The message without this subject, for a line that begins with it anyway."""
        return str(self).removeprefix(f"{subject}: ")


class NotFound(CatalogError):
    """No such entry, image, folder, property or store."""

    summary = "not found"


class AlreadyExists(CatalogError):
    """The name is taken in its folder."""

    summary = "already exists"


class NotAFolder(CatalogError):
    """A folder was needed and something else was found."""

    summary = "is not a folder"


class IsAFolder(CatalogError):
    """An image was needed and a folder was found."""

    summary = "is a folder"


class FolderNotEmpty(CatalogError):
    """A folder that still has entries cannot be removed."""

    summary = "the folder is not empty"


class Conflict(CatalogError):
    """Somebody else is changing the same thing now; trying later can help."""

    summary = "is in use"


class InvalidTransition(Conflict):
    """The image's status does not allow this change (docs/semantics.md#statuses)."""

    def __init__(self, subject: str, current: str, wanted: str) -> None:
        super().__init__(subject, f"is {current} and cannot become {wanted}")
        self.current = current
        self.wanted = wanted


class Locked(Conflict):
    """A client holds a lock that does not allow this (RFC 4918 §7).

    `paths` are the roots of the locks that stand in the way.
    """

    summary = "is locked"

    def __init__(self, subject: str, paths: tuple[str, ...], reason: str = "") -> None:
        super().__init__(subject, reason)
        self.paths = paths


class Spared(Conflict):
    """A replacement of the image has failed or goes on: its name is not deleted by mistake.

    `until` is when it is no longer spared; None while the replacement goes on.
    """

    def __init__(self, subject: str, until: datetime | None = None, reason: str = "") -> None:
        if until is None:
            told = "is being replaced, and is kept until that is done"
        else:
            told = f"a replacement failed ({reason}): it is kept until {until:%H:%M:%S} UTC"
        super().__init__(subject, f"{told}; 'imagefs delete' deletes it now")
        self.until = until


class Immutable(CatalogError):
    """An active image's data, or a read-only field, never changes."""

    summary = "cannot be changed"


class Protected(CatalogError):
    """The image is marked protected and refuses deletion and replacement."""

    summary = "is protected: set protected=false first"


class Forbidden(CatalogError):
    """The principal may not do this."""

    summary = "not allowed"


class Deactivated(Forbidden):
    """The image is deactivated: only an administrator reads it."""

    summary = "is deactivated"


class NotAuthenticated(CatalogError):
    """The client is not known: no name, no such user, or a wrong password.

    The message never says which of them it was.
    """

    summary = "wrong name or password"


class TooManyAttempts(NotAuthenticated):
    """Wrong passwords came too fast; `retry_after` is in seconds, 1 or more."""

    def __init__(self, subject: str, retry_after: int) -> None:
        super().__init__(subject, f"too many failed attempts: wait {retry_after} s")
        self.retry_after = retry_after


class ReadOnlyStore(CatalogError):
    """The store takes no data (http)."""

    summary = "the store is read-only"


class InvalidImage(CatalogError):
    """The format gate refuses the content (docs/semantics.md#what-is-checked)."""

    summary = "is not an acceptable image"


class InvalidName(CatalogError):
    """A name the tree cannot hold (docs/semantics.md#the-tree)."""

    summary = "is not a valid name"


class InvalidValue(CatalogError):
    """A field or property was given a value it cannot hold."""

    summary = "is not a valid value"


class ImageTooLarge(CatalogError):
    """The image is larger than the store or the catalog takes."""

    summary = "is too large"


class QuotaExceeded(CatalogError):
    """A limit on staging, on properties or on an owner is used up."""

    summary = "the limit is used up"


class StoreFull(CatalogError):
    """The store or the staging area has no room left."""

    summary = "no space left"


class IncompleteUpload(CatalogError):
    """The data ended before the upload was complete."""

    summary = "the upload is incomplete"


class DigestMismatch(CatalogError):
    """Data does not match its digest (at an upload: not the digest that was expected)."""

    summary = "the data does not match its digest"


class DataDamaged(DigestMismatch):
    """Stored data no longer matches the digest recorded at upload.

    `offset` is the first byte of the first bad chunk, in bytes.
    """

    def __init__(self, subject: str, offset: int, reason: str = "") -> None:
        super().__init__(subject, reason or f"the chunk at offset {offset} is damaged")
        self.offset = offset


class ImageKilled(CatalogError):
    """The image's upload failed; it has no data.  `reason` is its message."""

    summary = "the upload of this image failed"

    def __str__(self) -> str:
        # Most messages begin with the name.
        said = self.reason.startswith(f"{self.subject}: ")
        return self.reason if said else super().__str__()


class StoreUnavailable(CatalogError):
    """The store does not answer, is not mounted, or broke in the middle."""

    summary = "the store is unavailable"


class StoreBusy(StoreUnavailable):
    """The store asks for a pause (RFC 9110 §15.6.4, RFC 6585 §4).

    `retry_after` is in seconds; None if the store did not say.
    """

    summary = "the store is busy"

    def __init__(self, subject: str, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(subject, reason)
        self.retry_after = retry_after


class StoreRefused(StoreUnavailable):
    """The store refuses for good: no such bucket, or wrong credentials.

    Waiting does not help: somebody has to change the settings or the server.
    """

    summary = "the store refuses"


class StoreLacks(StoreRefused):
    """The server does not know this kind of request at all."""

    summary = "the store cannot do that"


class DataChanged(StoreUnavailable):
    """The object was replaced after it was opened: reading on would mix old and new data."""

    summary = "has changed since it was opened"


class NotSupported(CatalogError):
    """This kind of entry or store does not support that (a link inside one store)."""

    summary = "is not supported here"


class CatalogUnavailable(CatalogError):
    """The catalog's database cannot be opened, or no longer answers."""

    summary = "the catalog's database is unavailable"


class CatalogAway(CatalogUnavailable):
    """The catalog's database server does not answer; it is tried again each second."""

    summary = "the catalog's database does not answer"


class CatalogFull(CatalogUnavailable):
    """There is no room left to write to the catalog's database."""

    summary = "no space left for the catalog's database: delete something"


class CatalogForbidden(CatalogUnavailable):
    """This user may not read or write the catalog's database."""

    summary = "only root and the owner of the catalog's database may use it"


class NoCatalog(CatalogUnavailable):
    """There is no catalog at the configured place."""

    summary = "there is no catalog here: run 'imagefs init'"


class SchemaTooNew(CatalogUnavailable):
    """The database was written by a newer imagefs than this one."""

    summary = "the catalog was made by a newer imagefs: upgrade this program"


class SchemaTooOld(CatalogUnavailable):
    """The database server has the schema of an older imagefs, which somebody else may be using."""

    summary = "the catalog's schema is older than this program: run 'imagefs db upgrade'"


class CatalogDamaged(CatalogUnavailable):
    """The database file is damaged: it has content that imagefs did not write."""

    summary = "the catalog's database is damaged"

    def __str__(self) -> str:
        return (
            f"{self.subject}: the database is damaged ({self.reason or self.summary}): stop all"
            " that uses it and restore a backup (README, Backup and restore)"
        )


class CatalogLocked(CatalogUnavailable):
    """Another process held the catalog's write lock for too long."""

    summary = "the catalog is locked by another process: try again"


class InvalidSettings(CatalogError):
    """The configuration has an unknown key or a bad value."""

    summary = "the configuration is not valid"
