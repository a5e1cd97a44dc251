"""Conditional requests and byte ranges (RFC 9110 §13, §14).

Scope: header text and validators in, a decision out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from web.exchange.errors import HttpError

READING = ("GET", "HEAD")
"""The methods that are answered with an image's data."""

MAX_RANGES = 64
"""More ranges in one request are an attack or a mistake (RFC 9110 §17.15)."""

# No more digits than a file system's largest offset has.
_RANGE = re.compile(r"(\d{0,19})-(\d{0,19})")


@dataclass(frozen=True, slots=True)
class Validators:
    """The ETag and the date of a representation."""

    etag: str | None
    """With its quotes; None if nothing exists there, or if it has no tag."""
    modified_at: datetime | None
    exists: bool = True


def is_weak(etag: str | None) -> bool:
    """Whether the tag is weak: it may stay the same when the data changes (RFC 9110 §8.8.1)."""
    return etag is not None and etag.startswith("W/")


def opaque(etag: str) -> str:
    """The part of a tag that the weak comparison compares (RFC 9110 §8.8.3.2)."""
    return etag.removeprefix("W/")


def check(environ: Mapping[str, Any], current: Validators) -> None:
    """Raise HttpError 412, or 304 for a GET or HEAD, in the order of RFC 9110 §13.2.2."""
    if if_match := environ.get("HTTP_IF_MATCH"):
        # RFC 9110 §13.1.1 wants strong tags.  A weak tag of ours is accepted for a change or a
        # deletion: it says which image is meant, as no other image has ever had it.  For reading,
        # `representation.validators` gives no weak tag, so that it cannot match here.
        if not _matches(if_match, current, weak=is_weak(current.etag)):
            raise HttpError(HTTPStatus.PRECONDITION_FAILED, "If-Match: it is another by now")
    elif _is_after(current, environ.get("HTTP_IF_UNMODIFIED_SINCE")):
        raise HttpError(HTTPStatus.PRECONDITION_FAILED, "it has been modified since")
    reading = environ["REQUEST_METHOD"] in READING
    if if_none_match := environ.get("HTTP_IF_NONE_MATCH"):
        if _matches(if_none_match, current, weak=True):
            if reading:
                raise HttpError(HTTPStatus.NOT_MODIFIED, headers=_etag(current))
            raise HttpError(HTTPStatus.PRECONDITION_FAILED, "If-None-Match: it exists already")
    elif reading and _is_after(current, environ.get("HTTP_IF_MODIFIED_SINCE")) is False:
        raise HttpError(HTTPStatus.NOT_MODIFIED, headers=_etag(current))


def _is_after(current: Validators, header: str | None) -> bool | None:
    """Whether it was modified after the header's date; None if one of the dates is missing."""
    date = _date(header)
    if date is None or current.modified_at is None:
        return None
    return _seconds(current.modified_at) > date


def ranges(
    environ: Mapping[str, Any], current: Validators, size: int
) -> list[tuple[int, int]] | None:
    """The byte ranges that were asked for, as half-open pairs; None for all bytes.

    A malformed Range is ignored, as RFC 9110 §14.2 says.  Raises HttpError 416 when no
    range overlaps the representation.
    """
    header = environ.get("HTTP_RANGE", "")
    unit, _, specifiers = header.partition("=")
    if unit.strip().lower() != "bytes" or not _if_range_holds(environ, current):
        return None
    wanted = []
    for specifier in filter(None, map(str.strip, specifiers.split(","))):
        match = _RANGE.fullmatch(specifier)
        if match is None or specifier == "-" or _is_reversed(match):
            return None
        wanted.append(_resolve(match[1], match[2], size))
    if not 0 < len(wanted) <= MAX_RANGES:
        return None
    found = [(start, end) for start, end in wanted if start < end]
    if not found:
        raise HttpError(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"the image has {size} bytes",
            (("Content-Range", f"bytes */{size}"),),
        )
    return found


def _is_reversed(specifier: re.Match[str]) -> bool:
    first, last = specifier.groups()
    return bool(first and last) and int(last) < int(first)


def _resolve(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size


def _if_range_holds(environ: Mapping[str, Any], current: Validators) -> bool:
    header = environ.get("HTTP_IF_RANGE")
    if header is None:
        return True
    if header.startswith('"'):
        return bool(header == current.etag)
    date = _date(header)
    return (
        date is not None
        and current.modified_at is not None
        and (_seconds(current.modified_at) == date)
    )


def _matches(header: str, current: Validators, *, weak: bool) -> bool:
    if header.strip() == "*":
        return current.exists
    if current.etag is None:
        return False
    candidates = (part.strip() for part in header.split(","))
    if weak:
        return opaque(current.etag) in map(opaque, candidates)
    return current.etag in candidates


def _date(header: str | None) -> datetime | None:
    if not header:
        return None
    try:
        return parsedate_to_datetime(header).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _seconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _etag(current: Validators) -> tuple[tuple[str, str], ...]:
    return (("ETag", current.etag),) if current.etag else ()
