"""Where an image lies in Cinder: a volume, in the syntax of glance_store.

    cinder://VOLUME             of a Glance with one store
    cinder://STORE/VOLUME       of one with several; STORE is that Glance's name for it

Users: adoption of a Glance's locations.  Immutable values.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from catalog.errors import InvalidValue

_SCHEME = "cinder://"


@dataclass(frozen=True, slots=True)
class CinderLocation:
    """A location."""

    volume: str
    """The id, a UUID, as the url spells it."""
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


def _is_uuid(text: str) -> bool:
    try:
        return UUID(text).hex == text.lower().replace("-", "")
    except ValueError:
        return False
