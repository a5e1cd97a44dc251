"""Uploads: an image's data while it is being written.

What users are promised is in docs/semantics.md#writing-a-file-uploads-an-image.

Scope: staging, digests, the format gate, commit and cancel.  Threading: any thread; an upload
does one thing at a time, and `commit` and `cancel` may come in any order and more than once.

States:   OPEN --finish--> FINISHED --commit--> COMMITTED
            ^----write--------'   |
          OPEN, FINISHED --cancel--> CANCELLED
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path

from catalog.catalog import Catalog
from catalog.copies.removal import clear_failed, let_go
from catalog.errors import (
    CatalogAway,
    CatalogError,
    CatalogUnavailable,
    Conflict,
    DigestMismatch,
    ImageKilled,
    ImageTooLarge,
    IncompleteUpload,
    InvalidImage,
    NotFound,
    StoreFull,
    StoreUnavailable,
)
from catalog.formats import blank, gate
from catalog.model.digests import hash_algorithm
from catalog.model.image import Announced, Image, Saved
from catalog.model.status import IN_PROGRESS, Status
from catalog.rules import uploads
from catalog.rules.entries import Rename
from catalog.rules.trash import GaveWay
from catalog.rules.uploads import Check, Reannounced
from catalog.stores.base import Capability, Store
from catalog.uploads.digester import Digester, Digests
from catalog.uploads.sender import Sender
from catalog.uploads.writeback import check_written_back

_log = logging.getLogger(__name__)

_ATTEMPTS = 5
"""How often it is tried to record an upload over connections that are lost."""
_ASK_AGAIN = 1.0
"""Seconds of writing after which the catalog is asked whether the upload was aborted."""


class UploadState(Enum):
    """The states of an upload."""

    OPEN = auto()
    FINISHED = auto()
    """Digests, format and the transfer to the store are done; not yet visible."""
    COMMITTED = auto()
    CANCELLED = auto()


class Upload:
    """One image's data being written on this host."""

    def __init__(
        self,
        catalog: Catalog,
        image: Image,
        store: Store,
        staged: Path,
        fd: int,
        check_room: Callable[[int], None],
    ) -> None:
        """Use `uploads.Uploads.start` to get one."""
        self.image = replace(image, status=Status.SAVING)
        """The image at the beginning of the upload; after the commit, with its digest."""
        self.state = UploadState.OPEN
        self.mtime: int | None = None
        """The data's modification time, in nanoseconds, if a tool has set one."""
        self.interrupted = ""
        """The program that closed the file because it was stopped: then the data is not whole.
        Empty if none was."""
        self.blank = False
        """Whether the finished data is a disk without data of a guest."""
        self.disk_format = ""
        """The format of the finished data."""
        self.expected_size: int | None = None
        """Bytes that the data will have, if the writer knows: a hint for the store, not checked."""
        self._catalog = catalog
        self._store = store
        self._staged = staged
        self._fd = fd
        self._lock = threading.RLock()
        self._broken: Exception | None = None
        self._unrecorded: str | None = None
        self._digester: Digester | None = None
        self._sender = Sender(store, image.id, staged, self._foreseen_size)
        if self.size:
            # The file was reopened.  Its writer will go back to the header, as qemu-img convert
            # does, so nothing is sent early.
            self._sender.drop()
        self._saved: Saved | None = None
        # Once the store has the data, nothing may be written: it may have the staging file itself.
        self._url: str | None = None
        # By its descriptor, which also works after the store has moved the staging file.
        self._path = Path(f"/proc/self/fd/{fd}")
        self._checked: Announced | None = None
        self._check_room = check_room
        self.begun_at = time.monotonic()
        self._worked_at = self._asked_at = self.begun_at
        # Readers may still use the file when the upload ends, so it is closed with the object.
        weakref.finalize(self, os.close, fd)

    # -- writing -----------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether it has been committed or cancelled."""
        return self.state in (UploadState.COMMITTED, UploadState.CANCELLED)

    @property
    def idle(self) -> float:
        """Seconds since anything was written."""
        return time.monotonic() - self._worked_at

    @property
    def size(self) -> int:
        """Bytes staged so far."""
        return os.fstat(self._fd).st_size

    @property
    def staged_bytes(self) -> int:
        """Bytes that the staging file takes on the disk."""
        return os.fstat(self._fd).st_blocks * 512

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Write `data` at `offset`, in any order; return its length.

        A write to a finished upload takes it back to OPEN.  Raises StoreFull,
        ImageTooLarge, and ImageKilled after `cancel`.
        """
        with self._lock, self._changing():
            self._check_size(offset + len(data))
            self._check_room(len(data))
            if not data:
                return 0  # a write(2) of nothing does not make the file longer
            # They learn of the write before it, so that they do not read bytes that are changing,
            # and after it, so that they may read them.
            followers = self._follow(), self._sender
            for follower in followers:
                follower.before_write(offset)
            write_all(self._fd, data, offset)
            for follower in followers:
                follower.after_write(offset + len(data))
            return len(data)

    def truncate(self, size: int) -> None:
        """Make the data `size` bytes long; added bytes read as zeros."""
        with self._lock, self._changing():
            self._check_size(size)
            for follower in (self._follow(), self._sender):
                follower.truncate(size)
            os.ftruncate(self._fd, size)

    def read_at(self, offset: int, size: int) -> bytes:
        """The staged bytes `[offset, offset + size)`, cut at the end."""
        return os.pread(self._fd, size, offset)

    def sync(self) -> None:
        """Make the written bytes durable (fsync by the writer)."""
        with self._lock, self._foreign_errors():
            os.fsync(self._fd)

    def check_wanted(self) -> None:
        """Give the upload up, and raise ImageKilled, if somebody else has ended it."""
        if not self._lock.acquire(blocking=False):
            return  # it is being written or committed, which will find out
        try:
            if not self.ended:
                self._check_wanted()
        finally:
            self._lock.release()

    def _check_wanted(self) -> None:
        try:
            image = self._catalog.image(self.image.number)
        except CatalogUnavailable:
            return  # the commit will find out
        except NotFound:
            image = replace(self.image, status=Status.DELETED, message="it was deleted")
        if image.status not in IN_PROGRESS:
            self.cancel(image.message)
            raise ImageKilled(self.image.name, image.message or f"is {image.status}")

    def fail(self, error: Exception) -> None:
        """Note that bytes were lost: the upload can no longer be committed."""
        with self._lock:
            self._broken = self._broken or error

    @contextmanager
    def _changing(self) -> Iterator[None]:
        if self._url is not None and not self.ended:
            raise Conflict(self.image.name, "is complete, and in its store: it lacks only a name")
        if self.state is UploadState.FINISHED:
            self._unfinish()
        if self.state is not UploadState.OPEN:
            raise ImageKilled(self.image.name, "the upload has ended")
        self._worked_at = time.monotonic()
        if self._worked_at - self._asked_at > _ASK_AGAIN:
            self._asked_at = self._worked_at
            self.check_wanted()
        try:
            with self._foreign_errors():
                yield
        except Exception as error:
            # If the writer ignores this error the image has a gap, and must not be published.
            self.fail(error)
            raise

    @contextmanager
    def _foreign_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            name = self.image.name
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull(name, "no space left for staging the upload") from error
            if error.errno == errno.EFBIG:
                raise ImageTooLarge(name) from error
            raise StoreUnavailable(name, f"staging the upload failed: {error}") from error

    def _check_size(self, size: int) -> None:
        limit = self._catalog.settings.max_image_size
        if limit is not None and size > limit:
            raise ImageTooLarge(self.image.name, f"an image has at most {limit} bytes")

    def _follow(self) -> Digester:
        if self._digester is None:
            settings = self._catalog.settings
            self._digester = Digester(self._fd, settings.os_hash_algo, checksum=settings.checksum)
        return self._digester

    # -- ending ------------------------------------------------------------------------

    def finish(self) -> None:
        """Do everything of a commit that takes time; nothing becomes visible yet.  Idempotent.

        On any failure the image is killed, as by `commit`.  Raises InvalidImage,
        DigestMismatch, IncompleteUpload (also after a failed write), StoreFull,
        StoreUnavailable.
        """
        with self._lock, self._or_killed(), self._catalog.patiently():
            if self.state is not UploadState.OPEN:
                return
            if self._broken is not None:
                raise IncompleteUpload(self.image.name, f"a write failed: {self._broken}")
            with self._foreign_errors():
                # In a store with STAGING this file becomes the object.  Elsewhere it is only read
                # from the page cache, and `commit` asks whether the disk has taken it.
                if Capability.STAGING in self._store.capabilities:
                    os.fsync(self._fd)
                size = self.size
                digests = self._follow().finish(size)
                self._stop_following()
            image = self._catalog.image(self.image.number)
            self._checked = image.announced
            self._check_expected(image, size, digests)
            self._saved = self._inspect(image, size, digests)
            self.disk_format = self._saved.disk_format
            with self._foreign_errors():
                self.blank = blank.is_blank(self._fd, self.disk_format)
            self._sender.finish(size)
            self.state = UploadState.FINISHED

    def commit(
        self,
        publish: Rename | None = None,
        check: Check | None = None,
        image: Image | None = None,
    ) -> bool:
        """Make the image active; `publish` renames its entry in the same step.  Idempotent.

        False, and the upload stays FINISHED, if `check` says so.  `image` is how it is now, for
        a caller that has just read it.  On any failure the image is killed with the reason as
        its message, and the error is raised.
        """
        with self._lock:
            if self.state is UploadState.COMMITTED:
                return True
            if self.state is UploadState.CANCELLED:
                raise ImageKilled(self.image.name, "the upload has been cancelled")
            with self._or_killed(), self._catalog.patiently():
                if self.state is UploadState.FINISHED:
                    self._check_again(image or self._catalog.image(self.image.number))
                self.finish()
                # In this order: the store makes the object durable, and then one transaction makes
                # the image active.  After a crash in between, recovery finds the upload's row and
                # kills the image.
                if self._url is None:
                    self._url = self._sender.commit()
                with self._foreign_errors():
                    check_written_back(self._fd)
                gave_way = self._record_saved(self._url, publish, check)
            if gave_way is None:
                return False
            self.state = UploadState.COMMITTED
            self._staged.unlink(missing_ok=True)
            let_go(self._catalog, gave_way)
            return True

    def _record_saved(
        self, url: str, publish: Rename | None, check: Check | None
    ) -> GaveWay | None:
        """Record in the catalog that all data is there; None if `check` returned False.

        A connection that is lost meanwhile is no failure: what may have taken an hour is not lost
        to a restart of the database.
        """
        attempts = 0
        while True:
            assert self._saved is not None
            # The time now: rsync sets it after closing the file, when the upload was finished.
            saved = replace(self._saved, mtime=self.mtime)
            try:
                gave_way = uploads.finish_upload(
                    self._catalog, self.image.number, url, saved, publish, self._checked, check
                )
            except Reannounced:
                self._check_again(self._catalog.image(self.image.number))
                continue
            except CatalogAway:
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise
                if self._catalog.image(self.image.number).status is not Status.ACTIVE:
                    continue
                # The answer to COMMIT was lost, and what gave way with it: recovery removes that.
                gave_way = GaveWay()
            if gave_way is not None:
                self.image = replace(
                    self.image, status=Status.ACTIVE, os_hash_value=saved.os_hash_value
                )
            return gave_way

    @contextmanager
    def _or_killed(self) -> Iterator[None]:
        """Kill the image if anything fails, also by exceptions that nobody expects."""
        try:
            yield
        except BaseException as error:
            self.cancel(reason_of(error))
            raise

    def cancel(self, reason: str) -> None:
        """Give the upload up: the image is killed and `reason` is its message.  Idempotent."""
        with self._lock:
            if self.ended:
                return
            self.state = UploadState.CANCELLED
            self._unrecorded = reason
            try:
                self._stop_following()
                self._sender.drop()
                self._drop_staged()
            except (CatalogError, OSError) as error:
                _log.warning("%s: what was sent of it stays: %s", self.image.id, error)
            finally:
                self.record()

    @property
    def recorded(self) -> bool:
        """Whether the catalog knows that the upload was cancelled, if it was."""
        return self._unrecorded is None

    def record(self) -> None:
        """Record in the catalog that the upload was cancelled, if that was not possible before.

        Raises CatalogError.
        """
        with self._lock:
            if self._unrecorded is None:
                return
            killed = uploads.fail_upload(self._catalog, self.image.number, self._unrecorded)
            self._unrecorded = None
            # Data is removed only if this call has killed the image.  If an exception came between
            # the catalog's commit and ours, the image is active, and must keep its data.
            if killed:
                clear_failed(self._store, self.image.id)

    def _unfinish(self) -> None:
        self._sender.drop()
        self._saved = None
        self.state = UploadState.OPEN

    def _foreseen_size(self) -> int | None:
        return self.expected_size or self._catalog.image(self.image.number).expected_size

    def _check_again(self, image: Image) -> None:
        """Compare finished data with what was announced after it was finished."""
        if image.announced == self._checked:
            return
        assert self._saved is not None
        self._check_expected(image, self._saved.size, self._saved)
        found = self._detect(image)
        self._saved = replace(
            self._saved, disk_format=found.disk_format, virtual_size=found.virtual_size
        )
        self._checked = image.announced

    def _check_expected(self, image: Image, size: int, digests: Digests | Saved) -> None:
        if image.expected_size is not None and image.expected_size != size:
            raise IncompleteUpload(
                image.name, f"has {size} bytes, but {image.expected_size} were announced"
            )
        if image.expected_hash is None:
            return
        algo = hash_algorithm(image.expected_hash)
        value = digests.os_hash_value
        if algo != digests.os_hash_algo:
            with self._foreign_errors(), self._path.open("rb") as file:
                value = hashlib.file_digest(file, algo).hexdigest()
        if value != image.expected_hash:
            raise DigestMismatch(
                image.name, f"the {algo} is {value}, but {image.expected_hash} was announced"
            )

    def _detect(self, image: Image) -> gate.Detected:
        with self._foreign_errors():
            try:
                declared = gate.Declared(image.disk_format, image.container_format)
                return gate.inspect_file(self._path, declared)
            except InvalidImage as error:
                raise InvalidImage(image.name, error.reason) from error

    def _inspect(self, image: Image, size: int, digests: Digests) -> Saved:
        detected = self._detect(image)
        return Saved(
            size=size,
            disk_format=detected.disk_format,
            virtual_size=detected.virtual_size,
            os_hash_algo=digests.os_hash_algo,
            os_hash_value=digests.os_hash_value,
            checksum=digests.checksum,
            chunks=digests.chunks,
        )

    def _drop_staged(self) -> None:
        if self._staged.exists():
            # Truncated first, which frees the room now: a handle may keep the file open for long.
            os.ftruncate(self._fd, 0)
            self._staged.unlink(missing_ok=True)

    def _stop_following(self) -> None:
        if self._digester is not None:
            self._digester.stop()
            self._digester = None


def reason_of(error: BaseException) -> str:
    """The text of a failure for an image's message."""
    if isinstance(error, CatalogError):
        return str(error)
    if not isinstance(error, Exception):
        return "it was interrupted"
    return f"it failed unexpectedly: {type(error).__name__}: {error}"


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`.  Raises OSError."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
