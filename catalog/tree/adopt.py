"""Adopts data that is in a store already under the id of an image, as of a Glance.

Scope: it makes rows for existing objects, and does not touch the objects.  From then on they belong
to the catalog, which deletes them with their images.  Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from catalog.copies import external
from catalog.errors import AlreadyExists, InvalidImage, InvalidValue, NotFound, NotSupported
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.image import External, Image, Visibility
from catalog.model.tree import LocationState
from catalog.repository.database import Repository
from catalog.rules import entries
from catalog.stores.base import Capability
from catalog.tree.namespace import Namespace


class AdoptionResult(StrEnum):
    """The result for one object."""

    ADOPTED = "adopted"
    FIT = "would adopt"
    """It can be adopted; this was a dry run."""
    PRESENT = "present"
    """It is already the data of an image."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """One object that is, or would be, an image."""

    id: str
    path: str
    """The image's path; empty if it has just been deleted."""
    outcome: AdoptionResult
    size: int
    """Bytes."""
    disk_format: str | None


@dataclass(frozen=True, slots=True)
class Terms:
    """The values of an image that its store does not know."""

    visibility: Visibility
    protected: bool


class Adoption:
    """Adopts objects of one store: those that it has at the beginning."""

    def __init__(
        self, namespace: Namespace, store: str, terms: Terms, principal: Principal
    ) -> None:
        """Raises NotFound, StoreUnavailable, Forbidden; NotSupported in a store of links."""
        access.check_create(principal)
        self._namespace = namespace
        self._catalog = namespace.catalog
        self._store = self._catalog.store(store)
        self._terms = terms
        self._principal = principal
        if Capability.EXTERNAL in self._store.capabilities:
            raise NotSupported(store, "holds links, not data: 'ln -s URL' makes one")
        # Only listed keys are adopted.  That a store can open a url is not enough: in Cinder, the
        # id of any volume is a location.  The store is listed before the rows are read: an upload
        # has its row before its data, so that it cannot look like an object without a row.
        self._ids = frozenset(filter(_is_id, self._store.keys()))

    def unknown(self) -> Iterator[str]:
        """The ids for which the store has data and the catalog has no row, in order."""
        for image_id in sorted(self._ids):
            with self._catalog.read() as repository:
                if _row(repository, image_id) is None:
                    yield image_id

    def adopt(self, image_id: str, path: str, *, dry_run: bool = False) -> Adopted:
        """Make an active image of the store's data under an id; `path` is in that store.

        The image has no digests until it is verified.  If it is an image already, or on a dry
        run, nothing changes.  Raises InvalidValue if it is no id; NotFound and StoreUnavailable
        from the store, InvalidImage (format gate); AlreadyExists if the name is taken, or the id
        is that of an image without data in this store; InvalidName, Forbidden.
        """
        if not _is_id(image_id):
            raise InvalidValue(image_id, "is no id of an image")
        path = "/".join(["", self._store.name, *filter(None, path.split("/"))])
        place = self._namespace.place(path)
        with self._catalog.read() as repository:
            present = _present(repository, image_id, self._store.name)
        if present is not None:
            shown = next(map(self._namespace.path, self._namespace.entries_of(present.number)), "")
            return Adopted(
                image_id, shown, AdoptionResult.PRESENT, present.size, present.disk_format
            )
        found = self._inspect(image_id)
        if dry_run:
            with self._catalog.read() as repository:
                entries.folder_to_adopt(repository, image_id, place)
            return Adopted(image_id, path, AdoptionResult.FIT, found.size, found.disk_format)
        entries.adopt(
            self._catalog,
            image_id,
            place,
            found,
            self._principal,
            visibility=self._terms.visibility,
            protected=self._terms.protected,
        )
        return Adopted(image_id, path, AdoptionResult.ADOPTED, found.size, found.disk_format)

    def _inspect(self, image_id: str) -> External:
        """Size and format of the store's data under an id."""
        missing = NotFound(image_id, f"store {self._store.name} has no complete object of it")
        if image_id not in self._ids:
            raise missing
        try:
            found = external.inspect(self._store, self._store.url_of(image_id))
        except NotFound as error:
            raise missing from error
        except InvalidImage as error:
            raise InvalidImage(image_id, error.reason) from error
        if found.size == 0:
            raise InvalidImage(image_id, "there is no data")
        return found


def _is_id(key: str) -> bool:
    """Whether a key is spelled as Glance spells an id: a UUID in lower case."""
    try:
        return str(UUID(key)) == key
    except ValueError:
        return False


def _row(repository: Repository, image_id: str) -> Image | None:
    try:
        return repository.image_by_id(image_id)
    except NotFound:
        return None


def _present(repository: Repository, image_id: str, store: str) -> Image | None:
    """The image with that id and data in the store; None if the id is free.

    Raises AlreadyExists.
    """
    image = _row(repository, image_id)
    if image is None:
        return None
    for location in repository.locations_of(image.number):
        if location.store == store and location.state is LocationState.ACTIVE:
            return image
    raise AlreadyExists(image_id, f"is an image that is {image.status}, without data in {store}")
