"""Comparing one store with the rows about it, as a part of `fsck`.

The docstring of `fsck` says why this is safe while others work on the catalog.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar

from catalog.catalog import Catalog
from catalog.copies.removal import delete_data
from catalog.errors import CatalogError, CatalogUnavailable, NotFound
from catalog.model import names
from catalog.model.image import CHUNK_SIZE, Image
from catalog.model.status import Status
from catalog.model.tree import Location, LocationState
from catalog.repository.database import Repository
from catalog.stores.base import Capability, Stat, Store
from catalog.upkeep import judgement
from catalog.upkeep.findings import Finding, FindingKind, mend

_Item = TypeVar("_Item")


def batches(items: Iterable[_Item], size: int = 500) -> Iterator[list[_Item]]:
    """The items in lists of up to `size`: a million of them need not be in memory at once."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def _is_dead(image: Image) -> bool:
    """Whether the image has no data and never will: it is deleted or killed."""
    return Status.DELETED is image.status or Status.KILLED in (
        image.status,
        image.status_before_delete,
    )


class StoreCheck:
    """Compares one store, which answers, with the rows about it."""

    def __init__(self, catalog: Catalog, store: Store, repair: bool) -> None:
        self._catalog = catalog
        self._store = store
        self._repair = repair

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
                yield mend(leftover, self._repair, lambda: self._remove(location))
            return
        if location.state is LocationState.DELETING:
            return  # `fsck._deleting` looks at these after everything else
        found, problem = self._stat(location)
        if problem is not None:
            yield Finding(FindingKind.STORE_UNAVAILABLE, subject, str(problem))
        elif found is None or found.size != image.size:
            yield from self._disagreement(location, found, subject)
        else:
            yield from self._content(location, image, subject)

    def _disagreement(
        self, location: Location, found: Stat | None, subject: str
    ) -> Iterator[Finding]:
        # The row again, after the store: if it still claims the data, this is no race with a
        # removal, which changes the row first.
        with self._catalog.read() as repository:
            fresh = _location_now(repository, location)
            image = repository.image(location.image)
        if fresh is None or fresh.state is not LocationState.ACTIVE:
            return
        if found is None:
            missing = Finding(FindingKind.MISSING_DATA, subject, f"{image.name} has no data here")
            yield mend(missing, self._repair, lambda: self._drop_or_note(fresh))
        elif found.size != image.size and self._stat(fresh)[0] == found:
            detail = f"{image.name} has {found.size} bytes here instead of {image.size}"
            wrong = Finding(FindingKind.WRONG_SIZE, subject, detail)
            message = f"in store {self._store.name} it {detail.removeprefix(image.name + ' ')}"
            yield mend(wrong, self._repair, lambda: note(self._catalog, image.number, message))

    def _content(self, location: Location, image: Image, subject: str) -> Iterator[Finding]:
        """Have today's format gate judge data that an earlier gate accepted."""
        try:
            found = judgement.objection(self._catalog, image, location)
        except CatalogUnavailable:
            raise
        except CatalogError as error:
            detail = f"{image.name} cannot be judged: {error}"
            yield Finding(FindingKind.STORE_UNAVAILABLE, subject, detail)
            return
        if found is not None:
            finding = Finding(found.kind, subject, found.told)
            yield mend(
                finding, self._repair, partial(judgement.settle, self._catalog, image, found)
            )

    def _drop_or_note(self, location: Location) -> str:
        """Drop a location without data; if it is the last copy or the last name, note it only."""
        with self._catalog.read() as repository:
            here = repository.locations_of(location.image)
        others = [other for other in here if other.number != location.number]
        is_named = location.folder is None or any(other.folder is not None for other in others)
        if not is_named or not any(self._has_data(other) for other in others):
            message = f"its data is missing in store {self._store.name}"
            return note(self._catalog, location.image, message)
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
        """Look for data that no location refers to."""
        if Capability.LISTING not in self._store.capabilities:
            return
        for keys in batches(self._store.keys()):
            with self._catalog.read() as repository:
                known = repository.ids_in_store(self._store.name, keys)
            for key in keys:
                if key not in known:
                    yield from self._unknown(key)

    def _unknown(self, key: str) -> Iterator[Finding]:
        image, kind = self._judge(key)
        # Ask the store again after the rows: data that was removed meanwhile is no finding.
        if kind is not None and self._is_there(key):
            yield self._stray(key, image, kind)

    def _judge(self, key: str) -> tuple[Image | None, FindingKind | None]:
        """The image with this id, and what is wrong with its data here; None if nothing is."""
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
        if image.has_data:
            return image, FindingKind.LOST_LOCATION
        return image, FindingKind.UNKNOWN_DATA

    def _stray(self, key: str, image: Image | None, kind: FindingKind) -> Finding:
        subject = self._subject(key)
        if image is None:
            finding = Finding(kind, subject, "no image has this id")
            return mend(finding, self._repair, lambda: self._quarantine(key))
        match kind:
            case FindingKind.GARBAGE:
                finding = Finding(kind, subject, f"{image.name} is {image.status}")
                return mend(finding, self._repair, lambda: self._delete(key))
            case FindingKind.LOST_LOCATION:
                finding = Finding(kind, subject, f"{image.name} has no location here")
                return mend(finding, self._repair, lambda: self._adopt(image))
        finding = Finding(kind, subject, f"{image.name} is {image.status} and should have none")
        return mend(finding, self._repair, lambda: self._quarantine(key))

    def _adopt(self, image: Image) -> str:
        """Give undamaged data its location back; move any other data to the quarantine."""
        if not self._is_whole(image):
            return f"damaged: {self._quarantine(image.id)}"
        # Reading took long: the rows may have changed meanwhile.
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
    """A folder for an adopted image, the store's top or its trash, and a free name in it."""
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


def note(catalog: Catalog, number: int, message: str) -> str:
    """Write into an image's message what is wrong with it."""
    with catalog.write() as repository:
        if repository.image(number).message != message:
            repository.set_image(number, message=message)
    return "noted in the image's message"
