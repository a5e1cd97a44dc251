"""Users, and the members of shared images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, exists, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from catalog.errors import AlreadyExists, NotFound
from catalog.model.access import Principal, Role, User
from catalog.model.activity import ChangeKind, EventKind
from catalog.model.clock import now
from catalog.model.image import Image, Visibility
from catalog.model.status import Status
from catalog.model.tree import Listed
from catalog.repository.rows import Rows
from catalog.repository.statements.prepared import Prepared
from catalog.repository.tables import images, members, users


def _make_user(row: Any) -> User:
    name, password_hash, role, project, created_at, updated_at = row
    return User(name, Role(role), project, password_hash, created_at, updated_at)


def visible_to(principal: Principal) -> ColumnElement[bool]:
    """`access.may_see` as a condition on rows of `images`, to count or sort them.

    A test compares it with that function.
    """
    if principal.is_admin:
        return true()
    names = sorted(principal.names)
    of_image = (members.c.image == images.c.number, members.c.member.in_(names))
    return or_(
        images.c.visibility.in_([Visibility.PUBLIC, Visibility.COMMUNITY]),
        images.c.owner.in_(names),
        (images.c.visibility == Visibility.SHARED) & exists().where(*of_image),
    )


def listed_to(principal: Principal) -> ColumnElement[bool]:
    """`access.may_list` as a condition on rows of `images`."""
    if principal.is_admin:
        return true()
    listed = images.c.status != Status.PENDING_DELETE
    if principal.role is Role.MEMBER:
        listed |= images.c.owner.in_(sorted(principal.names))
    return visible_to(principal) & listed


class PeopleRows(Rows):
    """Statements on `users` and `members`."""

    # -- users ---------------------------------------------------------------------------

    def user(self, name: str) -> User | None:
        """The user with that name, or None."""
        row = _USER.row(self.connection, name=name)
        return None if row is None else _make_user(row)

    def users(self) -> list[User]:
        """Every user, by name."""
        return [_make_user(row) for row in self.connection.execute(_ALL_USERS)]

    def add_user(self, name: str, password_hash: str, role: Role, project: str) -> None:
        """Add a user.  Raises AlreadyExists."""
        at = now()
        try:
            self.connection.execute(
                users.insert().values(
                    name=name,
                    password_hash=password_hash,
                    role=role,
                    project=project,
                    created_at=at,
                    updated_at=at,
                )
            )
        except IntegrityError as error:
            raise AlreadyExists(name, "there is a user of this name already") from error

    def set_password_hash(self, name: str, password_hash: str) -> None:
        """Set a user's password.  Raises NotFound."""
        result = self.connection.execute(
            update(users)
            .where(users.c.name == name)
            .values(password_hash=password_hash, updated_at=now())
        )
        if result.rowcount == 0:
            raise NotFound(name, _NO_USER)

    def drop_user(self, name: str) -> None:
        """Remove a user.  Raises NotFound."""
        if self.connection.execute(delete(users).where(users.c.name == name)).rowcount == 0:
            raise NotFound(name, _NO_USER)

    # -- members -------------------------------------------------------------------------

    def members_of(self, image: Image) -> frozenset[str]:
        """The members of a shared image; an image that is not shared has none, without a query."""
        if image.visibility is not Visibility.SHARED:
            return frozenset()
        rows = _MEMBERS_OF.rows(self.connection, image=image.number)
        return frozenset([member for (member,) in rows])

    def members_of_all(self, wanted: Iterable[Image | Listed]) -> Mapping[int, frozenset[str]]:
        """The members of each shared image in `wanted`, by its number; one query."""
        shared = [image.number for image in wanted if image.visibility is Visibility.SHARED]
        if not shared:
            return {}
        rows = self.connection.execute(
            select(members.c.image, members.c.member).where(members.c.image.in_(shared))
        )
        found: dict[int, set[str]] = {}
        for number, member in rows:
            found.setdefault(number, set()).add(member)
        return {number: frozenset(names) for number, names in found.items()}

    def add_member(self, image: int, member: str) -> None:
        """Add a member.  Raises AlreadyExists."""
        try:
            self.connection.execute(
                members.insert().values(image=image, member=member, created_at=now())
            )
        except IntegrityError as error:
            raise AlreadyExists(member, "is a member already") from error
        self.tell(ChangeKind.IMAGE, image=image)
        self.record(EventKind.CHANGED, image, member_added=member)

    def drop_member(self, image: int, member: str) -> None:
        """Remove a member.  Raises NotFound."""
        result = self.connection.execute(
            delete(members).where(members.c.image == image, members.c.member == member)
        )
        if result.rowcount == 0:
            raise NotFound(member, "is not a member of this image")
        self.tell(ChangeKind.IMAGE, image=image)
        self.record(EventKind.CHANGED, image, member_removed=member)


_USER = Prepared(select(users).where(users.c.name == bindparam("name")))
_MEMBERS_OF = Prepared(select(members.c.member).where(members.c.image == bindparam("image")))
_ALL_USERS = select(users).order_by(users.c.name)
_NO_USER = "there is no user of this name"
