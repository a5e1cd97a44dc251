"""Open files: what open, write, close mean for an image.

What users are promised is in docs/semantics.md#writing-a-file-uploads-an-image.

Scope: when an upload begins, who may write, and which close(2) commits it.  The data itself is in
`catalog.uploads.upload` and the stores.  Threading: any thread but trio's, as everything here may
wait.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import NoReturn, TypeVar

import pyfuse3

from catalog import cause
from catalog.errors import Conflict, Forbidden, ImageKilled, Immutable, IncompleteUpload, NotFound
from catalog.model.access import Principal, check_change
from catalog.model.image import Image
from catalog.model.status import HAS_DATA, Status
from catalog.model.tree import Entry, Place
from catalog.rules import entries
from catalog.rules.members import check_read
from catalog.stores.base import Data
from catalog.tree.vfs import BY_ANOTHER, Vfs
from catalog.uploads.upload import Upload, UploadState
from imagefs import inodes
from imagefs.files.handle import Handle
from imagefs.files.preallocation import REASON
from imagefs.files.volumes import Volumes
from imagefs.processes.holders import NO_TRAIL, Holders, Trail
from imagefs.processes.looks import UNKNOWN
from imagefs.processes.writers import File, Hold, Writer

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_CLOSING = 0.5
"""Seconds to wait for the RELEASE of files that their readers have just closed."""
_UNSEEN = (
    "cannot be written by a program that the mount does not see, for it could not tell whether "
    "that was killed: run the mount in the program's pid namespace or above, as a user who may "
    "look at it (hidepid)"
)


class Handles:
    """All open files of one mount."""

    def __init__(self, vfs: Vfs) -> None:
        self.draining = False
        """Set when the mount is being stopped: then no new upload begins."""
        self.device: str | None = None
        """`major:minor` of the mount, once it answers."""
        self._vfs = vfs
        self._holders = Holders()
        self._lock = threading.Lock()
        self._dropped = threading.Condition(self._lock)
        self._open: dict[int, Handle] = {}
        self._next = 1
        self._told = False
        # Who committed an image, while nobody else has opened it: it may write it again
        # (docs/semantics.md#writing-a-file-uploads-an-image).
        self._committers: dict[int, Writer] = {}
        self._volumes = Volumes()

    def __getitem__(self, fh: int) -> Handle:
        return self._open[fh]

    def images(self) -> set[int]:
        """The images that are open now."""
        with self._lock:
            return {handle.image for handle in self._open.values()}

    def written(self) -> Iterator[Upload]:
        """The uploads whose files are still open to write."""
        with self._lock:
            numbers = {handle.image for handle in self._open.values() if handle.writable}
        return (upload for upload in self._vfs.uploads if upload.image.number in numbers)

    # -- opening -----------------------------------------------------------------------

    def open_created(
        self, entry: Entry, flags: int, principal: Principal, trail: Trail, thread: int
    ) -> int:
        """Open an image that the process of `trail` has just made.  Raises Conflict."""
        image = entry.image
        return self._add(
            image, Handle(image.number, image.id, trail, principal, flags, entry.store, thread)
        )

    def trail_of_writer(self, thread: int, name: str) -> Trail:
        """Begin the trail of a file that a thread opens to write.

        Raises Forbidden if the process cannot be seen: if it was killed, nobody could tell, and
        half an image would be published.
        """
        trail = self._holders.trail(thread)
        if trail is UNKNOWN:
            raise Conflict(name, "it cannot be seen just now which process writes it")
        if trail is NO_TRAIL:
            if not self._told:
                self._told = True
                log.warning("%s: %s", name, _UNSEEN)
            raise Forbidden(name, _UNSEEN)
        return trail

    def _trail(self, image: Image, flags: int, thread: int) -> Trail:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            return self.trail_of_writer(thread, image.name)
        if not self._may_be_reopened(image):
            return NO_TRAIL
        trail = self._holders.trail(thread)
        return NO_TRAIL if trail is UNKNOWN else trail

    def stores(self, number: int) -> str:
        """The names of the stores that have an image."""
        entries = self._vfs.entries_of(number)
        return ",".join(sorted({entry.location.store for entry in entries}))

    def open(
        self, number: int, flags: int, principal: Principal, thread: int, stores: str
    ) -> tuple[int, bool]:
        """Open an image, which is in `stores`.

        Returns the handle's number, and whether the kernel may keep the pages it has cached.

        Raises Immutable, Conflict, Forbidden, Deactivated, ImageKilled, StoreUnavailable.
        """
        image = self._vfs.settled(self._vfs.catalog.image(number))
        cause.note(image=image.id, store=stores)
        trail = self._trail(image, flags, thread)
        handle = Handle(number, image.id, trail, principal, flags, stores, thread)
        if handle.writable:
            check_change(principal, image)
            self._check_open_to_write(image, handle, flags)
        else:
            check_read(self._vfs.catalog, image, principal)
        with self._lock:
            committer = self._committers.get(number)
            if committer is not None and not _same(committer, handle.opener):
                del self._committers[number]
        fh = self._add(image, handle)
        try:
            self._begin(image, handle, flags)
        except BaseException:
            self._drop(fh)
            raise
        # An image without digests (a link to a URL) may have changed since: then old pages of the
        # kernel and new bytes would be mixed.
        return fh, not handle.writable and image.verified is True

    def _begin(self, image: Image, handle: Handle, flags: int) -> None:
        if handle.writable and flags & os.O_TRUNC:
            self._truncate(image, handle, 0)
            handle.late = False
        elif handle.writable and image.status is Status.ACTIVE:
            # Back to saving now and not at the first write: if the writer is killed in between,
            # the incomplete image must not stay published.
            self._upload(handle)
            handle.late = False
        elif not handle.writable and image.status not in (Status.QUEUED, Status.SAVING):
            self._open_reader(handle)

    def _check_open_to_write(self, image: Image, handle: Handle, flags: int) -> None:
        if self.draining:
            raise Conflict(image.name, "the mount is being stopped")
        match image.status:
            case Status.QUEUED:
                pass
            case Status.SAVING:
                if self._vfs.uploads.get(image.number) is None:
                    raise Conflict(image.name, BY_ANOTHER)
            case Status.ACTIVE if self._may_reopen(handle):
                pass
            case Status.KILLED if flags & os.O_TRUNC:
                entry = self._vfs.entries_of(image.number)[0]
                entries.renew(self._vfs.catalog, Place(entry.folder, entry.name), handle.principal)
                # The name now has a new image.  At ESTALE the kernel looks the name up again and
                # opens that image (docs/facts.md#fuse).
                raise pyfuse3.FUSEError(errno.ESTALE)
            case Status.KILLED:
                raise ImageKilled(image.name, image.message)
            case _:
                raise Immutable(image.name, f"is {image.status}: its data never changes")

    def _may_be_reopened(self, image: Image) -> bool:
        """Whether the image may still be written to, so that its opener has to be known."""
        number = image.number
        if image.status in (Status.QUEUED, Status.SAVING):
            return True
        return number in self._committers or number in self._volumes

    def _may_reopen(self, handle: Handle) -> bool:
        """Whether the opener may write again: it committed the image, or the image is blank."""
        committer = self._committers.get(handle.image)
        is_committer = committer is not None and _same(committer, handle.opener)
        if not is_committer and handle.image not in self._volumes:
            return False
        # The RELEASE of a file that another process has just closed may come after this OPEN: the
        # kernel does not wait for it.  So this waits a little before it refuses.
        with self._dropped:
            return self._dropped.wait_for(lambda: self._is_alone(handle), _CLOSING)

    def _is_alone(self, handle: Handle) -> bool:
        return all(
            it is handle or it.image != handle.image or _same(it.opener, handle.opener)
            for it in self._open.values()
        )

    def _handles_of(self, number: int) -> list[Handle]:
        with self._lock:
            return [handle for handle in self._open.values() if handle.image == number]

    def _add(self, image: Image, handle: Handle) -> int:
        """Add an open file.  Raises Conflict while another process has it open to write."""
        if handle.writable:
            self._await_release(image, handle.writer)
            self._vfs.uploads.turns.begin(image, handle.writer)
            upload = self._vfs.uploads.get(image.number)
            if upload is not None:
                # Whoever writes now may complete what another one was interrupted in.
                upload.interrupted = ""
        with self._lock:
            number = self._next
            self._next += 1
            self._open[number] = handle
            return number

    def _await_release(self, image: Image, writer: object) -> None:
        """Wait a moment for another writer, whose RELEASE may come after this OPEN.

        But not where a close publishes: the image that was looked at before would be complete by
        then, and this writer would truncate it.  So only under a temporary name.
        """
        turns = self._vfs.uploads.turns
        other = turns.of(image.number)
        if other not in (None, writer) and self._vfs.has_temporary_name(image.number):
            turns.wait(image.number, other, _CLOSING)

    def _drop(self, fh: int) -> Handle:
        with self._dropped:
            handle = self._open.pop(fh)
            self._dropped.notify_all()
        if handle.writable:
            self._vfs.uploads.turns.end(handle.image, handle.writer)
        return handle

    # -- reading and writing -----------------------------------------------------------

    def read(self, handle: Handle, offset: int, size: int) -> Data:
        """The bytes `[offset, offset + size)`, cut at the end of what there is."""
        if handle.reader is None:
            upload = self._vfs.uploads.get(handle.image)
            if upload is not None:
                return upload.read_at(offset, size)
            if self._vfs.catalog.image(handle.image).status is Status.QUEUED:
                return b""
            self._open_reader(handle)
            assert handle.reader is not None
        return handle.reader.read_at(offset, size)

    def _open_reader(self, handle: Handle) -> None:
        handle.reader = self._vfs.open(
            handle.image, handle.principal, partial(self._holders.name, handle.thread)
        )
        handle.fd = handle.reader.fileno()

    def write(self, handle: Handle, offset: int, data: bytes) -> int:
        """Write to the image's upload; the first write begins it."""
        if handle.trail.at_first_write is None:
            self._holders.note_first_write(handle.trail)
        upload = self._vfs.uploads.get(handle.image)
        handle.preallocation.check(upload.image.name if upload else "", offset, data)
        if handle.trail.watched:
            self._holders.note_endings(handle.trail)
        return self._change(handle, lambda upload: upload.write(offset, data))

    def _change(self, handle: Handle, change: Callable[[Upload], Result]) -> Result:
        """Change the data of an open file; after an error the image is not published."""
        try:
            while True:
                upload = self._upload(handle)
                try:
                    return change(upload)
                except ImageKilled:
                    # It was committed just now.  The next round takes the image back to saving.
                    if upload.state is not UploadState.COMMITTED:
                        raise
        except Exception as error:
            self._lose(handle, error)
            raise

    def _lose(self, handle: Handle, error: Exception) -> None:
        """Make sure that the image is not published without bytes that were written to it.

        For pages of a mapping the kernel writes, and no program gets the error.
        """
        handle.lost = handle.lost or error
        upload = self._vfs.uploads.get(handle.image)
        if upload is not None:
            upload.fail(error)
        else:
            reason = f"bytes that were written to it after it was complete are lost: {error}"
            self._vfs.uploads.forfeit(handle.image, reason)

    def sync(self, handle: Handle) -> None:
        """Make what was written durable."""
        upload = self._vfs.uploads.get(handle.image)
        if upload is not None:
            upload.sync()

    def truncate(
        self,
        number: int,
        open_fh: int | None,
        size: int,
        principal: Principal,
        thread: int,
        stores: str,
    ) -> None:
        """Set an image's size; without `open_fh` (truncate by name) it is an upload of its own."""
        image = self._vfs.settled(self._vfs.catalog.image(number))
        if open_fh is not None:
            if not self._is_now(image, size):
                self._change(self._open[open_fh], lambda upload: upload.truncate(size))
            return
        check_change(principal, image)
        trail = self.trail_of_writer(thread, image.name)
        handle = Handle(number, image.id, trail, principal, os.O_WRONLY, stores)
        if self._is_now(image, size):
            return
        self._check_open_to_write(image, handle, 0)
        fh = self._add(image, handle)
        try:
            self._truncate(image, handle, size)
        finally:
            self._drop(fh)
        if not self._handles_of(number):
            self._end(handle)

    def _truncate(self, image: Image, handle: Handle, size: int) -> None:
        if not self._is_now(image, size):
            self._upload(handle).truncate(size)

    def _is_now(self, image: Image, size: int) -> bool:
        return self._vfs.uploads.get(image.number) is None and image.size == size

    def _upload(self, handle: Handle) -> Upload:
        upload = self._vfs.uploads.get(handle.image) or self._begin_upload(handle)
        if handle.lost is not None:
            upload.fail(handle.lost)
        return upload

    def _begin_upload(self, handle: Handle) -> Upload:
        found = self._vfs.image(handle.image)
        entry, image = (found, found.image) if isinstance(found, Entry) else (None, found)
        match image.status:
            case Status.QUEUED:
                only = entry if entry is not None and entry.links == 1 else None
                return self._vfs.uploads.start(handle.image, handle.writer, only)
            case Status.ACTIVE if self._may_reopen(handle):
                self._drop_readers(handle.image)
                upload = self._vfs.uploads.reopen(handle.image, handle.writer)
                handle.late = True
                return upload
            case status if status in HAS_DATA:
                raise Immutable(image.name, f"is {image.status}: its data never changes")
            case _:
                raise ImageKilled(image.name, image.message or f"is {image.status}")

    def _drop_readers(self, number: int) -> None:
        for handle in self._handles_of(number):
            reader, handle.reader, handle.fd = handle.reader, None, None
            if reader is not None:
                reader.close()

    # -- closing -----------------------------------------------------------------------

    def flush(self, handle: Handle) -> None:
        """One close(2) of the file: commit the upload if nobody can write to it any more.

        If it cannot be seen who holds the file, nothing is committed, and `release` decides.
        Raises the error of the commit, so that the writer's close(2) fails; also if the upload
        was aborted meanwhile.
        """
        upload = self._vfs.uploads.get(handle.image)
        if not handle.writable:
            return
        if upload is None:
            self._check_not_killed(handle.image)
            return
        if upload.state is not UploadState.OPEN:
            return
        # It has a deadline: the process that closes may be in execve(2), and then /proc answers
        # only after this FLUSH was answered (docs/facts.md#other-processes).
        sight = self._holders.look(handle.trail, self._file(handle.image))
        if sight.failure is not None:
            _refuse(upload, sight.failure)
        if sight.hold is Hold.NO and not handle.late:
            self._end(handle)

    def _check_not_killed(self, number: int) -> None:
        """Raise ImageKilled if the image is killed: its writer must not take it for uploaded."""
        with suppress(NotFound):
            image = self._vfs.catalog.image(number)
            if image.status is Status.KILLED:
                raise ImageKilled(image.name, image.message)

    def release(self, fh: int) -> None:
        """The file is closed for good: decide about an upload that no close(2) has committed.

        Nobody waits for this answer, so that errors reach only the log and the image's message.
        """
        handle = self._drop(fh)
        if handle.reader is not None:
            handle.reader.close()
        if not handle.writable or any(h.writable for h in self._handles_of(handle.image)):
            return
        upload = self._vfs.uploads.get(handle.image)
        if upload is not None and upload.state is UploadState.OPEN and not upload.interrupted:
            failure = self._holders.last_failure(handle.trail)
            if failure is not None:
                _refuse(upload, failure)
            self._end(handle)
            if not (upload.ended or upload.interrupted) and upload.state is UploadState.OPEN:
                nothing = "the file was closed with nothing in it"
                upload.cancel(REASON if handle.preallocation.refused else nothing)

    def _file(self, number: int) -> File:
        """The image's file, as processes have it open."""
        mappable = any(h.flags & os.O_ACCMODE == os.O_RDWR for h in self._handles_of(number))
        return File(inodes.of_image(number), self.device, mappable)

    def _end(self, handle: Handle) -> None:
        upload = self._vfs.uploads.get(handle.image)
        if upload is not None and upload.size > 0:
            with self._vfs.catalog.patiently():
                self._complete(handle, upload)

    def _complete(self, handle: Handle, upload: Upload) -> None:
        stopped = handle.trail.last.stopped
        if handle.preallocation.refused:
            _refuse(upload, REASON)
        if self._vfs.has_temporary_name(handle.image):
            upload.interrupted = handle.opener.command if stopped else ""
            if stopped:
                return  # kept as it is: the writer may continue
            # Complete, but still under a temporary name: the rename will publish it.
            upload.finish()
            # Asked again: a rename that came before `finish` was over could not publish it, and
            # has left that to this close.
            if self._vfs.has_temporary_name(handle.image):
                return
        if stopped:
            _refuse(upload, f"writer {handle.opener} was interrupted")
        upload.commit()
        self._volumes.note(handle.image, upload.disk_format, handle.flags, blank=upload.blank)
        with self._lock:
            self._committers[handle.image] = handle.opener

    def give_up_idle(self, seconds: float) -> list[Upload]:
        """Cancel uploads that nobody has open, and that nobody has written to for so long."""
        open_now = self.images()
        given_up = []
        for upload in self._vfs.uploads:
            if upload.image.number not in open_now and upload.idle > seconds:
                upload.cancel("the upload was abandoned")
                given_up.append(upload)
        return given_up

    def forget_committers(self) -> None:
        """Drop rights to reopen: of processes that have ended, and to disks not filled in time."""
        with self._lock:
            written = {handle.image for handle in self._open.values() if handle.writable}
            committers = {n: it for n, it in self._committers.items() if n not in written}
        self._volumes.forget_old()
        for number, committer in committers.items():
            if self._holders.lives(committer):
                continue
            with self._lock:
                if self._committers.get(number) is committer:
                    del self._committers[number]


def _refuse(upload: Upload, reason: str) -> NoReturn:
    upload.cancel(reason)
    raise IncompleteUpload(upload.image.name, reason)


def _same(one: Writer, other: Writer) -> bool:
    return one.pid == other.pid != 0 and one.started == other.started
