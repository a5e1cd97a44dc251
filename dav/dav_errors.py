"""The catalog's errors as wsgidav passes them on, in a multi-status for example."""

from __future__ import annotations

from wsgidav.dav_error import DAVError

from catalog.errors import CatalogError
from dav.errors import to_status


def to_dav_error(error: CatalogError, text: str = "") -> DAVError:
    """The same failure for wsgidav.

    `text` is what its principal is told, unless that is the error itself.
    """
    return DAVError(int(to_status(error)), context_info=text or str(error))
