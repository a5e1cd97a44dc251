"""Who may do what, on the tree itself: the whole table of tests/access_table.py."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from sqlalchemy import select

from catalog.access import ADMIN, Principal, owns
from catalog.errors import Forbidden, Protected
from catalog.image import Visibility
from catalog.members import add_member, visible
from catalog.models import images
from catalog.repository.people import visible_to
from catalog.status import Status
from catalog.vfs import Vfs
from tests.access_table import MEMBER, STATES, WHO, Action, Case, State, cases
from tests.catalog.actions import begin, entry, image_at, put, read, remove, rename, set_fields

NAMES = count()
OWNER = WHO["owner"]


def prepare(vfs: Vfs, state: State) -> str:
    """Make an image in that state; return its path."""
    path = f"/file/image{next(NAMES)}"
    match state.status:
        case Status.QUEUED:
            vfs.create(vfs.place(path), OWNER)
        case Status.SAVING:
            begin(vfs, path, b"data", OWNER)
        case Status.KILLED:
            begin(vfs, path, b"data", OWNER).cancel("the test wants it so")
        case _:
            put(vfs, path, b"data", OWNER)
    set_fields(vfs, path, OWNER, visibility=state.visibility, protected=str(state.protected))
    if state.visibility is Visibility.SHARED:
        add_member(vfs.catalog, image_at(vfs, path).number, MEMBER, OWNER)
    if state.status is Status.DEACTIVATED:
        set_fields(vfs, path, ADMIN, status="deactivated")
    if state.status is Status.PENDING_DELETE:
        remove(vfs, path, OWNER)
        path = path.replace("/file/", "/file/.trash/")
    assert image_at(vfs, path).status is state.status
    return path


def see(vfs: Vfs, path: str, who: Principal) -> None:
    """A listing leaves it out, or not; in Python and in SQL alike."""
    image = image_at(vfs, path)
    shown = image.number in visible(vfs.catalog, [image], who)
    with vfs.catalog.read() as repository:
        query = select(images.c.number).where(images.c.number == image.number, visible_to(who))
        assert (repository.connection.execute(query).scalar() is not None) == shown
    if not shown:
        raise Forbidden(path)


def copy(vfs: Vfs, path: str, who: Principal) -> None:
    """The copy belongs to who made it."""
    target = vfs.place(f"/file/copy{next(NAMES)}")
    vfs.copy(entry(vfs, path), target, who, replace=False)
    assert image_at(vfs, f"/file/{target.name}").owner == who.owner


def replace(vfs: Vfs, path: str, who: Principal) -> None:
    """As rsync does: a temporary name, then a rename."""
    temporary = f"/file/.part{next(NAMES)}"
    begin(vfs, temporary, b"new data", who).finish()
    rename(vfs, temporary, path, who)


def share(vfs: Vfs, path: str, who: Principal) -> None:
    """Add a member."""
    add_member(vfs.catalog, image_at(vfs, path).number, f"project{next(NAMES)}", who)


ACTIONS: dict[Action, Callable[[Vfs, str, Principal], object]] = {
    Action.SEE: see,
    Action.READ: read,
    Action.COPY: copy,
    Action.SET: lambda vfs, path, who: set_fields(vfs, path, who, min_disk="7"),
    Action.SHARE: share,
    Action.RENAME: lambda vfs, path, who: rename(vfs, path, f"/file/new{next(NAMES)}", who),
    Action.REPLACE: replace,
    Action.DEACTIVATE: lambda vfs, path, who: set_fields(vfs, path, who, status="deactivated"),
    Action.REACTIVATE: lambda vfs, path, who: set_fields(vfs, path, who, status="active"),
    Action.DELETE: remove,
    Action.RESTORE: lambda vfs, path, who: rename(vfs, path, f"/file/back{next(NAMES)}", who),
    Action.PURGE: remove,
}


SPENDING = frozenset(Action) - {Action.SEE, Action.READ, Action.COPY, Action.SET, Action.SHARE}
"""After these the image is not what it was: each gets one of its own."""


def outcome(vfs: Vfs, path: str, action: Action, who: Principal) -> bool:
    """Whether it was allowed; any other failure is the test's."""
    try:
        ACTIONS[action](vfs, path, who)
    except (Forbidden, Protected):
        return False
    return True


@pytest.mark.parametrize("state", STATES, ids=str)
def test_every_cell_of_the_table(vfs: Vfs, state: State) -> None:
    """What the table allows is done, what it does not is refused and changes nothing."""
    kept = prepare(vfs, state)
    wrong: list[Case] = []
    for case in cases(state):
        path = prepare(vfs, state) if case.allowed and case.action in SPENDING else kept
        before = image_at(vfs, path)
        if outcome(vfs, path, case.action, WHO[case.who]) is not case.allowed:
            wrong.append(case)
        assert case.allowed or image_at(vfs, path) == before
    assert wrong == []


def test_a_user_owns_what_has_its_name_and_what_has_its_project(vfs: Vfs) -> None:
    """Images made on the host, where nobody has a project, stay the user's own."""
    alice = Principal("alice", project="web")
    assert [owns(alice, owner) for owner in ("alice", "web", "bob", "")] == [
        True,
        True,
        False,
        False,
    ]
    assert put(vfs, "/file/mounted", who=Principal("alice")).owner == "alice"
    assert put(vfs, "/file/sent", who=alice).owner == "web"


def test_a_folder_belongs_to_the_project(vfs: Vfs) -> None:
    """Who works for the same project may remove it."""
    vfs.make_folder(vfs.place("/file/d"), Principal("alice", project="web"))
    vfs.remove_folder(vfs.place("/file/d"), Principal("bert", project="web"))


def test_members_count_only_while_the_image_is_shared(vfs: Vfs) -> None:
    """Made private the image is closed to them; shared again they are members as before."""
    path = prepare(vfs, State(Visibility.SHARED, Status.ACTIVE))
    set_fields(vfs, path, OWNER, visibility="private")
    with pytest.raises(Forbidden):
        read(vfs, path, WHO["member"])
    set_fields(vfs, path, OWNER, visibility="shared")
    assert read(vfs, path, WHO["member"]) == b"data"
