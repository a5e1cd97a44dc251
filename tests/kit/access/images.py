"""Images in each state of the table in `access_table`, and a catalog to make them in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from catalog.model.access import ADMIN, Principal
from catalog.model.image import Visibility
from catalog.model.status import Status
from catalog.rules.members import add_member
from catalog.tree.vfs import Vfs
from tests.kit.access.table import MEMBER, WHO, Action, State
from tests.kit.catalog import begin, image_at, put, remove, set_fields

DATA = b"data"
"""What is in each of them."""

SPENDING = frozenset(Action) - {Action.SEE, Action.READ, Action.COPY, Action.SET, Action.SHARE}
"""After these the image is not what it was: each gets one of its own."""

_names = count()


@contextmanager
def state_in_memory() -> Iterator[Path]:
    """A folder for a catalog: of its thousands of transactions none need outlive the test."""
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def new_path() -> str:
    """Where there is nothing yet."""
    return f"/file/image{next(_names)}"


def prepare(vfs: Vfs, state: State, owner: Principal = WHO["owner"], member: str = MEMBER) -> str:
    """Make an image in that state; return its path."""
    path = new_path()
    match state.status:
        case Status.QUEUED:
            vfs.create(vfs.place(path), owner)
        case Status.SAVING:
            begin(vfs, path, DATA, owner)
        case Status.KILLED:
            begin(vfs, path, DATA, owner).cancel("the test wants it so")
        case _:
            put(vfs, path, DATA, owner)
    set_fields(vfs, path, owner, visibility=state.visibility, protected=str(state.protected))
    if state.visibility is Visibility.SHARED:
        add_member(vfs.catalog, image_at(vfs, path).number, member, owner)
    if state.status is Status.DEACTIVATED:
        set_fields(vfs, path, ADMIN, status="deactivated")
    if state.status is Status.PENDING_DELETE:
        remove(vfs, path, owner)
        path = path.replace("/file/", "/file/.trash/")
    assert image_at(vfs, path).status is state.status
    return path
