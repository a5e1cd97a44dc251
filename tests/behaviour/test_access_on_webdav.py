"""Who may do what over WebDAV: the table of tests/kit/access/table.py, on `imagefs dav`.

What a principal may not see is not there (404), except that its name is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from catalog.model.image import Visibility
from catalog.model.status import Status
from catalog.tree.vfs import Vfs
from tests.kit.access.images import DATA, SPENDING, new_path, prepare, state_in_memory
from tests.kit.access.table import CHANGERS, SEERS, STATES, WHO, Action, Case, State, cases
from tests.kit.catalog import image_at
from tests.kit.daemon import Daemon
from tests.kit.service import service
from tests.kit.wire import Answer, Wire, basic

pytestmark = pytest.mark.server

PASSWORD = "pass wörd"
LOCK = (
    b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>'
    b"<locktype><write/></locktype></lockinfo>"
)
HIDDEN = State(Visibility.PRIVATE, Status.ACTIVE)


@dataclass(frozen=True, slots=True)
class Served:
    """A running server, and its catalog in this process."""

    port: int
    vfs: Vfs

    def ask(self, who: str, request: str, *headers: str, body: bytes = b"") -> Answer:
        """Send a request as one of WHO."""
        if who != "anonymous":
            headers = (basic(WHO[who].name, PASSWORD), *headers)
        with Wire(self.port) as wire:
            return wire.ask(request, *headers, body=body)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A server for all states; without a name one may only read."""
    with state_in_memory() as folder:
        catalog = Daemon(folder)
        for who in WHO.values():
            if who != WHO["anonymous"]:
                words = ("--role", str(who.role), "--project", who.project)
                catalog.command("user", "add", who.name, *words, stdin=f"{PASSWORD}\n")
        vfs = Vfs(catalog.catalog())
        with service(catalog, "read") as running:
            yield Served(running.port, vfs)
        vfs.close()


# -- what is done, and the status it is answered with ----------------------------------


def see(served: Served, path: str, who: str) -> int:
    """A listing shows it if asking for it does; the trash only to who could restore it."""
    status = served.ask(who, f"PROPFIND {path}", "Depth: 0").status
    listing = served.ask(who, f"PROPFIND {path.rpartition('/')[0]}", "Depth: 1")
    listed = who in CHANGERS if "/.trash/" in path else status == 207
    assert (f">{path}<".encode() in listing.body) == listed
    page = served.ask(who, f"GET {path}?page", "Accept: application/json").status
    assert page == (200 if status == 207 else status)
    return status


def read(served: Served, path: str, who: str) -> int:
    """HEAD says the same."""
    answer = served.ask(who, f"GET {path}")
    assert served.ask(who, f"HEAD {path}").status == answer.status
    assert (answer.body == DATA) == (answer.status == 200)
    return answer.status


def copy(served: Served, path: str, who: str) -> int:
    """The copy belongs to who made it."""
    target = new_path()
    status = served.ask(who, f"COPY {path}", f"Destination: {target}").status
    assert status != 201 or image_at(served.vfs, target).owner == WHO[who].owner
    return status


def move(served: Served, path: str, who: str) -> int:
    """To another name: a new one, or back from the trash."""
    return served.ask(who, f"MOVE {path}", f"Destination: {new_path()}").status


def replace(served: Served, path: str, who: str) -> int:
    """As curl does."""
    return served.ask(who, f"PUT {path}", body=b"new data").status


def delete(served: Served, path: str, who: str) -> int:
    """To the trash, or from there for good."""
    return served.ask(who, f"DELETE {path}").status


def setting(name: str, value: str) -> Callable[[Served, str, str], int]:
    """Set a field; a multi-status counts as the property's own status."""
    body = (
        '<propertyupdate xmlns="DAV:"><set><prop>'
        f'<i:{name} xmlns:i="urn:imagefs:image">{value}</i:{name}>'
        "</prop></set></propertyupdate>"
    ).encode()

    def proppatch(served: Served, path: str, who: str) -> int:
        answer = served.ask(who, f"PROPPATCH {path}", body=body)
        if answer.status != 207:
            return answer.status
        (status,) = re.findall(rb"HTTP/1.1 (\d+)", answer.body)
        return int(status)

    return proppatch


# Members are the command's alone to add.
ACTIONS: dict[Action, Callable[[Served, str, str], int]] = {
    Action.SEE: see,
    Action.READ: read,
    Action.COPY: copy,
    Action.SET: setting("min_disk", "7"),
    Action.RENAME: move,
    Action.REPLACE: replace,
    Action.DEACTIVATE: setting("status", "deactivated"),
    Action.REACTIVATE: setting("status", "active"),
    Action.DELETE: delete,
    Action.RESTORE: move,
    Action.PURGE: delete,
}
READING = frozenset({Action.SEE, Action.READ})


