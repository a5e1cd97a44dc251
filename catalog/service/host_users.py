"""Users of this host as principals of the catalog.

Threading: none of this may be called from the trio loop; the host's user database may not answer.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable

from catalog.model.access import ADMIN, Principal, Role


def admin_uids(database: str) -> frozenset[int]:
    """The uids of the administrators of the catalog whose database is at this url.

    These are root and the owner of a SQLite file, who can write to the file anyway.
    """
    scheme, _, path = database.partition("://")
    if scheme.partition("+")[0] == "sqlite":
        try:
            return frozenset({0, os.stat(path.removeprefix("/").partition("?")[0]).st_uid})
        except OSError:
            pass  # no database yet: nobody but root
    return frozenset({0})


def name_of_uid(uid: int) -> str:
    """A user's name, or the number if it has none; the user database (LDAP) may take long."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def principal_of_uid(
    uid: int, admins: frozenset[int], name: Callable[[int], str] = name_of_uid
) -> Principal:
    """The principal for a user of this host; `name` looks up the user's name."""
    if uid == 0:
        return ADMIN
    return Principal(name(uid), Role.ADMIN if uid in admins else Role.MEMBER)
