"""Where an image lies in Cinder, in the syntax of glance_store.

    cinder://VOLUME             of a Glance with one store
    cinder://STORE/VOLUME       of one with several; STORE is that Glance's name for it

Cinder alone chooses the ids of volumes, and a key may get another volume: the data is then
replaced in one step.  So the locations of our own images have the image's id in the place of
the volume's, and the volume tells in its metadata which location it is of.

Immutable values.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid5

from catalog.errors import InvalidValue

_SCHEME = "cinder://"
_KEYS = UUID("b8a6e0a4-5a4f-4d2e-8f33-0d5d6f7b1c52")
"""Ids are made in this namespace of keys that are none."""


@dataclass(frozen=True, slots=True)
class CinderLocation:
    """A location."""

    volume: str
    """An id, a UUID, as the url spells it."""
    backend: str | None = None

    @classmethod
    def parse(cls, url: str) -> CinderLocation:
        """Read a url as glance_store does.  Raises InvalidValue."""
        backend, slash, volume = url.removeprefix(_SCHEME).rpartition("/")
        is_formed = url.startswith(_SCHEME) and "/" not in backend and bool(slash) == bool(backend)
        if not is_formed or not _is_uuid(volume) or "@" in backend:
            reason = f"should be {_SCHEME}VOLUME or {_SCHEME}STORE/VOLUME"
            raise InvalidValue("a location of Cinder", reason)
        return cls(volume, backend or None)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.backend}/{self.volume}" if self.backend else _SCHEME + self.volume


def id_of(key: str) -> str:
    """What stands for a key in its location: the key itself, as ids of images are UUIDs."""
    return key if _is_uuid(key) else str(uuid5(_KEYS, key))


def _is_uuid(text: str) -> bool:
    try:
        return UUID(text).hex == text.lower().replace("-", "")
    except ValueError:
        return False
