"""The catalog's errors as errors of wsgidav, which can put them into a multi-status."""

from __future__ import annotations

from wsgidav.dav_error import DAVError

from catalog.errors import CatalogError
from web.exchange.errors import to_status


def to_dav_error(error: CatalogError, text: str = "") -> DAVError:
    """The same failure for wsgidav; `text` is the message, if not the error's own."""
    return DAVError(int(to_status(error)), context_info=text or str(error))