def statuses(case: Case, state: State) -> frozenset[int]:
    """What the answer may be."""
    if case.allowed:
        return frozenset({200, 201, 204, 207})
    if case.who == "anonymous" and case.action not in READING:
        return frozenset({401})
    if case.who not in SEERS[state.visibility] and case.action is not Action.REPLACE:
        return frozenset({404})
    return frozenset({403})


@pytest.mark.parametrize("state", STATES, ids=str)
def test_every_cell_of_the_table(served: Served, state: State) -> None:
    """What the table allows is done, what it does not is refused and changes nothing."""
    vfs = served.vfs
    kept = prepare(vfs, state)
    wrong: list[tuple[Case, int]] = []
    for case in cases(state):
        if case.action not in ACTIONS:
            continue
        path = prepare(vfs, state) if case.allowed and case.action in SPENDING else kept
        before = None if case.allowed else image_at(vfs, path)
        status = ACTIONS[case.action](served, path, case.who)
        if status not in statuses(case, state):
            wrong.append((case, status))
        assert before is None or image_at(vfs, path) == before
    assert wrong == []


@pytest.mark.parametrize("visibility", Visibility)
def test_who_may_lock(served: Served, visibility: Visibility) -> None:
    """Who may change the image: a lock keeps all others from that."""
    path = prepare(served.vfs, State(visibility, Status.ACTIVE))
    for who in WHO:
        answer = served.ask(who, f"LOCK {path}", body=LOCK)
        assert (answer.status == 200) == (who in CHANGERS), who
        if answer.status == 200:
            token = f"Lock-Token: {answer.headers['lock-token']}"
            assert served.ask(who, f"UNLOCK {path}", token).status == 204


@pytest.mark.parametrize("path", ["/file", "/"])
def test_nobody_but_an_administrator_locks_a_store(served: Served, path: str) -> None:
    """With all that is in it."""
    assert served.ask("owner", f"LOCK {path}", body=LOCK).status == 403


# -- what is hidden, in the other places where it could show ---------------------------


@pytest.fixture(scope="module")
def hidden(served: Served) -> str:
    """The path of an image that others may not see."""
    return prepare(served.vfs, HIDDEN)


def test_the_id_of_a_hidden_image(served: Served, hidden: str) -> None:
    """It leads nowhere, neither as WebDAV nor as a page: who asks learns no name."""
    path = f"/.by-id/{image_at(served.vfs, hidden).id}"
    assert served.ask("owner", f"GET {path}").body == DATA
    for request in (f"GET {path}", f"PROPFIND {path}", f"GET {path}?page"):
        assert served.ask("other", request, "Depth: 0").status == 404


@pytest.mark.parametrize(
    ("method", "status"),
    [("LOCK", 409), ("MKCOL", 405), ("PUT", 403), ("COPY", 403), ("MOVE", 403)],
)
def test_the_name_of_a_hidden_image_is_taken(
    served: Served, hidden: str, method: str, status: int
) -> None:
    """Names are unique: what would take it is refused, without a word of whose it is."""
    headers: tuple[str, ...] = ()
    target, body = hidden, b"data" if method == "PUT" else b""
    if method in ("COPY", "MOVE"):
        target, headers = new_path(), (f"Destination: {hidden}",)
        assert served.ask("other", f"PUT {target}", body=b"own").status == 201
    if method == "LOCK":
        body = LOCK
    before = image_at(served.vfs, hidden)
    answer = served.ask("other", f"{method} {target}", *headers, body=body)
    assert answer.status == status
    assert not any(name.encode() in answer.body for name in WHO["owner"].names)
    assert image_at(served.vfs, hidden) == before


def test_a_folder_is_copied_without_what_is_hidden_in_it(served: Served) -> None:
    """What its listing shows is what COPY takes."""
    folder, copied = new_path(), new_path()
    assert served.ask("owner", f"MKCOL {folder}").status == 201
    for name in ("shown", "hidden"):
        assert served.ask("owner", f"PUT {folder}/{name}", body=DATA).status == 201
    assert setting("visibility", "private")(served, f"{folder}/hidden", "owner") == 200
    assert served.ask("other", f"COPY {folder}", f"Destination: {copied}").status == 201
    assert served.ask("other", f"GET {copied}/shown").body == DATA
    assert served.ask("admin", f"GET {copied}/hidden").status == 404
