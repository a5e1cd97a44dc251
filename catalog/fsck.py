"""Finding, and repairing, where the catalog and its stores disagree.

Users: the `fsck` command.  Safe while mounts work on the same catalog: rows come before
their data and go after it, so that what was seen in a store and is contradicted by a
*later* read of the rows is no race.  Each finding is checked that way, and each repair
checks once more in its own transaction.  A repair never deletes what could be somebody's
only copy: it adopts it or moves it to the store's quarantine.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path

from catalog import names
from catalog.catalog import Catalog
from catalog.deletion import (
    ABANDONED_AFTER,
    all_images,
    delete_data,
    finish_deletions,
    give_up_abandoned,
    recover,
)
from catalog.errors import CatalogError, CatalogUnavailable, NotFound, StoreUnavailable
from catalog.image import CHUNK_SIZE, Image, Location, LocationState, UploadRecord, now
from catalog.process import is_gone
from catalog.repository import Repository
from catalog.repository.images import ImageFilter
from catalog.status import HAS_DATA, IN_PROGRESS, Status
from catalog.stores.base import Capability, Stat, Store

STRAY_AFTER = timedelta(days=1)
"""How long a staging file that no upload names is left alone: one may be about to."""


class FindingKind(StrEnum):
    """What is wrong."""

    STORE_UNAVAILABLE = "store-unavailable"
    """A store, or one image in it, could not be examined."""
    DEAD_UPLOAD = "dead-upload"
    """An upload or a copy whose process is gone."""
    NO_UPLOADER = "no-uploader"
    """An image being saved that nobody is saving."""
    LEFTOVER = "leftover"
    """A location that is to be removed and is still there."""
    GARBAGE = "garbage"
    """Data of an image that is deleted or killed."""
    UNKNOWN_DATA = "unknown-data"
    """Data of no image, or of one that should have none."""
    LOST_LOCATION = "lost-location"
    """Data of an image whose location in this store is gone."""
    MISSING_DATA = "missing-data"
    """A location without its data."""
    WRONG_SIZE = "wrong-size"
    """Data that is not as long as its image."""
    NO_LOCATION = "no-location"
    """An image that should have data and has it nowhere."""
    STRAY_STAGING = "stray-staging"
    """An old staging file of no upload."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what has been done about it."""

    kind: FindingKind
    subject: str
    """A store, or an image or file in one: `STORE/ID`."""
    detail: str
    repaired: str = ""
    """Empty if nothing was done."""


def fsck(catalog: Catalog, *, repair: bool) -> Iterator[Finding]:
    """Compare the catalog with its stores; with `repair`, also do what is safe.

    A store that does not answer is a finding.  Raises CatalogUnavailable.
    """
    yield from _dead_uploads(catalog, repair)
    yield from _unconfigured(catalog)
    for store in catalog.stores.values():
        check = _StoreCheck(catalog, store, repair)
        try:
            store.check()
            yield from check.locations()
            yield from check.data()
            yield from check.staging()
        except CatalogUnavailable:
            raise
        except CatalogError as error:
            yield Finding(FindingKind.STORE_UNAVAILABLE, store.name, str(error))
    yield from _staging(catalog, catalog.settings.staging, "staging", repair)
    yield from _images(catalog, repair)
    yield from _deleting(catalog, repair)


def _mend(finding: Finding, repair: bool, action: Callable[[], str]) -> Finding:
    """The finding, repaired by `action`, which returns what it did, if that is wanted."""
    if not repair:
        return finding
    try:
        return replace(finding, repaired=action())
    except CatalogUnavailable:
        raise
    except CatalogError as error:
        return replace(finding, detail=f"{finding.detail}; not repaired: {error}")


def _should_have_data(image: Image) -> bool:
    return (image.status_before_delete or image.status) in HAS_DATA


def _is_dead(image: Image) -> bool:
    """Whether the image never had data, or has it no longer, for good."""
    return Status.DELETED is image.status or Status.KILLED in (
        image.status,
        image.status_before_delete,
    )


