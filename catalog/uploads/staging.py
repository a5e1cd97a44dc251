"""The uploads of this process, each of which begins in a staging file.

Scope: where an upload is staged, how much room all take together, and which image has one.
Threading: any.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from catalog.catalog import Catalog
from catalog.copies.removal import delete_detached
from catalog.copies.stream import read_intact
from catalog.errors import (
    CatalogError,
    Conflict,
    ImageKilled,
    NotFound,
    StoreFull,
    StoreUnavailable,
)
from catalog.model.image import Image
from catalog.model.status import Status
from catalog.model.tree import Entry
from catalog.process import this_process
from catalog.rules import uploads
from catalog.stores.base import Store
from catalog.uploads.turns import Turns
from catalog.uploads.upload import Upload, write_all

_log = logging.getLogger(__name__)


class Uploads:
    """The uploads in progress in this process, by image."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.turns = Turns()
        self._uploads: dict[int, Upload] = {}
        self._lock = threading.Lock()
        self._reopened = threading.Condition()
        self._reopening: set[int] = set()
        self._forfeited: dict[int, str] = {}

    def __iter__(self) -> Iterator[Upload]:
        with self._lock:
            self._forget_ended()
            return iter([it for it in self._uploads.values() if not it.ended])

    def get(self, number: int) -> Upload | None:
        """The upload in progress on that image in this process, or None."""
        upload = self._uploads.get(number)
        return None if upload is None or upload.ended else upload

    def start(self, number: int, writer: object = None, entry: Entry | None = None) -> Upload:
        """The upload of that image; it is begun if there is none (queued -> saving).

        `entry` is the image's only one, for a caller that has just read or made it.  Raises
        Conflict while another one than `writer` has the turn, InvalidTransition, StoreUnavailable,
        StoreFull, NotFound.
        """
        with self._lock:
            present = self.get(number)
            if present is not None:
                self.turns.check(present.image, writer)
                return present
            if entry is not None:
                image, store = entry.image, self._catalog.store(entry.store)
            else:
                image, store = self._image_and_store(number)
            self.turns.check(image, writer)
            staged = self._staging_path(image, store)
            # The row comes before the file: recovery finds the file by the row.
            uploads.start_upload(self._catalog, number, this_process(), str(staged), store.name)
            try:
                fd = _create(staged)
            except OSError as error:
                uploads.fail_upload(self._catalog, number, f"staging failed: {error.strerror}")
                raise StoreUnavailable(image.name, f"staging failed: {error}") from error
            return self._add(image, store, staged, fd)

    def reopen(self, number: int, writer: object = None) -> Upload:
        """Take an active image back to saving, for the writer that committed it.

        Its data is first copied into a new staging file; the data in the store stays until the
        next commit or cancel.  Writes that come at the same time get the same upload.  Raises
        as `start`.  Source: docs/semantics.md#writing-a-file-uploads-an-image.
        """
        with self._one_at_a_time(number):
            present = self.get(number)
            if present is not None:
                self.turns.check(present.image, writer)
                return present
            image, store = self._image_and_store(number)
            self.turns.check(image, writer)
            staged = self._staging_path(image, store)
            fd = -1
            try:
                fd = _create(staged)
                _copy_data(self._catalog, number, fd)
                dropped = uploads.reopen_upload(self._catalog, number, this_process(), str(staged))
            except BaseException as error:
                if fd >= 0:
                    os.close(fd)
                staged.unlink(missing_ok=True)
                if isinstance(error, OSError):
                    raise StoreUnavailable(image.name, f"staging failed: {error}") from error
                raise
            with self._lock:
                upload = self._add(image, store, staged, fd)
        delete_detached(self._catalog, dropped)
        return upload

    @contextmanager
    def _one_at_a_time(self, number: int) -> Iterator[None]:
        """Let one thread at a time reopen an image.

        There is no common lock, as the copy takes long: other images are not kept waiting.
        """
        with self._reopened:
            self._reopened.wait_for(lambda: number not in self._reopening)
            self._reopening.add(number)
        try:
            yield
        finally:
            with self._reopened:
                self._reopening.remove(number)
                self._reopened.notify_all()

    def forfeit(self, number: int, reason: str) -> None:
        """Kill an image that lacks bytes which were written to it after its commit.

        If that is not possible now, `settle` does it later: the database may not answer, or the
        image may be deactivated or in the trash, from where it can come back.
        """
        with self._lock:
            self._forfeited.setdefault(number, reason)
        self.settle()

    def settle(self) -> None:
        """Do what was not possible before: kill images of `forfeit`, record cancelled uploads."""
        for number, reason in list(self._forfeited.items()):
            if self._forfeit(number, reason):
                self._forfeited.pop(number, None)
        with self._lock:
            ended = [it for it in self._uploads.values() if not it.recorded]
        for upload in ended:
            with suppress(CatalogError):
                upload.record()

    def _forfeit(self, number: int, reason: str) -> bool:
        try:
            image = self._catalog.image(number)
            if image.status is Status.ACTIVE:
                dropped = uploads.reopen_upload(self._catalog, number, this_process(), "")
                uploads.fail_upload(self._catalog, number, reason)
                _log.warning("%s (%s): killed: %s", image.name, image.id, reason)
                self._delete_data(image)
                delete_detached(self._catalog, dropped)
                return True
        except NotFound:
            return True
        except CatalogError:
            return False
        return image.status not in (Status.DEACTIVATED, Status.PENDING_DELETE)

    def _delete_data(self, image: Image) -> None:
        with self._catalog.read() as repository:
            entries = repository.entries_of(image.number)
        for entry in entries:
            store = self._catalog.store(entry.store)
            # If a store does not answer, its data stays, and fsck finds it.
            with suppress(CatalogError):
                store.delete(store.url_of(image.id))

    def _image_and_store(self, number: int) -> tuple[Image, Store]:
        with self._catalog.read() as repository:
            image = repository.image(number)
            entries = repository.entries_of(number)
        if len(entries) != 1:
            raise Conflict(image.name, "has several names")
        return image, self._catalog.store(entries[0].store)

    def _staging_path(self, image: Image, store: Store) -> Path:
        folder = store.staging_folder()
        if folder is None:
            folder = self._catalog.settings.staging
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder / f"{image.id}.{token_hex(4)}"

    def _add(self, image: Image, store: Store, staged: Path, fd: int) -> Upload:
        self._forget_ended()
        upload = Upload(self._catalog, image, store, staged, fd, self._check_room)
        self._uploads[image.number] = upload
        return upload

    def give_up_aborted(self) -> list[Upload]:
        """Cancel the uploads that somebody else has ended; return them.

        Their clients may never write again, and so would never find out.
        """
        ended = []
        for upload in self:
            try:
                upload.check_wanted()
            except ImageKilled:
                ended.append(upload)
        return ended

    def _forget_ended(self) -> None:
        self._uploads = {
            n: upload
            for n, upload in self._uploads.items()
            if not (upload.ended and upload.recorded)
        }

    def _check_room(self, size: int) -> None:
        limit = self._catalog.settings.staging_limit
        if limit is None:
            return
        staged = sum(upload.staged_bytes for upload in self)
        if staged + size > limit:
            raise StoreFull("staging", f"uploads on this host may take {limit} bytes together")


def _create(staged: Path) -> int:
    return os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _copy_data(catalog: Catalog, number: int, fd: int) -> None:
    """Copy an image's data and verify each chunk, because new digests will be made of it.

    Raises DataDamaged.
    """
    offset = 0
    with closing(read_intact(catalog, catalog.image(number))) as blocks:
        for data in blocks:
            write_all(fd, data, offset)
            offset += len(data)
