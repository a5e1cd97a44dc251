"""Who may do what on a real mount: the table of tests/kit/access/table.py, as far as modes go.

The users are uids that the host has no names for: they own by number.  Images are made by
the catalog in this process, so that the mount knows of none before it is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from catalog.model.access import Principal
from catalog.model.image import Visibility
from catalog.model.status import Status
from catalog.tree.vfs import Vfs
from tests.kit.access.images import DATA, SPENDING, new_path, prepare, state_in_memory
from tests.kit.access.table import ON_MOUNT, STATES, Action, Case, State, cases
from tests.kit.catalog import image_at
from tests.kit.daemon import Daemon
from tests.kit.tools import ROOT

pytestmark = pytest.mark.skipif(not ROOT, reason="only root can act as other users")

UIDS = {"admin": 0, "owner": 70001, "member": 70002, "other": 70003}
assert set(UIDS) == set(ON_MOUNT)

MODES = {
    Status.QUEUED: 0o644,
    Status.SAVING: 0o600,
    Status.ACTIVE: 0o444,
    Status.DEACTIVATED: 0o400,
    Status.KILLED: 0o000,
    Status.PENDING_DELETE: 0o444,
}
"""Source: docs/semantics.md#statuses."""

# xattr(7): the kernel lets who reads a file read its user.* attributes, and who writes it
# set them.  What else an image's rules allow never reaches the mount.
NEEDS = {
    Action.SEE: 0o4,
    Action.READ: 0o4,
    Action.COPY: 0o4,
    Action.SET: 0o2,
    Action.DEACTIVATE: 0o2,
    Action.REACTIVATE: 0o2,
}
ADMIN_ONLY = frozenset({Action.RESTORE, Action.PURGE})
"""The trash is root's folder, in which nobody else changes a name."""


@pytest.fixture(scope="module")
def mount() -> Iterator[Daemon]:
    """A mount for all states."""
    with state_in_memory() as folder:
        with Daemon(folder).mounted() as daemon:
            yield daemon
        assert daemon.unusual() == []


@pytest.fixture(scope="module")
def vfs(mount: Daemon) -> Iterator[Vfs]:
    """The same catalog in this process."""
    vfs = Vfs(mount.catalog())
    yield vfs
    vfs.close()


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Be that user to the kernel; root's capabilities go with the effective uid."""
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


# Paths are relative, below the mount: others cannot come there from the root.


def see(path: str) -> None:
    """Names are everybody's, where they are unique: what is seen or not is an attribute."""
    assert os.getxattr(path, "user.image.visibility")


def read(path: str) -> None:
    """cat(1)."""
    assert Path(path).read_bytes() == DATA


def copy(path: str) -> None:
    """cp(1)."""
    data = Path(path).read_bytes()
    copied = new_path().lstrip("/")
    Path(copied).write_bytes(data)
    assert os.getxattr(copied, "user.image.status") == b"active"
    assert os.stat(copied).st_uid == os.geteuid()


def replace(path: str) -> None:
    """As rsync does: a temporary name, then a rename."""
    temporary = f"{new_path()}.part".lstrip("/")
    Path(temporary).write_bytes(b"new data")
    try:
        os.rename(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _set(name: str, value: bytes) -> Callable[[str], None]:
    return lambda path: os.setxattr(path, f"user.image.{name}", value)


def rename(path: str) -> None:
    """mv(1)."""
    os.rename(path, new_path().lstrip("/"))


# Members are not to be seen on a mount: there is no way to share.
ACTIONS: dict[Action, Callable[[str], None]] = {
    Action.SEE: see,
    Action.READ: read,
    Action.COPY: copy,
    Action.SET: _set("min_disk", b"7"),
    Action.RENAME: rename,
    Action.REPLACE: replace,
    Action.DEACTIVATE: _set("status", b"deactivated"),
    Action.REACTIVATE: _set("status", b"active"),
    Action.DELETE: os.unlink,
    Action.RESTORE: rename,
    Action.PURGE: os.unlink,
}


def mode_of(state: State) -> int:
    """The mode such an image has."""
    return MODES[state.status] & (0o600 if state.visibility is Visibility.PRIVATE else 0o777)


def is_allowed(case: Case, state: State) -> bool:
    """What the table allows and the mode expresses."""
    if not case.allowed or case.who == "admin":
        return case.allowed
    if case.action in ADMIN_ONLY:
        return False
    needed = NEEDS.get(case.action, 0)
    if case.who == "owner":
        needed <<= 6
    return mode_of(state) & needed == needed


def outcome(path: str, action: Action, uid: int) -> bool:
    """Whether it was allowed; any failure but EACCES and EPERM is the test's."""
    with acting_as(uid):
        try:
            ACTIONS[action](path)
        except PermissionError:
            return False
    return True


def make(vfs: Vfs, state: State) -> str:
    """An image in that state; its path in the tree."""
    return prepare(vfs, state, Principal(str(UIDS["owner"])), str(UIDS["member"]))


@pytest.mark.parametrize("state", STATES, ids=str)
def test_every_cell_of_the_table(
    mount: Daemon, vfs: Vfs, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the table and the mode allow is done, all else is refused and changes nothing."""
    monkeypatch.chdir(mount.path)
    kept = make(vfs, state)
    wrong: list[tuple[Case, bool]] = []
    for case in cases(state):
        if case.who not in UIDS or case.action not in ACTIONS:
            continue
        allowed = is_allowed(case, state)
        path = make(vfs, state) if allowed and case.action in SPENDING else kept
        before = None if allowed else image_at(vfs, path)
        assert os.stat(path.lstrip("/")).st_mode & 0o7777 == mode_of(state)
        if outcome(path.lstrip("/"), case.action, UIDS[case.who]) is not allowed:
            wrong.append((case, allowed))
        assert before is None or image_at(vfs, path) == before
    assert wrong == []