class _StoreCheck:
    """One store that answers, against the rows that speak of it."""

    def __init__(self, catalog: Catalog, store: Store, repair: bool) -> None:
        self._catalog = catalog
        self._store = store
        self._repair = repair
        self._known: set[str] = set()
        """Ids of the images whose location here was seen."""

    # -- every location has its data ---------------------------------------------------

    def locations(self) -> Iterator[Finding]:
        """Look at the data of each location."""
        after = 0
        while True:
            with self._catalog.read() as repository:
                page = repository.locations_in_store(self._store.name, after=after)
                pairs = [(location, repository.image(location.image)) for location in page]
            if not page:
                return
            after = page[-1].number
            for location, image in pairs:
                yield from self._location(location, image)

    def _location(self, location: Location, image: Image) -> Iterator[Finding]:
        subject = self._subject(image.id)
        if location.state is LocationState.PENDING:
            if location.folder is None and self._is_leftover(location):
                leftover = Finding(FindingKind.LEFTOVER, subject, "a copy was never completed")
                yield _mend(leftover, self._repair, lambda: self._remove(location))
            return
        self._known.add(image.id)
        if location.state is LocationState.DELETING:
            return  # _deleting looks at them when everything else is done
        found, problem = self._stat(location)
        if problem is not None:
            yield Finding(FindingKind.STORE_UNAVAILABLE, subject, str(problem))
        elif found is None or found.size != image.size:
            yield from self._disagreement(location, found, subject)

    def _disagreement(
        self, location: Location, found: Stat | None, subject: str
    ) -> Iterator[Finding]:
        with self._catalog.read() as repository:
            fresh = _location_now(repository, location)
            image = repository.image(location.image)
        if fresh is None or fresh.state is not LocationState.ACTIVE:
            return
        if found is None:
            missing = Finding(FindingKind.MISSING_DATA, subject, f"{image.name} has no data here")
            yield _mend(missing, self._repair, lambda: self._drop_or_note(fresh))
        elif found.size != image.size and self._stat(fresh)[0] == found:
            detail = f"{image.name} has {found.size} bytes here instead of {image.size}"
            wrong = Finding(FindingKind.WRONG_SIZE, subject, detail)
            note = f"in store {self._store.name} it {detail.removeprefix(image.name + ' ')}"
            yield _mend(wrong, self._repair, lambda: _note(self._catalog, image.number, note))

    def _drop_or_note(self, location: Location) -> str:
        """Forget a location without data, but never an image's last one."""
        with self._catalog.read() as repository:
            others = repository.locations_of(location.image)
        if not any(other.number != location.number and self._has_data(other) for other in others):
            note = f"its data is missing in store {self._store.name}"
            return _note(self._catalog, location.image, note)
        with self._catalog.write() as repository:
            if _location_now(repository, location) != location:
                return ""
            repository.drop_location(location)
        return "the location was dropped: other copies are there"

    def _has_data(self, location: Location) -> bool:
        if location.state is not LocationState.ACTIVE or location.url is None:
            return False
        try:
            found = self._catalog.store(location.store).stat(location.url)
        except CatalogError:
            return False
        return found.size == self._catalog.image(location.image).size

    def _is_leftover(self, location: Location) -> bool:
        with self._catalog.read() as repository:
            fresh = _location_now(repository, location)
            return fresh == location and repository.upload(location.image) is None

    def _remove(self, location: Location) -> str:
        delete_data(self._catalog, location)
        return "removed"

    # -- all data has its location -----------------------------------------------------

    def data(self) -> Iterator[Finding]:
        """Look for data that no location speaks of."""
        if Capability.LISTING not in self._store.capabilities:
            return
        for key in list(self._store.keys()):
            if key in self._known:
                continue
            image, kind = self._judge(key)
            # Asked after the rows: what has been removed meanwhile is no finding.
            if kind is not None and self._is_there(key):
                yield self._stray(key, image, kind)

    def _judge(self, key: str) -> tuple[Image | None, FindingKind | None]:
        """What is wrong with data that is there; None if nothing is."""
        with self._catalog.read() as repository:
            try:
                image = repository.image_by_id(key)
            except NotFound:
                return None, FindingKind.UNKNOWN_DATA
            location = self._own_location(repository, image)
            if location is not None and location.state is not LocationState.PENDING:
                return image, None
            if repository.upload(image.number) is not None:
                return image, None
        if _is_dead(image):
            return image, FindingKind.GARBAGE
        if _should_have_data(image):
            return image, FindingKind.LOST_LOCATION
        return image, FindingKind.UNKNOWN_DATA

    def _stray(self, key: str, image: Image | None, kind: FindingKind) -> Finding:
        subject = self._subject(key)
        if image is None:
            finding = Finding(kind, subject, "no image has this id")
            return _mend(finding, self._repair, lambda: self._quarantine(key))
        match kind:
            case FindingKind.GARBAGE:
                finding = Finding(kind, subject, f"{image.name} is {image.status}")
                return _mend(finding, self._repair, lambda: self._delete(key))
            case FindingKind.LOST_LOCATION:
                finding = Finding(kind, subject, f"{image.name} has no location here")
                return _mend(finding, self._repair, lambda: self._adopt(image))
        finding = Finding(kind, subject, f"{image.name} is {image.status} and should have none")
        return _mend(finding, self._repair, lambda: self._quarantine(key))

    def _adopt(self, image: Image) -> str:
        """Give whole data its location back; quarantine any other."""
        if not self._is_whole(image):
            return f"damaged: {self._quarantine(image.id)}"
        if self._judge(image.id)[1] is not FindingKind.LOST_LOCATION:
            return ""
        url = self._store.url_of(image.id)
        with self._catalog.write() as repository:
            location = self._own_location(repository, image)
            if location is not None:
                repository.set_location(location.number, LocationState.ACTIVE, url)
            else:
                fresh = repository.image(image.number)
                folder, name = _free_place(repository, self._store.name, fresh)
                repository.add_location(image.number, self._store.name, folder, name, url=url)
        return "adopted"

    def _is_whole(self, image: Image) -> bool:
        reader = self._store.open(self._store.url_of(image.id))
        try:
            digest = hashlib.new(image.os_hash_algo or "sha256")
            for offset in range(0, reader.size, CHUNK_SIZE):
                digest.update(reader.read_at(offset, CHUNK_SIZE))
            return reader.size == image.size and digest.hexdigest() == image.os_hash_value
        finally:
            reader.close()

    def _quarantine(self, key: str) -> str:
        return f"moved to {self._store.quarantine(key)}"

    def _delete(self, key: str) -> str:
        self._store.delete(self._store.url_of(key))
        return "removed"

    def _is_there(self, key: str) -> bool:
        try:
            self._store.stat(self._store.url_of(key))
        except NotFound:
            return False
        return True

    # ----------------------------------------------------------------------------------

    def staging(self) -> Iterator[Finding]:
        """Look for old staging files in the store."""
        folder = self._store.staging_folder()
        if folder is not None:
            yield from _staging(self._catalog, folder, self._store.name, self._repair)

    def _stat(self, location: Location) -> tuple[Stat | None, CatalogError | None]:
        if location.url is None:
            return None, None
        try:
            return self._store.stat(location.url), None
        except NotFound:
            return None, None
        except CatalogError as error:
            return None, error

    def _own_location(self, repository: Repository, image: Image) -> Location | None:
        return next(
            (
                location
                for location in repository.locations_of(image.number)
                if location.store == self._store.name
            ),
            None,
        )

    def _subject(self, key: str) -> str:
        return f"{self._store.name}/{key}"


