"""Setting an image's fields and properties from the page: POST to `<image>?properties`.

The body is a JSON object that maps `image.<field>` and `property.<name>` to a text, or to null to
remove a property.  All of it is done or nothing.  No other site can make a browser send such a
request: it needs a header of our own, for which a browser first asks the server for permission
(Fetch Standard, "CORS-preflight request"), and this server never gives it.  Also, the browser must
say that the request comes from a page of this server.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from catalog.errors import Forbidden, InvalidValue
from catalog.model.tree import Entry
from catalog.rules import fields
from dav.browse.exchange import Request

QUERY = "properties"
HEADER = "x-imagefs"


def set_attributes(request: Request, entry: Entry) -> None:
    """Do what the request asks.

    Raises Forbidden, InvalidValue, and what `Catalog.set_attributes` raises.
    """
    _check_own_page(request)
    values = _values(request)
    fields.set_attributes(request.vfs.catalog, entry.image.number, values, request.principal)


def _check_own_page(request: Request) -> None:
    if not _is_same_origin(request):
        raise Forbidden(request.path, "the request comes from another site's page")
    if request.headers.get(HEADER) != "1":
        raise Forbidden(request.path, "the header 'X-Imagefs: 1' is missing")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise InvalidValue("Content-Type", "must be application/json")


def _is_same_origin(request: Request) -> bool:
    """Whether a page of ours sends the request; programs that are no browsers do not say."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        # Browsers send it over TLS.  It is right even behind a proxy, where the client's name
        # for this server may be unknown (Fetch Metadata §2.3).
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    # Without the scheme: if a proxy does TLS for us, the page's scheme is not ours.
    return origin is None or urlsplit(origin).netloc == urlsplit(request.base_url).netloc


def _values(request: Request) -> dict[str, str | None]:
    try:
        values = json.loads(request.read())
    except (ValueError, RecursionError):
        raise InvalidValue("body", "is not JSON") from None
    if not isinstance(values, dict) or not all(
        value is None or isinstance(value, str) for value in values.values()
    ):
        raise InvalidValue("body", "must be a JSON object of texts and nulls")
    for text in (*values, *values.values()):
        _check_text(text)
    return values


def _check_text(text: str | None) -> None:
    # JSON can contain a lone surrogate, which UTF-8 cannot, and a NUL, which can end a text in
    # SQL.
    if text is not None and ("\0" in text or not _is_utf8(text)):
        raise InvalidValue("body", "holds text that is not UTF-8, or a NUL")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
