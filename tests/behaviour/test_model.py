"""Any sequence of steps on the names gives what a plain model says, on every frontend."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.behaviour.trees import Refused, Tree, new_folders

pytestmark = pytest.mark.stress

STORES = st.sampled_from(["file", "other"])
FOLDERS = st.sampled_from(["", "d/", "e/"])
PATHS = st.tuples(STORES, FOLDERS, st.sampled_from(["a", "b", "c"]))
DATA = st.binary(min_size=1, max_size=200)

Path = tuple[str, str, str]
"""Store, folder with its '/', name."""


@dataclass(eq=False)
class Model:
    """An image as the model has it."""

    id: str
    data: bytes
    protected: bool = False
    places: dict[str, Path] = field(default_factory=dict)
    """By store; none when it is in the trash."""
    trash: str = ""
    """The store whose trash it is in."""


class Names(RuleBasedStateMachine):
    """Steps on the names of two folders, one in each store."""

    tree: Tree

    @initialize()
    def begin(self) -> None:
        """Two new folders, in a catalog that others use as well."""
        self.top = new_folders(self.tree)
        self.folders = {("file", ""), ("other", "")}
        self.images: dict[Path, Model] = {}
        self.trash: list[Model] = []

    # -- what should happen --------------------------------------------------------------

    def _text(self, path: Path) -> str:
        store, folder, name = path
        return f"/{store}/{self.top}/{folder}{name}"

    def _has_folder(self, path: Path) -> bool:
        return path[:2] in self.folders

    def _refusal_to_give_way(self, path: Path) -> int:
        present = self.images.get(path)
        return errno.EPERM if present is not None and present.protected else 0

    def _delete(self, path: Path) -> None:
        image = self.images.pop(path)
        del image.places[path[0]]
        if not image.places:
            image.trash = path[0]
            self.trash.append(image)

    def _place(self, image: Model, path: Path) -> None:
        if path in self.images:
            self._delete(path)
        self.images[path] = image
        image.places[path[0]] = path

    def _expect(self, expected: int, step: Any, *arguments: Any) -> bool:
        """Do a step that must be refused with that errno, or succeed for 0."""
        found = 0
        try:
            step(*arguments)
        except Refused as refused:
            found = refused.errno
        assert errno.errorcode.get(found) == errno.errorcode.get(expected)
        return found == 0

    # -- steps ---------------------------------------------------------------------------

    @rule(path=PATHS, data=DATA)
    def put(self, path: Path, data: bytes) -> None:
        """A new image."""
        expected = 0 if self._has_folder(path) else errno.ENOENT
        if path in self.images:
            expected = errno.EEXIST
        if self._expect(expected, self.tree.put, self._text(path), data):
            self._place(Model(self.tree.get(self._text(path), "image.id"), data), path)

    @rule(path=PATHS)
    def remove(self, path: Path) -> None:
        """Delete a copy, or the image."""
        image = self.images.get(path)
        expected = 0 if image is not None else errno.ENOENT
        if image is not None and image.protected and len(image.places) == 1:
            expected = errno.EPERM
        if self._expect(expected, self.tree.remove, self._text(path)):
            self._delete(path)

    @rule(source=PATHS, to=PATHS)
    def rename(self, source: Path, to: Path) -> None:
        """Within a store, or to the other."""
        image, there = self.images.get(source), self.images.get(to)
        if image is not None and source != to and image is there:
            return  # two names of one inode: the kernel does nothing, as POSIX says
        expected = 0
        if image is None or not self._has_folder(to):
            expected = errno.ENOENT
        elif source[0] != to[0] and to[0] in image.places:
            expected = errno.EBUSY
        elif source != to:
            expected = self._refusal_to_give_way(to)
        if self._expect(expected, self.tree.rename, self._text(source), self._text(to)):
            assert image is not None
            if source != to:
                del self.images[source]
                del image.places[source[0]]
                self._place(image, to)

    @rule(source=PATHS, to=PATHS)
    def link(self, source: Path, to: Path) -> None:
        """A copy in the other store."""
        image = self.images.get(source)
        expected = 0
        if image is None or not self._has_folder(to):
            expected = errno.ENOENT
        elif to in self.images:
            if to[0] in image.places:
                return  # EEXIST of the kernel, EPERM of the catalog: both are true
            expected = errno.EEXIST
        elif to[0] in image.places:
            expected = errno.EPERM
        if self._expect(expected, self.tree.link, self._text(source), self._text(to)):
            assert image is not None
            self._place(image, to)

    @rule(path=PATHS, protected=st.booleans())
    def protect(self, path: Path, protected: bool) -> None:
        """Or no longer."""
        image = self.images.get(path)
        expected = 0 if image is not None else errno.ENOENT
        value = str(protected).lower()
        if self._expect(expected, self.tree.set, self._text(path), "image.protected", value):
            assert image is not None
            image.protected = protected

    @precondition(lambda self: self.trash)
    @rule(choice=st.data(), folder=FOLDERS, name=st.sampled_from(["a", "b", "c"]))
    def restore(self, choice: st.DataObject, folder: str, name: str) -> None:
        """Out of the trash, to any name in its store."""
        image = choice.draw(st.sampled_from(self.trash))
        to = (image.trash, folder, name)
        expected = self._refusal_to_give_way(to) if self._has_folder(to) else errno.ENOENT
        source = self.tree.path_of(image.id)
        if self._expect(expected, self.tree.rename, source, self._text(to)):
            self.trash.remove(image)
            self._place(image, to)

    @precondition(lambda self: self.trash)
    @rule(choice=st.data())
    def purge(self, choice: st.DataObject) -> None:
        """Deleted for good."""
        image = choice.draw(st.sampled_from(self.trash))
        self.tree.remove(self.tree.path_of(image.id))
        self.trash.remove(image)
        self._expect(errno.ENOENT, self.tree.path_of, image.id)

    @rule(store=STORES, folder=st.sampled_from(["d/", "e/"]))
    def make_folder(self, store: str, folder: str) -> None:
        """One level."""
        expected = errno.EEXIST if (store, folder) in self.folders else 0
        if self._expect(expected, self.tree.make_folder, self._text((store, "", folder[:-1]))):
            self.folders.add((store, folder))

    @rule(store=STORES, folder=st.sampled_from(["d/", "e/"]))
    def remove_folder(self, store: str, folder: str) -> None:
        """Only an empty one."""
        expected = 0
        if (store, folder) not in self.folders:
            expected = errno.ENOENT
        elif self._members(store, folder):
            expected = errno.ENOTEMPTY
        if self._expect(expected, self.tree.remove_folder, self._text((store, "", folder[:-1]))):
            self.folders.remove((store, folder))

    @rule(store=STORES, source=st.sampled_from(["d/", "e/"]), to=st.sampled_from(["d/", "e/"]))
    def rename_folder(self, store: str, source: str, to: str) -> None:
        """With all that is in it; onto an empty one."""
        expected = 0
        if (store, source) not in self.folders:
            expected = errno.ENOENT
        elif source != to and self._members(store, to):
            expected = errno.ENOTEMPTY
        paths = [self._text((store, "", folder[:-1])) for folder in (source, to)]
        if self._expect(expected, self.tree.rename, *paths) and source != to:
            self.folders.remove((store, source))
            self.folders.add((store, to))
            for name in self._members(store, source):
                image = self.images.pop((store, source, name))
                self._place(image, (store, to, name))

    # -- what must hold ------------------------------------------------------------------

    def _members(self, store: str, folder: str) -> list[str]:
        return [path[2] for path in self.images if path[:2] == (store, folder)]

    @invariant()
    def listings_are_the_model_s(self) -> None:
        """Every folder shows what it should."""
        for store, folder in self.folders:
            expected = set(self._members(store, folder))
            if not folder:
                expected |= {f[:-1] for s, f in self.folders if s == store and f}
            assert self.tree.names(f"/{store}/{self.top}/{folder}") == expected

    def teardown(self) -> None:
        """Every image has its data, its id and its status."""
        for path, image in self.images.items():
            self._check(self._text(path), image, "active")
            stores = ",".join(sorted(image.places))
            assert self.tree.get(self._text(path), "image.stores") == stores
        for image in self.trash:
            where = self.tree.path_of(image.id)
            assert where.startswith(f"/{image.trash}/.trash/")
            self._check(where, image, "pending_delete")

    def _check(self, path: str, image: Model, status: str) -> None:
        assert self.tree.read(path) == image.data
        assert self.tree.get(path, "image.id") == image.id
        assert self.tree.get(path, "image.status") == status


def test_any_sequence_of_steps(tree: Tree) -> None:
    """Hypothesis makes them up, and shortens the one that fails."""

    class OnThisTree(Names):
        pass

    OnThisTree.tree = tree
    run_state_machine_as_test(
        OnThisTree,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