def _location_now(repository: Repository, location: Location) -> Location | None:
    locations = repository.locations_of(location.image)
    return next((fresh for fresh in locations if fresh.number == location.number), None)


def _free_place(repository: Repository, store: str, image: Image) -> tuple[int, str]:
    """A folder and a free name in it for an adopted image: the store's top or its trash."""
    root = repository.root()
    folder = root and repository.folder_at(root.number, store)
    if folder is not None and image.status is Status.PENDING_DELETE:
        folder = repository.folder_at(folder.number, names.TRASH)
    if folder is None:
        raise NotFound(store, "has no folder in the tree")
    taken = repository.entry_at(folder.number, image.name) or repository.folder_at(
        folder.number, image.name
    )
    return folder.number, names.in_trash(image.name, image.id) if taken else image.name


def _note(catalog: Catalog, number: int, message: str) -> str:
    with catalog.write() as repository:
        if repository.image(number).message != message:
            repository.set_image(number, message=message)
    return "noted in the image's message"


def _dead_uploads(catalog: Catalog, repair: bool) -> Iterator[Finding]:
    with catalog.read() as repository:
        dead = [record for record in repository.uploads() if _is_dead_upload(record)]
        images = [repository.image(record.image) for record in dead]
    if dead and repair:
        recover(catalog)
        give_up_abandoned(catalog)
    with catalog.read() as repository:
        remaining = {record.image for record in repository.uploads()}
    for record, image in zip(dead, images, strict=True):
        detail = f"pid {record.process.pid} on {record.process.host} no longer uploads {image.name}"
        repaired = "given up" if repair and image.number not in remaining else ""
        yield Finding(FindingKind.DEAD_UPLOAD, image.id, detail, repaired)


