"""Users that may log in over the network, their passwords and roles.

Passwords are kept only as argon2id hashes.  How strong a password is, is not checked.
"""

from __future__ import annotations

import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from catalog.catalog import Catalog
from catalog.errors import InvalidValue
from catalog.model.access import ANONYMOUS, Role, User, check_name

# About 50 ms and 19 MiB for each check (OWASP Password Storage Cheat Sheet, argon2id).
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

_MAX_PASSWORD = 1024
"""Characters."""


def add_user(
    catalog: Catalog, name: str, password: str, *, role: Role = Role.MEMBER, project: str = ""
) -> None:
    """Add a user.  Raises AlreadyExists, InvalidValue."""
    check_name(name)
    if name == ANONYMOUS:
        raise InvalidValue(name, "is whoever gives no name")
    if project:
        check_name(project)
    hashed = hash_password(password)
    with catalog.write() as repository:
        repository.add_user(name, hashed, role, project)


def find(catalog: Catalog, name: str) -> User | None:
    """The user of that name, if there is one."""
    with catalog.read() as repository:
        return repository.user(name)


def set_password(catalog: Catalog, name: str, password: str) -> None:
    """Give a user another password, valid at once.  Raises NotFound, InvalidValue."""
    hashed = hash_password(password)
    with catalog.write() as repository:
        repository.set_password_hash(name, hashed)


def remove_user(catalog: Catalog, name: str) -> None:
    """Remove a user; images keep the name as their owner.  Raises NotFound."""
    with catalog.write() as repository:
        repository.drop_user(name)


def hash_password(password: str) -> str:
    """The password's hash, with its parameters and salt.  Raises InvalidValue."""
    if not password or len(password) > _MAX_PASSWORD:
        raise InvalidValue("password", f"is 1 to {_MAX_PASSWORD} characters")
    return _HASHER.hash(_normal(password))


def is_password(password_hash: str, password: str) -> bool:
    """Whether it is the password of that hash; takes the same time if it is not."""
    try:
        return _HASHER.verify(password_hash, _normal(password))
    except (VerificationError, InvalidHashError):
        return False


def _normal(password: str) -> str:
    # One keyboard sends é as one character, another one as two (RFC 8265 §4.2).
    return unicodedata.normalize("NFC", password)
