"""The changes of an image's status during an upload."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from time import time_ns

from catalog.catalog import Catalog
from catalog.errors import Conflict
from catalog.model.activity import UploadRecord
from catalog.model.clock import now
from catalog.model.image import Announced, Saved
from catalog.model.status import IN_PROGRESS, Status
from catalog.model.tree import Entry, Location, LocationState
from catalog.process import Process
from catalog.repository.copies import SETTLE
from catalog.repository.database import Repository
from catalog.repository.reserve import on_a_full_disk
from catalog.rules import placement, replacing, sparing
from catalog.rules.entries import Rename
from catalog.rules.trash import GaveWay

ABANDONED_AFTER = timedelta(days=1)
"""How long nobody works on an upload before it is given up
(docs/semantics.md#temporary-names)."""

Check = Callable[[Repository, Entry], bool]
"""Called in the transaction that would publish an upload.  If it returns False, the upload stays
unpublished; if it raises, the upload is refused."""


class Reannounced(Exception):
    """The announcement for an upload has changed after its data was verified."""


def begin_upload(
    repository: Repository, record: UploadRecord, only_from: Status, store: str | None = None
) -> list[Location]:
    """Set an image to saving.  Returns copies of its old data, which have to be removed next.

    Raises InvalidTransition, NotFound, and Conflict while a copy is being made, or if the image
    has no entry in `store`.
    """
    repository.change_status(record.image, Status.SAVING, only_from=(only_from,), message="")
    if repository.upload(record.image) is not None:
        raise Conflict(repository.image(record.image).name, "is being copied")
    repository.add_upload(record)
    locations = repository.locations_of(record.image)
    named = [location for location in locations if location.folder is not None]
    if store not in (None, *(location.store for location in named)):
        raise Conflict(repository.image(record.image).name, "is elsewhere since")
    for location in locations:
        if location.folder is None:
            repository.detach_location(location)
        elif location.state is not LocationState.PENDING or location.url is not None:
            repository.set_location(location.number, LocationState.PENDING, None)
    return [location for location in locations if location.folder is None]


def start_upload(
    catalog: Catalog, number: int, process: Process, staged: str, store: str | None = None
) -> None:
    """queued -> saving.  Raises InvalidTransition, NotFound.

    With `store`, also raises Conflict unless the image has an entry in that store.
    """
    at = now()
    with catalog.write() as repository:
        record = UploadRecord(number, process, staged, at, at)
        begin_upload(repository, record, Status.QUEUED, store)


def reopen_upload(catalog: Catalog, number: int, process: Process, staged: str) -> list[Location]:
    """active -> saving, for the writer that committed it.

    See docs/semantics.md#writing-a-file-uploads-an-image.  Returns the copies of the old data,
    which have to be removed next.  Raises Conflict while a copy is being made.
    """
    at = now()
    with catalog.write() as repository:
        record = UploadRecord(number, process, staged, at, at)
        return begin_upload(repository, record, Status.ACTIVE)


def finish_upload(
    catalog: Catalog,
    number: int,
    url: str,
    saved: Saved,
    publish: Rename | None = None,
    checked: Announced | None = None,
    check: Check | None = None,
) -> GaveWay | None:
    """saving -> active, with all that the upload knows about the data, in one step.

    `publish` renames the entry in the same step.  `checked` is the announcement that the data was
    compared with; raises Reannounced if another one was made meanwhile.  Returns None, and changes
    nothing, if `check` returns False.
    """
    with catalog.write() as repository:
        if not _may_finish(repository, number, checked, check):
            return None
        repository.change_status(
            number,
            Status.ACTIVE,
            only_from=(Status.SAVING,),
            size=saved.size,
            disk_format=saved.disk_format,
            virtual_size=saved.virtual_size,
            os_hash_algo=saved.os_hash_algo,
            os_hash_value=saved.os_hash_value,
            checksum=saved.checksum,
            mtime=saved.mtime if saved.mtime is not None else time_ns(),
            expected_size=None,
            expected_hash=None,
            message="",
            gate=saved.gate,
        )
        repository.set_chunk_digests(number, saved.chunks)
        (entry,) = repository.entries_of(number)
        repository.set_location(entry.location.number, LocationState.ACTIVE, url)
        replicas = catalog.replicas.get(entry.store, ())
        repository.want_copies(number, replicas, now() + SETTLE)
        repository.drop_upload(number)
        if publish is None:
            if (replaced := repository.replaced(number)) is not None:
                sparing.take_place(repository, number, replaced)
            return GaveWay()
        entry = placement.entry_at(repository, publish.source)
        return placement.move(
            repository, entry, publish.target, publish.principal, replace=publish.replace
        )


def _may_finish(
    repository: Repository, number: int, checked: Announced | None, check: Check | None
) -> bool:
    """Whether an upload may be finished now; raises Reannounced, and what `check` raises."""
    image = repository.image(number)
    if image.status is not Status.SAVING:
        return True  # `change_status` will refuse it
    if checked not in (None, image.announced):
        raise Reannounced
    return check is None or check(repository, repository.entries_of(number)[0])


@on_a_full_disk
def fail_upload(catalog: Catalog, number: int, message: str) -> bool:
    """saving -> killed, with the reason, unless it had ended; whether it is killed now.

    A killed image must not have data, whoever has killed it: a process that has put its data into
    a store removes it again.  The image that it would have replaced is restored in the same
    transaction.
    """
    with catalog.write() as repository:
        repository.drop_upload(number)
        image = repository.image(number)
        if image.status not in IN_PROGRESS:
            return Status.KILLED in (image.status, image.status_before_delete)
        repository.change_status(number, Status.KILLED, size=0, message=message)
        replacing.give_back(repository, number, message)
        return True
