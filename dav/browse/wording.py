"""Sizes, times and names as text for people; filters of the templates."""

from __future__ import annotations

from datetime import datetime

from catalog.model.status import Status

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")

STATUS_NAMES = {
    Status.QUEUED: "queued",
    Status.SAVING: "saving",
    Status.UPLOADING: "uploading",
    Status.IMPORTING: "importing",
    Status.ACTIVE: "active",
    Status.DEACTIVATED: "deactivated",
    Status.KILLED: "failed",
    Status.PENDING_DELETE: "deleted",
    Status.DELETED: "gone",
}
"""The word for each status on a page."""


def human_size(size: int | None) -> str:
    """A size in bytes for people: 1.5 GiB; a dash if there is none."""
    if size is None:
        return "–"
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, len(_UNITS))
    return f"{size / 1024**power:.1f} {_UNITS[power - 1]}"


def printable(text: str) -> str:
    """Text in which invisible characters are written as escapes.

    A name with U+202E, which changes the writing direction, can seem to end in `.iso`.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else _spelled(c) for c in text)


def _spelled(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def thousands(number: int) -> str:
    """A number with a comma after every third digit from the right."""
    return f"{number:,}"


def minute(at: datetime | None) -> str:
    """A time to the minute, in UTC; a dash if there is none."""
    return "–" if at is None else at.strftime("%Y-%m-%d %H:%M")


def instant(at: datetime) -> str:
    """A time for `<time datetime>`."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
