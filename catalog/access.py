"""Who may do what: the one place, for every frontend.

A *principal* is who asks.  Frontends make one of a uid or of a login; the rules here
know nothing of either.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from enum import StrEnum

from catalog.errors import Deactivated, Forbidden
from catalog.image import Image, Visibility
from catalog.status import Status


class Role(StrEnum):
    """What a principal is to the catalog."""

    READER = "reader"
    MEMBER = "member"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a name (an image's `owner`) and a role."""

    name: str
    role: Role = Role.MEMBER

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN


ADMIN = Principal("root", Role.ADMIN)
"""The operator on the host itself."""


def admin_uids(database: str) -> frozenset[int]:
    """The uids that administer the catalog whose database is at this url.

    Root, and the owner of a SQLite file: who can write the file can do everything anyway.
    """
    scheme, _, path = database.partition("://")
    if scheme.partition("+")[0] == "sqlite":
        try:
            return frozenset({0, os.stat(path.removeprefix("/").partition("?")[0]).st_uid})
        except OSError:
            pass  # no database yet: nobody but root
    return frozenset({0})


def principal_of_uid(uid: int, admins: frozenset[int] = frozenset({0})) -> Principal:
    """Who a user of this host is.  Asks the user database, which may take time (LDAP)."""
    if uid == 0:
        return ADMIN
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Principal(name, Role.ADMIN if uid in admins else Role.MEMBER)


def owns(principal: Principal, owner: str) -> bool:
    """Whether the principal may change what `owner` owns."""
    return principal.is_admin or (principal.role is Role.MEMBER and principal.name == owner)


def check_create(principal: Principal) -> None:
    """Raise Forbidden unless the principal may make images and folders."""
    if principal.role is Role.READER:
        raise Forbidden(principal.name, "a reader cannot add images")


def check_change(principal: Principal, image: Image) -> None:
    """Raise Forbidden unless the principal may change or delete the image."""
    if not owns(principal, image.owner):
        raise Forbidden(image.name, f"belongs to {image.owner}")


def may_read(principal: Principal, image: Image) -> bool:
    """Whether the principal may see the image's data and properties."""
    return owns(principal, image.owner) or image.visibility is not Visibility.PRIVATE


def check_read_data(principal: Principal, image: Image) -> None:
    """Raise Forbidden or Deactivated unless the image's data is open to the principal."""
    if not may_read(principal, image):
        raise Forbidden(image.name, f"is private to {image.owner}")
    if image.status is Status.DEACTIVATED and not principal.is_admin:
        raise Deactivated(image.name)
    if image.status is Status.PENDING_DELETE and not principal.is_admin:
        raise Forbidden(image.name, "is in the trash")
    if image.status is Status.SAVING and not owns(principal, image.owner):
        raise Forbidden(image.name, "is still being uploaded")
