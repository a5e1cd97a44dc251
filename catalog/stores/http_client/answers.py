"""What a web server's answer to a ranged GET contains, and whether it may be used.

Scope: RFC 9110 §14 (ranges), §13 (conditions), §15 (status); nothing here sends a request.
Safe from any thread: a response is its caller's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from requests import Response

from catalog.errors import DataChanged, NotFound, StoreBusy, StoreRefused, StoreUnavailable
from catalog.stores.base import Stat

_SIZE = r"[0-9]{1,18}"
"""No object needs more digits, and a database's integer cannot hold them."""
_CONTENT_RANGE = re.compile(rf"bytes (?:({_SIZE})-({_SIZE})|\*)/({_SIZE})")

_STRONG_ETAG = re.compile(r'"[^"]*"')

_IGNORES_RANGE = "the server ignores Range: it sent the whole object"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds in Retry-After; None if it is missing or no number (RFC 9110 §10.2.3)."""
    told = headers.get("Retry-After", "")
    return float(told) if told.isdecimal() else None


def shown(url: str) -> str:
    """A URL as an error may show it: without the user's part and the query.

    The first can contain a password, the second a signature.
    """
    bare, has_query, _ = url.partition("?")
    return re.sub(r"^([^/]*//)[^/]*@", r"\1", bare) + ("?…" if has_query else "")


def conditions(etag: str) -> dict[str, str]:
    """The header that makes a server answer 412 if the object has another etag by now.

    There is no header for a weak ETag, as If-Match never takes it for equal (RFC 9110
    §13.1.1), nor for text that is no ETag.
    """
    if _STRONG_ETAG.fullmatch(etag):
        return {"If-Match": etag}
    if etag.endswith(" GMT"):
        return {"If-Unmodified-Since": etag}
    return {}


def etag_of(response: Response) -> str:
    """The ETag, or the Last-Modified if there is none, or an empty string."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified", "")


def is_empty(response: Response) -> bool:
    """Whether the answer to `bytes=0-0` says that the object has no bytes."""
    headers = response.headers
    return (response.status_code == 416 and headers.get("Content-Range") == "bytes */0") or (
        response.status_code == 200 and headers.get("Content-Length") == "0"
    )


def part_of(url: str, response: Response) -> tuple[range, int]:
    """The range of bytes in a response, as it states itself, and the size of the whole object.

    Raises NotFound, DataChanged; StoreUnavailable for any answer but one plain part.
    """
    if response.status_code != 206:
        raise _failure(url, response)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise StoreRefused(shown(url), f"the server sent it with Content-Encoding {encoding}")
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or found[1] is None:
        raise other_range(url, response)
    return range(int(found[1]), int(found[2]) + 1), int(found[3])


def size_of(url: str, response: Response) -> int | None:
    """The size of the whole object in a response; None if it is known only at the end.

    Raises NotFound, StoreUnavailable; StoreRefused also if an object that is cut off would
    look whole.
    """
    if response.status_code != 200:
        raise _failure(url, response)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise StoreRefused(shown(url), f"the server sent it with Content-Encoding {encoding}")
    if "chunked" in response.headers.get("Transfer-Encoding", "").lower():
        return None
    length = response.headers.get("Content-Length", "")
    if not re.fullmatch(_SIZE, length):
        raise StoreRefused(shown(url), "the server tells neither the size nor where it ends")
    return int(length)


def verify(url: str, response: Response, wanted: range, opened: Stat) -> None:
    """Check that a response has the bytes `wanted` of the object that was opened.

    Raises NotFound, DataChanged, StoreUnavailable.
    """
    answered = response.headers.get("Content-Range", "")
    if response.status_code == 416 and _size_in(answered) not in (None, opened.size):
        raise DataChanged(shown(url))
    if response.status_code == 200:
        # The server obeyed Range when the object was opened.  Perhaps this is another mirror.
        raise StoreUnavailable(shown(url), _IGNORES_RANGE)
    found, size = part_of(url, response)
    if Stat(size, etag_of(response)) != opened:
        raise DataChanged(shown(url))
    if found != wanted:
        raise other_range(url, response)


def other_range(url: str, response: Response) -> StoreUnavailable:
    """The error for a response with another range than was asked for."""
    asked = response.request.headers["Range"]
    got = response.headers.get("Content-Range", "nothing")
    return StoreUnavailable(shown(url), f"the server was asked for {asked} and answered with {got}")


def _size_in(content_range: str) -> int | None:
    found = _CONTENT_RANGE.fullmatch(content_range)
    return int(found[3]) if found else None


def _failure(url: str, response: Response) -> NotFound | StoreUnavailable:
    """The error for an answer that is no part of the object."""
    status, subject = response.status_code, shown(url)
    if status in (404, 410):
        return NotFound(subject)
    if status == 412:
        return DataChanged(subject)
    if status == 200:
        return StoreRefused(subject, _IGNORES_RANGE)
    reason = f"the server answered {status} {response.reason}"
    if status in (429, 503):
        return StoreBusy(subject, reason, retry_after(response.headers))
    kind = StoreRefused if status in (401, 403) else StoreUnavailable
    return kind(subject, reason)
