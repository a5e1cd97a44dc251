"""Who may do what to which image: the table itself, for every frontend.

A frontend's test makes an image for each `State`, tries what `cases` lists as each `Who`,
and compares.  On a mount nobody has a project and nobody is a reader: take `ON_MOUNT`, and
the users' names as owner and member.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from catalog.model.access import Principal, Role
from catalog.model.image import Visibility
from catalog.model.status import Status

OWNER = "web"
"""The project the images belong to."""
MEMBER = "desk"
"""The project that is a member of the shared ones."""

WHO = {
    "admin": Principal("root", Role.ADMIN),
    "owner": Principal("alice", Role.MEMBER, OWNER),
    "owner's reader": Principal("rita", Role.READER, OWNER),
    "member": Principal("mona", Role.MEMBER, MEMBER),
    "member's reader": Principal("max", Role.READER, MEMBER),
    "other": Principal("otto", Role.MEMBER, "lab"),
    "other's reader": Principal("olga", Role.READER, "lab"),
    "anonymous": Principal("anonymous", Role.READER),
}
ON_MOUNT = ("admin", "owner", "member", "other")


class Action(StrEnum):
    """What can be done to an image."""

    SEE = "see"
    """Find it in a listing, and its properties."""
    READ = "read"
    COPY = "copy"
    """Make a new image of it, in the same store."""
    SET = "set"
    """Set a property."""
    SHARE = "share"
    """Add a member."""
    RENAME = "rename"
    REPLACE = "replace"
    """Let a new image take its name."""
    DEACTIVATE = "deactivate"
    REACTIVATE = "reactivate"
    DELETE = "delete"
    RESTORE = "restore"
    PURGE = "purge"


@dataclass(frozen=True, slots=True)
class State:
    """What an image is, as far as the rules care."""

    visibility: Visibility
    status: Status
    protected: bool = False

    def __str__(self) -> str:
        return f"{self.visibility}-{self.status}{'-protected' if self.protected else ''}"


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of the table."""

    who: str
    action: Action
    allowed: bool


NOBODY: frozenset[str] = frozenset()
ADMIN = frozenset({"admin"})
CHANGERS = frozenset({"admin", "owner"})
OWNERS = CHANGERS | {"owner's reader"}
MEMBERS = frozenset({"member", "member's reader"})
ALL = frozenset(WHO)
CREATORS = frozenset({"admin", "owner", "member", "other"})

SEERS = {
    Visibility.PUBLIC: ALL,
    Visibility.COMMUNITY: ALL,
    Visibility.SHARED: OWNERS | MEMBERS,
    Visibility.PRIVATE: OWNERS,
}

STATUSES = (
    Status.QUEUED,
    Status.SAVING,
    Status.ACTIVE,
    Status.DEACTIVATED,
    Status.KILLED,
    Status.PENDING_DELETE,
)
STATES = [
    *(State(visibility, status) for visibility in Visibility for status in STATUSES),
    *(State(visibility, Status.ACTIVE, protected=True) for visibility in Visibility),
]

_AT_REST = frozenset({Status.QUEUED, Status.ACTIVE, Status.DEACTIVATED, Status.KILLED})


# Where an action makes sense: elsewhere nobody could, whoever it is.
_STATUSES = {
    Action.SEE: frozenset(STATUSES),
    Action.READ: frozenset({Status.ACTIVE, Status.DEACTIVATED, Status.PENDING_DELETE}),
    Action.COPY: frozenset({Status.ACTIVE}),
    Action.SET: frozenset(STATUSES),
    Action.SHARE: frozenset(STATUSES),
    Action.RENAME: _AT_REST,
    Action.REPLACE: _AT_REST,
    Action.DEACTIVATE: frozenset({Status.ACTIVE}),
    Action.REACTIVATE: frozenset({Status.DEACTIVATED}),
    Action.DELETE: _AT_REST,
    Action.RESTORE: frozenset({Status.PENDING_DELETE}),
    Action.PURGE: frozenset({Status.PENDING_DELETE}),
}


def _allowed(action: Action, state: State) -> frozenset[str]:
    seers = SEERS[state.visibility]
    match action:
        case Action.SEE:
            return seers
        case Action.READ:
            return ADMIN if state.status is Status.DEACTIVATED else seers
        case Action.COPY:
            return seers & CREATORS
        case Action.REPLACE | Action.DELETE if state.protected:
            return NOBODY
    return CHANGERS


def cases(state: State) -> Iterator[Case]:
    """Every cell for an image in that state."""
    for action, statuses in _STATUSES.items():
        if action is Action.SHARE and state.visibility is not Visibility.SHARED:
            continue  # only a shared image has members
        if state.status in statuses:
            allowed = _allowed(action, state)
            yield from (Case(who, action, who in allowed) for who in WHO)
