"""Reads what the headers of a PUT say about its data, to be verified (RFC 9110 §14.4, RFC 9530).

Scope: header text in, values out.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from web.exchange.errors import HttpError

# No more digits than a file system's largest offset has.
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_LENGTH = re.compile(r"\d{1,19}")
_ALGORITHMS = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512", "md5": "md5"}
_CHECKSUMS = frozenset({"sha256", "sha384", "sha512", "sha1", "md5"})

Digests = tuple[tuple[str, str], ...]
"""Algorithms as hashlib calls them, and values in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes `[first, last + 1)` of `total`."""

    first: int
    last: int
    total: int


@dataclass(frozen=True, slots=True)
class Announced:
    """What a client says beforehand."""

    size: int | None
    """Bytes of the body; None if they are not known."""
    body: Digests
    """Digests of this request's body."""
    image: Digests
    """Digests of the whole image."""
    mtime: int | None
    """Nanoseconds since 1970."""
    part: Part | None
    """The part of the image that the body is; None for the whole image."""


def read(environ: dict[str, Any], length: int | None) -> Announced:
    """Read a request's headers; `length` is its Content-Length in bytes.

    Unknown algorithms are ignored (RFC 9530 §2).  Raises HttpError 400 for a value that
    could not be verified.
    """
    part = _part(environ.get("HTTP_CONTENT_RANGE"), length)
    image = _parse_digests(environ.get("HTTP_REPR_DIGEST", ""))
    algorithm, _, value = environ.get("HTTP_OC_CHECKSUM", "").partition(":")
    if (algorithm := algorithm.lower().replace("-", "")) in _CHECKSUMS:
        image += ((algorithm, value.strip().lower()),)
    return Announced(
        size=_size(environ.get("HTTP_X_EXPECTED_ENTITY_LENGTH"), part, length),
        body=_parse_digests(environ.get("HTTP_CONTENT_DIGEST", "")),
        image=image,
        mtime=_mtime(environ.get("HTTP_X_OC_MTIME")),
        part=part,
    )


def _size(header: str | None, part: Part | None, length: int | None) -> int | None:
    if part is not None:
        return part.last + 1 - part.first
    if header is None:
        return length
    if not _LENGTH.fullmatch(header):
        raise HttpError(HTTPStatus.BAD_REQUEST, "X-Expected-Entity-Length: is no length")
    return int(header)


def _part(header: str | None, length: int | None) -> Part | None:
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Range: bytes FIRST-LAST/TOTAL")
    part = Part(*(int(group) for group in match.groups()))
    if not part.first <= part.last < part.total:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Range: out of order")
    if length is not None and length != part.last + 1 - part.first:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Range and Content-Length disagree")
    return part


def _parse_digests(header: str) -> Digests:
    """`sha-256=:BASE64:, …`."""
    found = []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        algorithm = _ALGORITHMS.get(name.lower())
        if algorithm is None:
            continue
        try:
            found.append((algorithm, base64.b64decode(value.strip(":"), validate=True).hex()))
        except binascii.Error:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"{name}: is not base64") from None
    return tuple(found)


def _mtime(header: str | None) -> int | None:
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    # The limits are those of a database's integer; a time before 1970 is surely wrong.
    return int(seconds * 10**9) if 0 <= seconds < 2**33 else None
