"""Locks end with what they are on, tell who holds them, and leave nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.model.access import ADMIN, Role
from catalog.rules import locks
from catalog.rules.users import add_user
from catalog.service.bootstrap import open_catalog
from catalog.tree.vfs import Vfs
from catalog.upkeep import scrub
from tests.dav.server import Served, serving, xml
from tests.kit.catalog import (
    link,
    make_folder,
    names_in,
    put,
    remove,
    rename,
    set_fields,
    settings_at,
)
from tests.kit.wire import basic

LOCKINFO = (
    b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype>'
    b"<owner>ex</owner></lockinfo>"
)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the catalog is."""
    return tmp_path_factory.mktemp("locks")


@pytest.fixture(scope="module")
def served(state: Path) -> Iterator[Served]:
    """A server with two members and an administrator."""
    with serving(state) as running:
        for name, role in (("alice", "member"), ("bob", "member"), ("carol", "admin")):
            add_user(running.vfs.catalog, name, "secret", role=Role(role))
        yield running


@pytest.fixture(scope="module")
def host(served: Served, state: Path) -> Iterator[Vfs]:
    """The same catalog in a process that serves no WebDAV: the mount, or a command."""
    vfs = Vfs(open_catalog(settings_at(state)))
    yield vfs
    vfs.close()


@pytest.fixture
def folder(served: Served, request: pytest.FixtureRequest) -> str:
    """A folder of its own."""
    path = f"/file/{len(names_in(served.vfs, '/file'))}-{request.node.originalname}"
    make_folder(served.vfs, path, ADMIN)
    return path


def lock(served: Served, path: str, *headers: str, who: str = "alice") -> str:
    """Lock a path; return the token."""
    answer = served.ask(f"LOCK {path}", basic(who), *headers, body=LOCKINFO)
    assert answer.status in (200, 201), answer
    return answer.headers["lock-token"].strip("<>")


def held(served: Served, path: str) -> list[str]:
    """Who holds locks on a path or below it."""
    return [each.principal for each in locks.at(served.vfs.catalog, path, below=True)]


# -- they end ----------------------------------------------------------------------------


def test_with_an_image_that_the_host_removes(served: Served, host: Vfs, folder: str) -> None:
    """`rm` on the mount; whoever writes there next need not wait."""
    path = f"{folder}/a.img"
    served.add(path)
    lock(served, path, who="carol")
    assert served.ask(f"PUT {path}", body=b"data").status == 423
    remove(host, path, ADMIN)
    assert held(served, path) == []
    assert served.ask(f"PUT {path}", body=b"data").status == 201


def test_with_an_image_that_the_host_renames(served: Served, host: Vfs, folder: str) -> None:
    """`mv`: neither its old name nor the new one is locked."""
    path = f"{folder}/a.img"
    served.add(path)
    lock(served, path, who="carol")
    rename(host, path, f"{path}.b", ADMIN)
    assert held(served, folder) == []


def test_with_an_image_that_the_host_replaces(served: Served, host: Vfs, folder: str) -> None:
    """`mv` onto it: what was locked is in the trash."""
    path = f"{folder}/a.img"
    served.add(path)
    put(host, f"{path}.new", b"new", ADMIN)
    lock(served, path, who="carol")
    rename(host, f"{path}.new", path, ADMIN)
    assert held(served, path) == []


def test_with_a_copy_that_the_host_removes(served: Served, host: Vfs, folder: str) -> None:
    """`rm` of one of two names: only that one's lock."""
    path, other = f"{folder}/a.img", "/other/linked.img"
    served.add(path)
    link(host, path, other, ADMIN)
    lock(served, path, who="carol")
    lock(served, other, who="carol")
    remove(host, path, ADMIN)
    assert (held(served, path), held(served, other)) == ([], ["carol"])
    remove(host, other, ADMIN)
    assert held(served, other) == []


def test_with_a_folder_that_the_host_renames_or_removes(
    served: Served, host: Vfs, folder: str
) -> None:
    """And those on what was in it."""
    make_folder(served.vfs, f"{folder}/d", ADMIN)
    served.add(f"{folder}/d/a.img")
    lock(served, f"{folder}/d", "Depth: 0", who="carol")
    lock(served, f"{folder}/d/a.img", who="carol")
    lock(served, f"{folder}/dd", who="carol")
    rename(host, f"{folder}/d", f"{folder}/e", ADMIN)
    assert held(served, folder) == ["carol"]
    lock(served, f"{folder}/e", "Depth: infinity", who="carol")
    remove(host, f"{folder}/e/a.img", ADMIN)
    assert held(served, f"{folder}/e") == ["carol"], "the lock is on the folder"
    host.remove_folder(host.place(f"{folder}/e"), ADMIN)
    assert held(served, f"{folder}/e") == []


def test_with_what_the_trash_gives_back(served: Served, host: Vfs, folder: str) -> None:
    """A scrub, and a restore, concern names in the trash only."""
    path = f"{folder}/a.img"
    served.add(path)
    remove(host, path, ADMIN)
    served.add(path)
    lock(served, path, who="carol")
    list(scrub.scrub(host.catalog))
    assert held(served, path) == ["carol"]


