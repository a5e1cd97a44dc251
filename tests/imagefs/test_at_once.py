"""The mount's loop answers from memory what it can answer without waiting."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pyfuse3
import pytest
import trio

from catalog.model.access import ADMIN, Principal
from catalog.model.activity import ChangeKind, Told
from catalog.tree.vfs import Vfs
from imagefs import inodes
from imagefs.at_once import AtOnce
from imagefs.operations import Operations
from imagefs.processes.accounts import ACCOUNTS
from imagefs.threads import Arguments, Result, Threads
from imagefs.tree import Tree
from tests.kit.catalog import begin, folder_at, link, make_folder, put, rename, set_fields


class CountedThreads(Threads):
    """Notes what goes to a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.work: list[str] = []

    async def _run(
        self,
        kind: str,
        stores: str,
        work: Callable[[*Arguments], Result],
        *arguments: *Arguments,
    ) -> Result:
        self.work.append(work.__name__)
        return await super()._run(kind, stores, work, *arguments)


@pytest.fixture
def threads() -> CountedThreads:
    """The threads of `operations`."""
    return CountedThreads()


@pytest.fixture
def operations(vfs: Vfs, threads: CountedThreads) -> Operations:
    """The handlers of a mount whose feed was just read."""
    vfs.known.fresh()
    return Operations(vfs, threads)


def _context(uid: int = 0) -> pyfuse3.RequestContext:
    return cast(pyfuse3.RequestContext, SimpleNamespace(uid=uid, pid=1, gid=0, umask=0))


def _lookup(operations: Operations, parent: int, name: str) -> pyfuse3.EntryAttributes:
    found: pyfuse3.EntryAttributes = trio.run(
        operations.lookup,
        pyfuse3.InodeT(parent),
        pyfuse3.FileNameT(name.encode()),
        _context(),
    )
    return found


def _same(one: pyfuse3.EntryAttributes, other: pyfuse3.EntryAttributes) -> bool:
    names = [name for name in dir(one) if name.startswith("st_") or name.endswith("_timeout")]
    return [getattr(one, name) for name in names] == [getattr(other, name) for name in names]


def test_a_second_lookup_needs_no_thread(
    vfs: Vfs, operations: Operations, threads: CountedThreads
) -> None:
    """Neither do attributes, of images and of folders; and they are the same."""
    put(vfs, "/file/f.img")
    make_folder(vfs, "/file/f")
    file = inodes.of_folder(folder_at(vfs, "/file").number)
    for name in ("f.img", "f"):
        first = _lookup(operations, file, name)
        assert threads.work == ["lookup"]
        again = _lookup(operations, file, name)
        attributes = trio.run(operations.getattr, first.st_ino, _context())
        assert threads.work == ["lookup"]
        assert _same(first, again)
        assert _same(first, attributes)
        threads.work.clear()


def test_a_second_listing_needs_no_thread(
    vfs: Vfs, operations: Operations, threads: CountedThreads
) -> None:
    """Until something in it changes."""
    make_folder(vfs, "/file/f")
    put(vfs, "/file/f/a")
    folder = inodes.of_folder(folder_at(vfs, "/file/f").number)

    def names() -> list[str]:
        return trio.run(_names_in, operations, folder)

    assert names() == ["a"]
    count = threads.work.count("page")
    assert names() == ["a"]
    assert threads.work.count("page") == count
    put(vfs, "/file/f/b")
    assert names() == ["a", "b"]
    assert threads.work.count("page") > count


async def _names_in(operations: Operations, inode: int) -> list[str]:
    listings = operations._listings
    number = listings.open(inode)
    found = [name.decode() async for _cookie, name, _found in listings.members(number, 0)]
    listings.close(number)
    return found


def test_what_this_mount_changes_is_seen_at_once(
    vfs: Vfs, operations: Operations, threads: CountedThreads
) -> None:
    """The next lookup asks the database."""
    put(vfs, "/file/a")
    file = inodes.of_folder(folder_at(vfs, "/file").number)
    number = _lookup(operations, file, "a").st_ino
    rename(vfs, "/file/a", "/file/b")
    with pytest.raises(pyfuse3.FUSEError):
        _lookup(operations, file, "a")
    set_fields(vfs, "/file/b", visibility="private")
    assert _lookup(operations, file, "b").st_mode & 0o777 == 0o400
    assert trio.run(operations.getattr, number, _context()).st_mode & 0o777 == 0o400


def test_an_upload_of_this_mount(vfs: Vfs, operations: Operations) -> None:
    """Its size is asked of the staging file, in a thread."""
    upload = begin(vfs, "/file/a", b"1234")
    file = inodes.of_folder(folder_at(vfs, "/file").number)
    for size in (4, 8):
        assert _lookup(operations, file, "a").st_size == size
        upload.write(size, b"5678")
    upload.cancel("a test")


def test_an_owner_whose_number_is_not_known(
    vfs: Vfs, operations: Operations, threads: CountedThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's user database may be on a server."""
    put(vfs, "/file/a")
    file = inodes.of_folder(folder_at(vfs, "/file").number)
    _lookup(operations, file, "a")
    monkeypatch.setattr(ACCOUNTS, "_answers", {})
    threads.work.clear()
    _lookup(operations, file, "a")
    assert threads.work == ["lookup"]


def test_who_opens_an_image_and_where_it_is(vfs: Vfs) -> None:
    """Known for root and for users that were looked up; not for an image with two names."""
    tree = Tree(vfs)
    at_once = AtOnce(tree)
    vfs.known.fresh()
    number = put(vfs, "/file/a").number
    assert at_once.who_and_where(0, number) is None
    vfs.image(number)
    assert at_once.who_and_where(0, number) == (ADMIN, "file")
    uid = 54321
    assert at_once.who_and_where(uid, number) is None
    principal = tree.principal(uid)
    assert principal == Principal("54321")
    assert at_once.who_and_where(uid, number) == (principal, "file")
    link(vfs, "/file/a", "/other/a")
    vfs.image(number)
    assert at_once.who_and_where(0, number) is None


def test_what_changes_while_it_is_looked_up_is_not_kept(
    operations: Operations, vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel was told of the change before it has the answer, and is not told again."""
    image = put(vfs, "/file/a")
    folder = folder_at(vfs, "/file")
    tree = operations._tree
    usual = tree.lookup

    def and_then_it_changes(parent: int, name: bytes) -> pyfuse3.EntryAttributes:
        found = usual(parent, name)
        vfs.known.drop([Told(ChangeKind.ENTRY, folder.number, "a", image.number)])
        return found

    monkeypatch.setattr(tree, "lookup", and_then_it_changes)
    found = _lookup(operations, inodes.of_folder(folder.number), "a")
    assert (found.entry_timeout, found.attr_timeout) == (0, 0)
    monkeypatch.setattr(tree, "lookup", usual)
    assert _lookup(operations, inodes.of_folder(folder.number), "a").entry_timeout > 0
