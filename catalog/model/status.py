"""The status machine of an image (docs/semantics.md#statuses; "Glance statuses").

The table below is the only definition: the repository's compare-and-set and the
tests read it.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Where an image is in its life."""

    QUEUED = "queued"
    SAVING = "saving"
    UPLOADING = "uploading"
    IMPORTING = "importing"
    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    KILLED = "killed"
    PENDING_DELETE = "pending_delete"
    DELETED = "deleted"


_S = Status

TRANSITIONS: dict[Status, frozenset[Status]] = {
    _S.QUEUED: frozenset({_S.SAVING, _S.UPLOADING, _S.ACTIVE, _S.PENDING_DELETE}),
    _S.SAVING: frozenset({_S.ACTIVE, _S.KILLED, _S.QUEUED}),
    _S.UPLOADING: frozenset({_S.IMPORTING, _S.KILLED, _S.QUEUED}),
    _S.IMPORTING: frozenset({_S.ACTIVE, _S.KILLED, _S.QUEUED}),
    # active -> saving: only by a writer that reopens what it has just closed
    # (docs/semantics.md#writing-a-file-uploads-an-image).
    _S.ACTIVE: frozenset({_S.DEACTIVATED, _S.PENDING_DELETE, _S.SAVING}),
    _S.DEACTIVATED: frozenset({_S.ACTIVE, _S.PENDING_DELETE}),
    _S.KILLED: frozenset({_S.PENDING_DELETE}),
    # Restore leads back to what the image was: the statuses that lead here.
    _S.PENDING_DELETE: frozenset({_S.DELETED, _S.ACTIVE, _S.DEACTIVATED, _S.KILLED, _S.QUEUED}),
    _S.DELETED: frozenset(),
}
"""From each status, the statuses it may become."""

HAS_DATA = frozenset({_S.ACTIVE, _S.DEACTIVATED})
"""The statuses in which an image's data is complete and immutable."""

IN_PROGRESS = frozenset({_S.SAVING, _S.UPLOADING, _S.IMPORTING})
"""The statuses of an upload that has neither been committed nor given up."""


def may_become(current: Status, wanted: Status) -> bool:
    """Whether the table allows the transition."""
    return wanted in TRANSITIONS[current]


def sources_of(wanted: Status) -> frozenset[Status]:
    """All statuses that may become `wanted`: the WHERE of a compare-and-set."""
    return frozenset(status for status, targets in TRANSITIONS.items() if wanted in targets)