def _is_dead_upload(record: UploadRecord) -> bool:
    return is_gone(record.process) or now() - record.heartbeat_at > ABANDONED_AFTER


def _unconfigured(catalog: Catalog) -> Iterator[Finding]:
    with catalog.read() as repository:
        root = repository.root()
        folders = repository.folders_in(root.number) if root is not None else []
        for folder in folders:
            count = repository.count_locations(folder.store)
            if folder.store not in catalog.stores and count:
                detail = f"is not configured, and {count} images have a location in it"
                yield Finding(FindingKind.STORE_UNAVAILABLE, folder.store, detail)


def _staging(catalog: Catalog, folder: Path, owner: str, repair: bool) -> Iterator[Finding]:
    """Old files in a staging folder that belong to no upload, of any process."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            age = time.time() - file.stat().st_mtime
        except FileNotFoundError:
            continue
        if age < STRAY_AFTER.total_seconds() or _is_staged(catalog, file):
            continue
        detail = f"no upload uses {file}"
        stray = Finding(FindingKind.STRAY_STAGING, f"{owner}/{file.name}", detail)
        yield _mend(stray, repair, partial(_unlink, file))


def _is_staged(catalog: Catalog, file: Path) -> bool:
    """Whether the file is an upload's, or what a store makes of one under the image's id."""
    with catalog.read() as repository:
        if any(record.staged == str(file) for record in repository.uploads()):
            return True
        try:
            image = repository.image_by_id(file.name.partition(".")[0])
        except NotFound:
            return False
        return repository.upload(image.number) is not None


def _unlink(file: Path) -> str:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise StoreUnavailable(str(file), error.strerror or "") from error
    return "removed"


def _images(catalog: Catalog, repair: bool) -> Iterator[Finding]:
    """Images whose own rows contradict each other."""
    with catalog.read() as repository:
        placed = {each.image for each in repository.locations_in_state(LocationState.ACTIVE)}
    wanted = ImageFilter(statuses=HAS_DATA | IN_PROGRESS | {Status.PENDING_DELETE})
    for image in all_images(catalog, wanted):
        if image.number not in placed:
            yield from _image(catalog, image.number, repair)


def _image(catalog: Catalog, number: int, repair: bool) -> Iterator[Finding]:
    with catalog.read() as repository:
        image = repository.image(number)
        states = {location.state for location in repository.locations_of(number)}
        upload = repository.upload(number)
    if image.status in IN_PROGRESS and upload is None:
        reason = "nobody was uploading it any more"
        found = Finding(FindingKind.NO_UPLOADER, image.id, f"{image.name} is {image.status}")
        yield _mend(found, repair, lambda: _kill(catalog, number, reason))
    elif (
        image.status is not Status.DELETED
        and _should_have_data(image)
        and LocationState.ACTIVE not in states
    ):
        found = Finding(FindingKind.NO_LOCATION, image.id, f"{image.name} is in no store")
        yield _mend(found, repair, lambda: _note(catalog, number, "its data is in no store"))


def _kill(catalog: Catalog, number: int, reason: str) -> str:
    catalog.fail_upload(number, reason)
    return "killed"


def _deleting(catalog: Catalog, repair: bool) -> Iterator[Finding]:
    with catalog.read() as repository:
        left = repository.locations_in_state(LocationState.DELETING)
        ids = [repository.image(location.image).id for location in left]
    if left and repair:
        finish_deletions(catalog)
    with catalog.read() as repository:
        remaining = {each.number for each in repository.locations_in_state(LocationState.DELETING)}
    for location, image_id in zip(left, ids, strict=True):
        gone = location.number not in remaining
        if gone and not repair:
            continue  # somebody was just about it
        subject, detail = f"{location.store}/{image_id}", "its removal was begun and not finished"
        yield Finding(FindingKind.LEFTOVER, subject, detail, "removed" if gone else "")
