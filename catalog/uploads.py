"""The uploads of this process, each begun in a staging file.

Users: `vfs`, and through it every frontend.  Scope: where an upload is staged, how much room
all take together, and which image's is going on.  Threading: any.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from secrets import token_hex

from catalog.catalog import Catalog
from catalog.errors import CatalogError, Conflict, ImageKilled, StoreFull, StoreUnavailable
from catalog.image import Image
from catalog.intact import read_intact
from catalog.process import this_process
from catalog.removal import delete_detached
from catalog.stores.base import Store
from catalog.turns import Turns
from catalog.upload import Upload, write_all


class Uploads:
    """The uploads that go on in this process, by image."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.turns = Turns()
        self._uploads: dict[int, Upload] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Upload]:
        with self._lock:
            self._forget_ended()
            return iter(list(self._uploads.values()))

    def get(self, number: int) -> Upload | None:
        """The upload in progress on that image in this process, or None."""
        upload = self._uploads.get(number)
        return None if upload is None or upload.ended else upload

    def start(self, number: int, writer: object = None) -> Upload:
        """The upload on that image, begun if there is none (queued -> saving).

        Raises Conflict while another than `writer` has its turn, InvalidTransition,
        StoreUnavailable, StoreFull, NotFound.
        """
        with self._lock:
            present = self.get(number)
            if present is not None:
                self.turns.check(present.image, writer)
                return present
            image, store = self._image_and_store(number)
            self.turns.check(image, writer)
            staged = self._staging_path(image, store)
            self._catalog.start_upload(number, this_process(), str(staged))
            try:
                fd = _create(staged)
            except OSError as error:
                self._catalog.fail_upload(number, f"staging failed: {error.strerror}")
                raise StoreUnavailable(image.name, f"staging failed: {error}") from error
            return self._add(image, store, staged, fd)

    def reopen(self, number: int, writer: object = None) -> Upload:
        """Take an active image back to saving, for the writer that committed it (§6.3).

        Its data is copied into a new staging file first; what is in the store stays
        until the next commit or cancel.  Raises as `start`.
        """
        with self._lock:
            image, store = self._image_and_store(number)
            self.turns.check(image, writer)
            staged = self._staging_path(image, store)
            fd = -1
            try:
                fd = _create(staged)
                _copy_data(self._catalog, number, fd)
                dropped = self._catalog.reopen_upload(number, this_process(), str(staged))
            except (OSError, CatalogError) as error:
                if fd >= 0:
                    os.close(fd)
                staged.unlink(missing_ok=True)
                if isinstance(error, CatalogError):
                    raise
                raise StoreUnavailable(image.name, f"staging failed: {error}") from error
            upload = self._add(image, store, staged, fd)
        delete_detached(self._catalog, dropped)
        return upload

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
        """End those that somebody else has ended; their clients may write nothing more."""
        ended = []
        for upload in self:
            try:
                upload.check_wanted()
            except ImageKilled:
                ended.append(upload)
        return ended

    def _forget_ended(self) -> None:
        self._uploads = {n: upload for n, upload in self._uploads.items() if not upload.ended}

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
    """Copy an image's data, each chunk verified, as new digests are made of it.

    Raises DataDamaged.
    """
    offset = 0
    with closing(read_intact(catalog, catalog.image(number))) as blocks:
        for data in blocks:
            write_all(fd, data, offset)
            offset += len(data)
