"""Random steps on the tree, each compared with a plain model of what it should do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import text

from catalog.copies.recovery import recover
from catalog.errors import CatalogError
from catalog.model.names import is_temporary
from catalog.model.tree import Entry, Folder
from catalog.rules import entries
from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import fsck
from catalog.uploads.upload import Upload
from tests.kit.catalog import (
    ALICE,
    image_at,
    link,
    make_folder,
    new_catalog,
    read_image,
    remove,
    rename,
    set_fields,
    settings_at,
    staged_files,
)

STORES = ("file", "other")
HAS_DATA = ("active", "deactivated")
# In memory if there is such a disk: what is tested is not the disk.
DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

DAMAGED = """
    SELECT images.id FROM images WHERE status IN ('active', 'deactivated') AND NOT EXISTS (
        SELECT 1 FROM locations WHERE image = images.number AND state = 'active'
            AND url IS NOT NULL AND folder IS NOT NULL)
    UNION SELECT images.id FROM images JOIN locations ON locations.image = images.number
        WHERE status = 'deleted'
    UNION SELECT images.id FROM images WHERE status = 'saving' AND NOT EXISTS (
        SELECT 1 FROM uploads WHERE image = images.number)
    UNION SELECT images.id FROM images JOIN uploads ON uploads.image = images.number
        WHERE status <> 'saving'
