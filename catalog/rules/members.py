"""Checks who may see and read an image; keeps its members, who may do so besides its owner.

Only here the rules of `access` are applied to members from the catalog.  In Glance a member first
has to accept an image to see it in a listing; here it need not.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import Protocol

from catalog.catalog import Catalog
from catalog.errors import NotSupported, QuotaExceeded
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.image import Image, Visibility
from catalog.model.tree import Listed

MAX_MEMBERS = 128
"""As Glance's image_member_quota."""


class Members(Protocol):
    """Knows the members of an image: a transaction, or a catalog, which begins one."""

    def members_of(self, image: Image) -> Set[str]: ...


def may_see(known: Members, image: Image, principal: Principal) -> bool:
    """Whether the principal may see that the image is there, and its properties."""
    return access.may_see(principal, image, known.members_of(image))


def check_see(known: Members, image: Image, principal: Principal) -> None:
    """Raise Forbidden unless the principal may see the image."""
    access.check_see(principal, image, known.members_of(image))


def check_read(known: Members, image: Image, principal: Principal) -> None:
    """Raise Forbidden or Deactivated unless the image's data is open to the principal."""
    access.check_read_data(principal, image, known.members_of(image))


def visible(
    catalog: Catalog, images: Collection[Image | Listed], principal: Principal
) -> frozenset[int]:
    """The numbers of the images that a listing shows to the principal; at most one query."""
    with catalog.read() as repository:
        members = repository.members_of_all(images)
    return frozenset(
        image.number
        for image in images
        if access.may_list(principal, image, members.get(image.number, frozenset()))
    )


def add_member(catalog: Catalog, number: int, member: str, principal: Principal) -> None:
    """Let a project, or a user by its name, read a shared image.

    Raises NotFound, Forbidden, AlreadyExists, InvalidValue, QuotaExceeded, and
    NotSupported for an image that is not shared.
    """
    access.check_name(member)
    with catalog.write() as repository:
        image = repository.image(number)
        access.check_change(principal, image)
        if image.visibility is not Visibility.SHARED:
            reason = f"is {image.visibility}: only a shared image has members"
            raise NotSupported(image.name, reason)
        if len(repository.members_of(image)) >= MAX_MEMBERS:
            raise QuotaExceeded(image.name, f"an image has at most {MAX_MEMBERS} members")
        repository.add_member(number, member)


def remove_member(catalog: Catalog, number: int, member: str, principal: Principal) -> None:
    """Remove a member; a file it has open stays readable.  Raises NotFound, Forbidden."""
    with catalog.write() as repository:
        access.check_change(principal, repository.image(number))
        repository.drop_member(number, member)
