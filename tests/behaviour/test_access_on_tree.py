"""Who may do what, on the tree itself: the whole table of tests/kit/access/table.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select

from catalog.errors import Forbidden, Protected
from catalog.model.access import Principal, may_see, owns
from catalog.model.image import Visibility
from catalog.model.status import Status
from catalog.repository.people import listed_to, visible_to
from catalog.repository.tables import images
from catalog.rules.members import add_member, visible
from catalog.tree.vfs import Vfs
from tests.kit.access.images import SPENDING, new_path, prepare, state_in_memory
from tests.kit.access.table import STATES, WHO, Action, Case, State, cases
from tests.kit.catalog import (
    begin,
    entry,
    image_at,
    new_catalog,
    put,
    read,
    remove,
    rename,
    set_fields,
    settings_at,
)

OWNER = WHO["owner"]


@pytest.fixture(scope="module")
def vfs() -> Iterator[Vfs]:
    """The tree of one catalog for all states."""
    with state_in_memory() as folder:
        vfs = Vfs(new_catalog(settings_at(folder)))
        yield vfs
        vfs.close()


def see(vfs: Vfs, path: str, who: Principal) -> None:
    """It is found by its name, or not; listings show the same, but of the trash only one's own.

    In Python and in SQL alike.
    """
    image = image_at(vfs, path)
    listed = image.number in visible(vfs.catalog, [image], who)
    with vfs.catalog.read() as repository:
        shown = may_see(who, image, repository.members_of(image))
        for condition, expected in ((visible_to(who), shown), (listed_to(who), listed)):
            query = select(images.c.number).where(images.c.number == image.number, condition)
            assert (repository.connection.execute(query).scalar() is not None) == expected
    in_trash = image.status is Status.PENDING_DELETE
    assert listed == (owns(who, image.owner) if in_trash else shown)
    if not shown:
        raise Forbidden(path)


def copy(vfs: Vfs, path: str, who: Principal) -> None:
    """The copy belongs to who made it."""
    target = vfs.place(new_path())
    vfs.copy(entry(vfs, path), target, who, replace=False)
    assert image_at(vfs, f"/file/{target.name}").owner == who.owner


def replace(vfs: Vfs, path: str, who: Principal) -> None:
    """As rsync does: a temporary name, then a rename."""
    temporary = f"{new_path()}.part"
    begin(vfs, temporary, b"new data", who).finish()
    rename(vfs, temporary, path, who)


def share(vfs: Vfs, path: str, who: Principal) -> None:
    """Add a member."""
    add_member(vfs.catalog, image_at(vfs, path).number, new_path(), who)


ACTIONS: dict[Action, Callable[[Vfs, str, Principal], object]] = {
    Action.SEE: see,
    Action.READ: read,
    Action.COPY: copy,
    Action.SET: lambda vfs, path, who: set_fields(vfs, path, who, min_disk="7"),
    Action.SHARE: share,
    Action.RENAME: lambda vfs, path, who: rename(vfs, path, new_path(), who),
    Action.REPLACE: replace,
    Action.DEACTIVATE: lambda vfs, path, who: set_fields(vfs, path, who, status="deactivated"),
    Action.REACTIVATE: lambda vfs, path, who: set_fields(vfs, path, who, status="active"),
    Action.DELETE: remove,
    Action.RESTORE: lambda vfs, path, who: rename(vfs, path, new_path(), who),
    Action.PURGE: remove,
}


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
        before = None if case.allowed else image_at(vfs, path)
        if outcome(vfs, path, case.action, WHO[case.who]) is not case.allowed:
            wrong.append(case)
        assert before is None or image_at(vfs, path) == before
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