def test_not_by_the_holders_own_writing(served: Served, folder: str) -> None:
    """davfs2 locks, replaces, and unlocks in the end."""
    path = f"{folder}/a.img"
    token = lock(served, path)
    condition = f"If: (<{token}>)"
    for body in (b"one", b"two"):
        answer = served.ask(f"PUT {path}", basic("alice"), condition, body=body)
        assert answer.status in (201, 204)
    assert held(served, path) == ["alice"]
    assert served.ask(f"UNLOCK {path}", basic("alice"), f"Lock-Token: <{token}>").status == 204


# -- what is told ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/xml; charset=utf-8"),
        ("*/*", "application/xml; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("application/json", "application/json"),
        ("text/plain", "text/plain; charset=utf-8"),
    ],
)
def test_a_423_says_who_and_until_when(
    served: Served, folder: str, accept: str | None, kind: str
) -> None:
    """In the form that the client reads; XML has the condition as well (RFC 4918 §16)."""
    path = f"{folder}/a.img"
    served.add(path)
    lock(served, path, who="carol")
    (expires_at,) = (each.expires_at for each in locks.at(served.vfs.catalog, path))
    said = f"is locked by carol until {expires_at:%Y-%m-%d %H:%M:%S} UTC"
    headers = () if accept is None else (f"Accept: {accept}",)
    answer = served.ask(f"PUT {path}", *headers, body=b"data")
    assert answer.status == 423
    assert answer.headers["content-type"] == kind
    assert said in answer.body.decode()
    if "xml" in kind:
        assert xml(answer).find("{DAV:}lock-token-submitted/{DAV:}href") is not None
    if "json" in kind:
        assert said in json.loads(answer.body)["error"]["message"]


def test_what_may_not_be_seen_is_not_told(served: Served, folder: str) -> None:
    """A lock on a private image in a folder names neither it nor its holder."""
    make_folder(served.vfs, f"{folder}/d", ADMIN)
    served.add(f"{folder}/d/a.img")
    set_fields(served.vfs, f"{folder}/d/a.img", ADMIN, visibility="private", owner="carol")
    lock(served, f"{folder}/d/a.img", who="carol")
    answer = served.ask(f"LOCK {folder}/d", basic("bob"), "Depth: infinity", body=LOCKINFO)
    assert answer.status in (403, 423)
    assert b"carol until" not in answer.body


def test_a_lock_that_one_may_not_take(served: Served, folder: str) -> None:
    """As for every other change: whose it is."""
    path = f"{folder}/a.img"
    put(served.vfs, path, b"data", ADMIN)
    refused = served.ask(f"LOCK {path}", basic("bob"), body=LOCKINFO)
    assert refused.status == 403
    assert b"a.img: belongs to root" in refused.body


def test_the_page_tells_of_locks(served: Served, folder: str) -> None:
    """As HTML and as JSON, also of one on a folder above."""
    path = f"{folder}/a.img"
    served.add(path)
    token = lock(served, path, who="carol")
    found = served.ask(f"GET {path}?page", basic("bob"), "Accept: application/json")
    (told,) = json.loads(found.body)["locks"]
    assert (told["holder"], told["path"], told["token"]) == ("carol", path, token)
    for who, may_end in (("bob", False), ("carol", True)):
        page = served.ask(f"GET {path}?page", basic(who), "Accept: text/html").body.decode()
        assert "carol</bdi> until" in page
        assert (f'data-token="{token}"' in page) is may_end


# -- what is left ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ((), LOCKINFO, 423),
        (("Depth: 1",), LOCKINFO, 400),
        ((), LOCKINFO.replace(b"<owner>ex", b"<owner>" + b"x" * 9000), 400),
        ((), LOCKINFO.replace(b"lockscope", b"nothing"), 400),
    ],
)
def test_a_refused_lock_leaves_nothing(
    served: Served, folder: str, headers: tuple[str, ...], body: bytes, status: int
) -> None:
    """No queued image that nobody has asked for, neither there nor in the trash."""
    make_folder(served.vfs, f"{folder}/d", ADMIN)
    if status == 423:
        lock(served, f"{folder}/d", "Depth: infinity", who="carol")
    trash = names_in(served.vfs, "/file/.trash")
    refused = served.ask(f"LOCK {folder}/d/new.img", basic("alice"), *headers, body=body)
    assert refused.status == status, refused
    assert names_in(served.vfs, f"{folder}/d") == set()
    assert names_in(served.vfs, "/file/.trash") == trash


def test_a_lock_on_a_free_name_makes_a_queued_image(served: Served, folder: str) -> None:
    """As RFC 4918 §7.3 has it; davfs2 writes into that.  UNLOCK leaves it."""
    path = f"{folder}/new.img"
    token = lock(served, path)
    assert served.image(path).status == "queued"
    assert served.ask(f"UNLOCK {path}", basic("alice"), f"Lock-Token: <{token}>").status == 204
    assert served.image(path).status == "queued"
