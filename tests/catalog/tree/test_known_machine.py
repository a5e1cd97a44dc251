"""Random changes by two processes: nothing stale is answered from memory."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from catalog.errors import CatalogError
from catalog.model.tree import Entry, Folder
from catalog.service.bootstrap import open_catalog
from catalog.tree.vfs import Vfs
from tests.kit.catalog import (
    ALICE,
    image_at,
    link,
    make_folder,
    new_catalog,
    put,
    remove,
    rename,
    set_fields,
    settings_at,
)

FOLDERS = ("/file", "/other", "/file/f", "/file/.trash")
NAMES = ("a", "\u00e9", "e\u0301", "f")
folders = st.sampled_from(FOLDERS)
paths = st.builds("{}/{}".format, folders, st.sampled_from(NAMES))
processes = st.sampled_from([0, 1])
fields = st.sampled_from(
    [
        {"visibility": "private"},
        {"visibility": "public"},
        {"status": "deactivated"},
        {"status": "active"},
        {"min_disk": "7"},
    ]
)


_LAG = 3
"""Steps after which the feed is read."""


class KnownMachine(RuleBasedStateMachine):
    """The first process remembers, both change; a change may be refused as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="imagefs-"))
        made = settings_at(self.folder)
        self.each = [Vfs(new_catalog(made)), Vfs(open_catalog(made))]
        for path in ("/file/a", "/file/\u00e9", "/other/b"):
            put(self.each[1], path)
        self.known = self.each[0].known
        self.known.fresh()
        self.seen = 0
        self.behind = 0
        """Steps since the other process may have changed something that was not yet read."""

    def teardown(self) -> None:
        """Nothing stays open."""
        for vfs in self.each:
            vfs.close()
        shutil.rmtree(self.folder)

    def _by(self, process: int) -> Vfs:
        self.behind = self.behind or process
        return self.each[process]

    @rule(process=processes, path=paths)
    def add(self, process: int, path: str) -> None:
        """A new image."""
        with suppress(CatalogError):
            put(self._by(process), path)

    @rule(process=processes, path=paths)
    def make_folder(self, process: int, path: str) -> None:
        """A new folder."""
        with suppress(CatalogError):
            make_folder(self._by(process), path)

    @rule(process=processes, source=paths, into=paths)
    def rename(self, process: int, source: str, into: str) -> None:
        """Rename, replace, restore, move to another store: images and folders."""
        with suppress(CatalogError):
            rename(self._by(process), source, into)

    @rule(process=processes, path=paths)
    def remove(self, process: int, path: str) -> None:
        """To the trash, from a trash for ever."""
        with suppress(CatalogError):
            remove(self._by(process), path)

    @rule(process=processes, path=paths)
    def remove_folder(self, process: int, path: str) -> None:
        """If it is empty."""
        vfs = self._by(process)
        with suppress(CatalogError):
            vfs.remove_folder(vfs.place(path), ALICE)

    @rule(process=processes, path=paths, values=fields)
    def set(self, process: int, path: str, values: dict[str, str]) -> None:
        """Fields and status."""
        with suppress(CatalogError, AssertionError):
            set_fields(self._by(process), path, **values)

    @rule(process=processes, source=paths, into=paths)
    def link(self, process: int, source: str, into: str) -> None:
        """A second name, in another store."""
        with suppress(CatalogError, AssertionError):
            link(self._by(process), source, into)

    @rule(path=paths)
    def look(self, path: str) -> None:
        """A lookup by name, which is remembered."""
        with suppress(CatalogError):
            place = self.each[0].place(path)
            self.each[0].lookup(place.folder, place.name)

    @rule(path=paths)
    def look_at_the_image(self, path: str) -> None:
        """A lookup by number."""
        with suppress(CatalogError, AssertionError):
            self.each[0].image(image_at(self.each[0], path).number)

    @rule(path=folders)
    def look_at_the_folder(self, path: str) -> None:
        """As the kernel asks for the attributes of a folder."""
        with suppress(CatalogError, AssertionError):
            node = self.each[0].resolve(path)
            assert isinstance(node, Folder)
            self.each[0].folder(node.number)

    @rule(path=folders)
    def list(self, path: str) -> None:
        """A page of a listing, which is remembered."""
        with suppress(CatalogError, AssertionError):
            node = self.each[0].resolve(path)
            assert isinstance(node, Folder)
            self.each[0].page(node.number, limit=3)

    def follow(self) -> None:
        """Read the feed to its end."""
        changes = self.each[0].catalog.changes(self.seen, 10_000)
        self.known.drop(changes)
        self.known.fresh()
        self.seen = changes[-1].number if changes else self.seen
        self.behind = 0

    @invariant()
    def nothing_is_stale(self) -> None:
        """But for what the other process has changed since the feed was read."""
        if 0 < self.behind < _LAG:
            self.behind += 1
            return
        if self.behind:
            self.follow()
        # A Vfs of its own, which remembers nothing.
        now = Vfs(self.each[1].catalog)
        for key, kept in self.known._kept.items():
            assert isinstance(key, tuple)
            match key:
                case "name", int(folder), str(name):
                    assert _facts(now.lookup(folder, name)) == _facts(kept.node)
                case "image", int(number):
                    assert _facts(now.image(number)) == _facts(kept.node)
                case "folder", int(number):
                    assert now.folder(number) == kept.node
                case _:
                    raise AssertionError(key)
        for (folder, after, limit), it in self.known._pages.items():
            assert now.page(folder, after=after, limit=limit) == it.page


def _facts(node: object) -> object:
    """What is compared: the location's own state is no part of what is answered."""
    if not isinstance(node, Entry):
        return node
    return node.image, node.links, node.folder, node.name, node.store


TestKnownMachine = pytest.mark.timeout(900)(KnownMachine.TestCase)  # time to shrink a failure
TestKnownMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
