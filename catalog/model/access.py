"""The rules of who may do what, for every frontend.

A *principal* is the user that asks.  A frontend makes one from a uid or from a login; these rules
know nothing of either.  The owner and the members of an image are names of projects or of users;
both kinds of names are one set.

| visibility | who sees it and reads it |
|---|---|
| public, community | everybody; the two differ only in Glance's default listing |
| shared | its owner and its members |
| private | its owner |

An administrator may do everything, a reader may change nothing, a member may change what it owns.
A frontend that makes its own listings leaves out the images that the principal may not see.  On
a mount they are listed, as names in a folder are unique, but they cannot be opened.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from catalog.errors import Deactivated, Forbidden, InvalidValue
from catalog.model.image import Image, Visibility
from catalog.model.status import Status
from catalog.model.tree import Listed


class Role(StrEnum):
    """What a principal is to the catalog."""

    READER = "reader"
    MEMBER = "member"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """The user that asks: a name, a role, and perhaps the project it works for."""

    name: str
    role: Role = Role.MEMBER
    project: str = ""

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN

    @property
    def owner(self) -> str:
        """The owner of the images that the principal makes."""
        return self.project or self.name

    @property
    def names(self) -> frozenset[str]:
        """The names by which an image's owner or members can mean this principal."""
        return frozenset({self.name, self.owner})


@dataclass(frozen=True, slots=True)
class User:
    """A user that may log in over the network."""

    name: str
    role: Role
    project: str
    """Empty for none."""
    password_hash: str = field(repr=False)
    created_at: datetime
    updated_at: datetime

    @property
    def principal(self) -> Principal:
        return Principal(self.name, self.role, self.project)


ADMIN = Principal("root", Role.ADMIN)
"""The operator on the host itself."""

ANONYMOUS = "anonymous"
"""The name for clients that log in without one, where that is permitted; no user has it."""


def check_name(name: str) -> None:
    """Raise InvalidValue unless a user or a project can have this name."""
    # A colon ends the name in HTTP Basic authentication (RFC 7617 §2).
    if not name or len(name) > 255 or not name.isprintable() or ":" in name:
        raise InvalidValue(name[:60], "a name is 1 to 255 printable characters without a colon")
    if name != name.strip():
        raise InvalidValue(name, "a name neither begins nor ends with a space")


def owns(principal: Principal, owner: str) -> bool:
    """Whether the principal may change what `owner` owns."""
    return principal.is_admin or (principal.role is Role.MEMBER and owner in principal.names)


def check_create(principal: Principal) -> None:
    """Raise Forbidden unless the principal may make images and folders."""
    if principal.role is Role.READER:
        raise Forbidden(principal.name, "a reader cannot add images")


def check_change(principal: Principal, image: Image) -> None:
    """Raise Forbidden unless the principal may change or delete the image.

    The error names the owner only to a principal that sees the image without being its
    member.
    """
    if not owns(principal, image.owner):
        whose = image.owner if may_see(principal, image, frozenset()) else _SOMEBODY
        raise Forbidden(image.name, f"belongs to {whose}")


def may_see(principal: Principal, image: Image | Listed, members: Set[str]) -> bool:
    """Whether the principal may see that the image is there, and its properties.

    `members` are the image's members; they count only for a shared image.
    """
    if principal.is_admin or image.visibility in _FOR_ALL:
        return True
    names = principal.names
    if image.visibility is Visibility.SHARED and not names.isdisjoint(members):
        return True
    return image.owner in names


def may_list(principal: Principal, image: Image | Listed, members: Set[str]) -> bool:
    """Whether a listing shows the image to the principal.

    As `may_see`, but an image in the trash is listed only to those who may restore it.
    """
    if image.status is Status.PENDING_DELETE and not owns(principal, image.owner):
        return False
    return may_see(principal, image, members)


_FOR_ALL = frozenset({Visibility.PUBLIC, Visibility.COMMUNITY})
_SOMEBODY = "somebody else"


def check_see(principal: Principal, image: Image, members: Set[str]) -> None:
    """Raise Forbidden unless the principal may see the image."""
    if not may_see(principal, image, members):
        raise Forbidden(image.name, f"belongs to {_SOMEBODY}")


def check_read_data(principal: Principal, image: Image, members: Set[str]) -> None:
    """Raise Forbidden or Deactivated unless the principal may read the image's data."""
    check_see(principal, image, members)
    # An image in the trash can still be read as before: it may be the backing file of the disk
    # of a guest that runs.
    if Status.DEACTIVATED in (image.status, image.status_before_delete) and not principal.is_admin:
        raise Deactivated(image.name)
    if image.status is Status.SAVING and not owns(principal, image.owner):
        raise Forbidden(image.name, "is still being uploaded")
