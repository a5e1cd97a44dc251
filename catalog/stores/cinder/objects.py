"""Finds the volume of an object: of its complete volumes, the one with the greatest number.

Safe from several threads and processes.

One request replaces an object: it marks the new volume as complete.  The older volume is removed
afterwards; while it is still being read it stays, and `delete` or fsck removes it later.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from catalog.errors import CatalogError, Conflict, NotFound, StoreUnavailable
from catalog.stores.cinder.location import id_of
from catalog.stores.cinder.places import Places
from catalog.stores.cinder.volumes import KEY, OBJECT, Volume, Volumes


class Objects:
    """The objects of one store."""

    def __init__(self, volumes: Volumes, places: Places) -> None:
        self._volumes = volumes
        self._places = places

    def find(self, number: str) -> Volume:
        """The volume of an object of ours, or a volume with that id, as of Glance.

        Raises NotFound; StoreUnavailable also for a volume in an error state.
        """
        volume = max(self._volumes.ours(number), key=_rank, default=None)
        if volume is None or not volume.commit:
            volume = self._volumes.get(number)
            if self._volumes.is_ours(volume) and not volume.commit:
                raise NotFound(number)
        if volume.status.startswith(("error", "deleting")):
            raise StoreUnavailable(volume.id, f"the volume's state is {volume.status}")
        return volume

    def publish(self, volume: Volume, size: int) -> None:
        """Make a written and detached volume the object; remove the volume that it replaces.

        Raises StoreUnavailable.
        """
        number = volume.metadata[OBJECT]
        older = [each for each in self._volumes.ours(number) if each.commit]
        newest = max((each.commit for each in older), default=0)
        self._volumes.complete(volume, newest + 1, size)
        for each in older:
            # It may still be read.  Then the next `delete` of the key, or fsck, removes it.
            with suppress(CatalogError):
                self.remove(each)

    def remove(self, volume: Volume) -> None:
        """Remove a volume.  A missing one is no error.  Raises Conflict, StoreUnavailable."""
        self._places.refuse_if_open(volume)
        if self._volumes.is_ours(volume) and not volume.commit:
            self._places.abandon(volume)
            with suppress(NotFound):
                volume = self._volumes.get(volume.id)
        self._volumes.remove(volume)

    def remove_all(self, number: str) -> None:
        """Remove an object and unfinished uploads of it.

        A missing object is no error.  Raises Conflict, StoreUnavailable.
        """
        found = sorted(self._volumes.ours(number), key=_rank)
        if not any(each.commit for each in found):
            with suppress(NotFound):
                found.append(self._volumes.get(number))
        # The object comes last.  If an older volume stayed behind, it would become the object.
        for each in found:
            self.remove(each)

    def keys(self) -> Iterator[str]:
        """The keys of all objects.  Raises StoreUnavailable."""
        yield from {
            volume.metadata[KEY]
            for volume in self._volumes.ours()
            if volume.commit and id_of(volume.metadata.get(KEY, "")) == volume.metadata[OBJECT]
        }

    def leftovers(self, older_than: float) -> Iterator[Volume]:
        """Volumes that are at least that old, are no object, and are not open."""
        for volume in self._no_objects():
            if time.time() - volume.created_at >= older_than:
                with suppress(Conflict, NotFound):
                    self._places.refuse_if_open(volume)
                    yield volume

    def drop_leftover(self, number: str) -> None:
        """Remove a volume of `leftovers`, by its id.  Raises Conflict if it is an object."""
        for volume in self._no_objects():
            if volume.id == number:
                self.remove(volume)
                return
        with suppress(NotFound):
            self._volumes.get(number)
            raise Conflict(number, "is no leftover of a writer")

    def _no_objects(self) -> list[Volume]:
        """Our unfinished volumes, and those that were replaced."""
        found = sorted(self._volumes.ours(), key=_rank)
        newest = {volume.metadata[OBJECT]: volume.id for volume in found if volume.commit}
        return [each for each in found if newest.get(each.metadata[OBJECT]) != each.id]


def _rank(volume: Volume) -> tuple[int, str]:
    """Sorts the volumes of an object: unfinished ones first, then older ones, then the object."""
    return volume.commit, volume.id
