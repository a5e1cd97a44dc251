"""Who may do what: the one place, for every frontend.

A *principal* is who asks.  Frontends make one of a uid or of a login; the rules here
know nothing of either.
"""

from __future__ import annotations

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