"""
"""Images whose rows contradict each other, at a moment when nothing goes on."""


@dataclass(eq=False)
class Model:
    """An image as it should be; all its links share one."""

    number: int
    status: str = "queued"
    data: bytes = b""
    upload: Upload | None = None
    finished: bool = False
    before_delete: str = ""


folders = st.sampled_from([f"/{store}/{name}" for store in STORES for name in ("f", "g")])
paths = st.builds(
    "{}/{}".format,
    st.one_of(st.sampled_from(["/file", "/other"]), folders),
    st.sampled_from(["a", "b", ".a.Xy12", "a.part"]),
)
# Not `binary`: that draws what our source has of bytes, and the magic of a format is refused.
contents = st.lists(st.integers(0, 255), max_size=64).map(bytes)
offsets = st.integers(0, 80)


def above(path: str) -> str:
    """The folder of a path."""
    return path.rpartition("/")[0]


def name_of(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def store_of(path: str) -> str:
    """The first part of a path."""
    return path.split("/")[1]


class VfsMachine(RuleBasedStateMachine):
    """Every rule takes a step on the VFS, which must do or refuse what the model does."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="imagefs-", dir=DISK))
        self.catalog = new_catalog(settings_at(self.folder))
        self.vfs = Vfs(self.catalog)
        self.tree: dict[str, Model | None] = {}
        """Path -> image, or None for a folder."""
        for store in (*STORES, "memory"):
            self.tree[f"/{store}"] = None

    def teardown(self) -> None:
        """When all uploads have ended, nothing is staged and fsck finds nothing."""
        try:
            self.kill_and_recover()
            assert staged_files(self.folder) == []
            assert list(fsck(self.catalog, repair=False)) == []
        finally:
            self.vfs.close()
            shutil.rmtree(self.folder)

    # -- the model ---------------------------------------------------------------------

    def image(self, path: str, *statuses: str) -> Model | None:
        """The image at `path`, if it is in one of these statuses (any if none is named)."""
        image = self.tree.get(path)
        return image if image is not None and (not statuses or image.status in statuses) else None

    def links(self, image: Model) -> list[str]:
        """All paths of an image."""
        return [path for path, found in self.tree.items() if found is image]

    def trashed(self) -> list[str]:
        """What is in any trash."""
        return sorted(path for path in self.tree if name_of(above(path)) == ".trash")

    def has_folder(self, path: str) -> bool:
        """Whether the folder above `path` is there."""
        return above(path) in self.tree

    def can_give_way(self, path: str) -> bool:
        """Whether `path` is free, or what is there may be removed."""
        image = self.image(path)
        return image is None or image.status != "saving"

    def give_way(self, path: str) -> None:
        """What becomes of the image at `path` when the name is removed."""
        image = self.tree[path]
        assert image is not None
        if len(self.links(image)) > 1:
            del self.tree[path]
        else:
            self.to_trash(path)

    def to_trash(self, path: str) -> None:
        """What becomes of the image at `path` when it is deleted."""
        image = self.tree.pop(path)
        assert image is not None
        if is_temporary(name_of(path)) and image.status not in HAS_DATA:
            return
        target = f"/{store_of(path)}/.trash/{name_of(path)}"
        older = self.tree.pop(target, None)
        if older is not None:
            # The newest deletion of a name owns it.
            self.tree[f"{target}.{self.catalog.image(older.number).id}"] = older
        image.before_delete, image.status = image.status, "pending_delete"
        self.tree[target] = image

    def move(self, source: str, target: str) -> None:
        """What a rename within a store does to the names."""
        if source == target:
            return
        moved = self.tree.pop(source)
        if target in self.tree:
            self.give_way(target)
        self.tree[target] = moved

    def step(self, allowed: object, action: Callable[[], object]) -> bool:
        """Take a step: it must be done if it is allowed, and refused if it is not."""
        refusal = None
        try:
            action()
        except CatalogError as error:
            refusal = error
        assert bool(allowed) == (refusal is None), refusal or "should have been refused"
        return refusal is None

    # -- folders -----------------------------------------------------------------------

    @rule(path=folders)
    def mkdir(self, path: str) -> None:
        """Make a folder."""
        if self.step(path not in self.tree, lambda: make_folder(self.vfs, path)):
            self.tree[path] = None

    @rule(path=folders)
    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        empty = path in self.tree and not any(above(each) == path for each in self.tree)
        if self.step(empty, lambda: self.vfs.remove_folder(self.vfs.place(path), ALICE)):
            del self.tree[path]

    @rule(source=folders, to=folders)
    def move_folder(self, source: str, to: str) -> None:
        """Rename a folder, with all that is in it."""
        allowed = source in self.tree and store_of(source) == store_of(to)
        if source != to:
            allowed = allowed and not any(above(each) == to for each in self.tree)
        if self.step(allowed, lambda: rename(self.vfs, source, to)) and source != to:
            self.tree.pop(to, None)
            for path in [p for p in self.tree if p == source or above(p) == source]:
                self.tree[to + path.removeprefix(source)] = self.tree.pop(path)

    # -- data --------------------------------------------------------------------------

    @rule(path=paths)
    def create(self, path: str) -> None:
        """Make a queued image."""
        allowed = self.has_folder(path) and path not in self.tree
        if self.step(allowed, lambda: self.vfs.create(self.vfs.place(path), ALICE)):
            self.tree[path] = Model(image_at(self.vfs, path).number)

    @rule(path=paths, data=contents)
    def put(self, path: str, data: bytes) -> None:
        """All of an upload at once, as most are."""
        if self.has_folder(path) and path not in self.tree:
            self.create(path)
            self.write(path, 0, data)
            self.close_file(path)

    @rule(path=paths, offset=offsets, data=contents)
    def write(self, path: str, offset: int, data: bytes) -> None:
        """Begin or go on with an upload."""
        image = self.image(path, "queued", "saving")
        if image is None:
            return
        image.upload = image.upload or self.vfs.uploads.start(image.number)
        image.upload.write(offset, data)
        if data:
            rest = image.data[offset + len(data) :]
            image.data = image.data.ljust(offset, b"\0")[:offset] + data + rest
        image.status, image.finished = "saving", False

    @rule(path=paths, size=offsets)
    def truncate(self, path: str, size: int) -> None:
        """Cut or grow what is being uploaded."""
        image = self.image(path, "saving")
        if image is not None and image.upload is not None:
            image.upload.truncate(size)
            image.data, image.finished = image.data[:size].ljust(size, b"\0"), False

    @rule(path=paths)
    def close_file(self, path: str) -> None:
        """Commit, or only finish under a temporary name."""
        image = self.image(path, "saving")
        if image is None or image.upload is None:
            return
        if is_temporary(name_of(path)):
            image.upload.finish()
            image.finished = True
        else:
            image.upload.commit()
            image.status, image.upload = "active", None

    @rule(path=paths)
    def cancel(self, path: str) -> None:
        """Give an upload up."""
        image = self.image(path, "saving")
        if image is not None and image.upload is not None:
            image.upload.cancel("cancelled")
            image.status, image.data, image.upload = "killed", b"", None

    @rule(path=paths)
    def reopen(self, path: str) -> None:
        """Write again what was just committed."""
        image = self.image(path)
        if image is None:
            return
        # One that goes on is handed out as it is.
        goes_on = image.status == "saving"
        allowed = goes_on or (image.status == "active" and len(self.links(image)) == 1)
        number = image.number
        if self.step(allowed, lambda: self.vfs.uploads.reopen(number)) and not goes_on:
            image.status, image.upload = "saving", self.vfs.uploads.get(image.number)
            image.finished = False

    @rule(path=paths)
    def renew(self, path: str) -> None:
        """Take the name of a killed image anew."""
        if self.image(path, "killed"):
            entry = entries.renew(self.catalog, self.vfs.place(path), ALICE)
            self.to_trash(path)
            self.tree[path] = Model(entry.image.number)

    # -- names -------------------------------------------------------------------------

    @rule(source=paths, to=paths)
    def rename(self, source: str, to: str) -> None:
        """Rename, replace, publish, or move to the other store."""
        image = self.image(source)
        allowed = image is not None and self.has_folder(to)
        allowed = allowed and (source == to or self.can_give_way(to))
        if image is not None and image.status in HAS_DATA:
            allowed = allowed and not is_temporary(name_of(to))
        across = store_of(source) != store_of(to)
        if image is not None and across:
            here = {store_of(path) for path in self.links(image)}
            allowed = allowed and image.status in HAS_DATA and store_of(to) not in here
        if self.step(allowed, lambda: rename(self.vfs, source, to)):
            assert image is not None
            self.move(source, to)
            if image.finished and image.status == "saving" and not is_temporary(name_of(to)):
                image.status, image.upload = "active", None

    @rule(source=paths, to=paths)
    def link(self, source: str, to: str) -> None:
        """Copy to the other store."""
        image = self.image(source)
        if image is None:
            return
        allowed = (
            image.status in HAS_DATA
            and store_of(to) not in {store_of(path) for path in self.links(image)}
            and self.has_folder(to)
            and to not in self.tree
            and not is_temporary(name_of(to))
        )
        if self.step(allowed, lambda: link(self.vfs, source, to)):
            self.tree[to] = image

    @rule(path=paths)
    def remove(self, path: str) -> None:
        """Delete, or drop one of two copies, or cancel an upload."""
        image = self.image(path)
        if self.step(image is not None, lambda: remove(self.vfs, path)):
            assert image is not None
            if image.status == "saving":
                image.status, image.data, image.upload = "killed", b"", None
            self.give_way(path)

    @rule(data=st.data(), to=paths)
    def restore(self, data: st.DataObject, to: str) -> None:
        """Take something out of the trash."""
        if not self.trashed():
            return
        source = data.draw(st.sampled_from(self.trashed()))
        image = self.image(source)
        assert image is not None
        allowed = (
            store_of(source) == store_of(to)
            and self.has_folder(to)
            and self.can_give_way(to)
            and not (image.before_delete in HAS_DATA and is_temporary(name_of(to)))
        )
        if self.step(allowed, lambda: rename(self.vfs, source, to)):
            self.move(source, to)
            image.status, image.before_delete = image.before_delete, ""

    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        """Delete for good."""
        if self.trashed():
            path = data.draw(st.sampled_from(self.trashed()))
            self.step(True, lambda: remove(self.vfs, path))
            del self.tree[path]

    @rule(path=paths, status=st.sampled_from(HAS_DATA))
    def set_status(self, path: str, status: str) -> None:
        """Deactivate or reactivate."""
        image = self.image(path, *HAS_DATA)
        if image is not None:
            set_fields(self.vfs, path, status=status)
            image.status = status

    @rule()
    def kill_and_recover(self) -> None:
        """As if this process had been killed, and its successor cleaned up."""
        with self.catalog.write() as repository:
            repository.connection.execute(text("UPDATE uploads SET started = started + 1"))
        recover(self.catalog)
        self.vfs = Vfs(self.catalog)
        for image in self.tree.values():
            if image is not None and image.status == "saving":
                image.status, image.data, image.upload = "killed", b"", None

    # -- what always holds -------------------------------------------------------------

    @invariant()
    def the_tree_is_the_model_s(self) -> None:
        """Every path and status; nothing more, nothing less."""
        found = self.walk("/")
        for store in (*STORES, "memory"):
            found |= self.walk(f"/{store}/.trash")  # found by its name, and never listed
        assert found == {
            path: None if image is None else (image.number, image.status)
            for path, image in self.tree.items()
        }

    def walk(self, path: str) -> dict[str, tuple[int, str] | None]:
        """What the VFS lists in and below a folder, without /.by-id."""
        folder = self.vfs.resolve(path)
        assert isinstance(folder, Folder)
        found: dict[str, tuple[int, str] | None] = {}
        for node in self.vfs.members(folder.number):
            inside = f"{path.rstrip('/')}/{node.name}"
            if isinstance(node, Entry):
                found[inside] = (node.image.number, node.image.status)
            elif node != self.vfs.by_id:
                found[inside] = None
                found |= self.walk(inside)
        return found

    @invariant()
    def every_byte_is_there(self) -> None:
        """Data is what was written, in every status that has any."""
        for image in {id(each): each for each in self.tree.values() if each}.values():
            if (image.before_delete or image.status) in HAS_DATA:
                assert read_image(self.vfs, image.number) == image.data
                assert self.catalog.image(image.number).size == len(image.data)
            elif image.upload is not None:
                assert image.upload.read_at(0, 1000) == image.data

    @invariant()
    def the_rows_agree(self) -> None:
        """No row contradicts another, and every copy's data has its image's size."""
        with self.catalog.read() as repository:
            assert repository.connection.execute(text(DAMAGED)).all() == []
            assert not repository.miscounted()
            for store in STORES:
                for location in repository.locations_in_store(store):
                    if location.state == "active" and location.url is not None:
                        size = repository.image(location.image).size
                        assert self.catalog.store(store).stat(location.url).size == size


TestVfsMachine = pytest.mark.timeout(900)(VfsMachine.TestCase)  # time to shrink a failure
TestVfsMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
