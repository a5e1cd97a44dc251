"""Who may do what: the one place, for every frontend.

A *principal* is who asks.  Frontends make one of a uid or of a login; the rules here
know nothing of either.  An image's owner and its members are projects, or users by their
own names: both are one set of names.

| visibility | who sees it and reads it |
|---|---|
| public, community | everybody; what tells them apart in Glance is only its default list |
| shared | its owner and its members |
| private | its owner |

An administrator does everything, a reader changes nothing, a member changes what it owns.
Who may not see an image is not shown it by a frontend that makes listings of its own; on
a mount its name still stands in the folder, where names are unique, and does not open.
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
    """Who asks: a name, a role, and perhaps the project it works for."""

    name: str
    role: Role = Role.MEMBER
    project: str = ""

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN

    @property
    def owner(self) -> str:
        """Whose the images are that the principal makes."""
        return self.project or self.name

    @property
    def names(self) -> frozenset[str]:
        """What an image's owner or member can be called that means this principal."""
        return frozenset({self.name, self.owner})


@dataclass(frozen=True, slots=True)
class User:
    """Who may log in over the network."""

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
"""The name of whoever gives none, where that is permitted; no user's."""


def check_name(name: str) -> None:
    """Raise InvalidValue unless a user or a project can be called so."""
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

    The owner is named only to those who see the image without being its members.
    """
    if not owns(principal, image.owner):
        whose = image.owner if may_see(principal, image, frozenset()) else _SOMEBODY
        raise Forbidden(image.name, f"belongs to {whose}")


def may_see(principal: Principal, image: Image | Listed, members: Set[str]) -> bool:
    """Whether the principal may see that the image is there, and its properties.

    `members` are those of a shared image; `Repository.members_of` asks only then.
    """
    if principal.is_admin or image.visibility in _FOR_ALL:
        return True
    names = principal.names
    if image.visibility is Visibility.SHARED and not names.isdisjoint(members):
        return True
    return image.owner in names


def may_list(principal: Principal, image: Image | Listed, members: Set[str]) -> bool:
    """Whether a listing shows the image to the principal.

    As `may_see`, but what is in the trash is listed only to who could restore it.
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
    """Raise Forbidden or Deactivated unless the image's data is open to the principal."""
    check_see(principal, image, members)
    # In the trash it stays open to whoever could read it before: a guest's disk may lie on it.
    if Status.DEACTIVATED in (image.status, image.status_before_delete) and not principal.is_admin:
        raise Deactivated(image.name)
    if image.status is Status.SAVING and not owns(principal, image.owner):
        raise Forbidden(image.name, "is still being uploaded")
