"""Where an image lies in Cinder, in the syntax of glance_store.

    cinder://VOLUME             in a Glance with one store
    cinder://STORE/VOLUME       in a Glance with several; STORE is its name of the store

Cinder itself chooses the ids of volumes, and when an image is replaced, its key gets another
volume.  So the locations of our own images contain the image's id instead of the volume's, and
the volume's metadata names the location.

Immutable values.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid5

from catalog.errors import InvalidValue

_SCHEME = "cinder://"
_KEYS = UUID("b8a6e0a4-5a4f-4d2e-8f33-0d5d6f7b1c52")
"""The namespace of UUIDs for keys that are no UUIDs themselves."""


@dataclass(frozen=True, slots=True)
class CinderLocation:
    """A location."""

    volume: str
    """A UUID, spelled as in the url."""
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
    """The id in the location of a key: the key itself if it is a UUID, as ids of images are."""
    return key if _is_uuid(key) else str(uuid5(_KEYS, key))


def _is_uuid(text: str) -> bool:
    try:
        return UUID(text).hex == text.lower().replace("-", "")
    except ValueError:
        return False
