"""The virtual tree: names, and what they stand for (DESIGN §4, §6, §7).

Users: the frontends (`imagefs`, `dav`, the commands), which translate and delegate.
Scope: the only place that resolves a path and the only one that decides what a name
operation means; rules are in `catalog`, data in `upload`, `reader`, `replicate`.
Threading: any thread.

    /                       one folder per configured store
    /<store>/[folders/]NAME an image
    /<store>/.trash/NAME    a deleted image; .trash itself is not listed
    /.by-id/<id>            a link to the image's path
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from catalog import access, external, names
from catalog.access import Principal
from catalog.catalog import Catalog, Rename
from catalog.deletion import delete_data, purge
from catalog.duplicate import duplicate
from catalog.errors import (
    AlreadyExists,
    CatalogError,
    Conflict,
    Forbidden,
    IncompleteUpload,
    IsAFolder,
    NotAFolder,
    NotFound,
    NotSupported,
)
from catalog.image import Entry, Folder, FolderKind, Image, Place
from catalog.members import members_of
from catalog.reader import open_image
from catalog.replicate import Progress, no_progress, replicate
from catalog.repository import Repository
from catalog.repository.images import ImageFilter
from catalog.status import Status
from catalog.stores.base import Capability, DataReader, Usage
from catalog.upload import Uploads, UploadState

ROOT = 1
"""The number of the root."""
BY_ID = -1
"""The number of `/.by-id`, which no table holds."""

_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of `/.by-id`."""

    image: Image
    target: str
    """Relative to `/.by-id`."""

    @property
    def name(self) -> str:
        return self.image.id


Node = Folder | Entry | Link
"""Whatever a name can stand for."""


class Vfs:
    """The tree over one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.uploads = Uploads(catalog)
        with catalog.read() as repository:
            root = repository.root()
        if root is None:
            raise NotFound("/", "the catalog has no tree: run 'imagefs init'")
        self.root = root
        self.by_id = Folder(
            BY_ID, root.number, "", names.BY_ID, FolderKind.BY_ID, False, "root", _EPOCH, _EPOCH
        )

    # -- looking -----------------------------------------------------------------------

    def folder(self, number: int) -> Folder:
        """The folder of that number.  Raises NotFound."""
        if number == BY_ID:
            return self.by_id
        with self.catalog.read() as repository:
            return repository.folder(number)

    def lookup(self, folder: int, name: str) -> Node:
        """What `name` stands for in a folder.  Raises NotFound."""
        if folder == self.root.number and name == names.BY_ID:
            return self.by_id
        with self.catalog.read() as repository:
            return self._lookup(repository, folder, name)

    def _lookup(self, repository: Repository, folder: int, name: str) -> Node:
        if folder == BY_ID:
            link = self._link(repository, repository.image_by_id(name))
            if link is None:
                raise NotFound(name)
            return link
        entry = repository.entry_at(folder, name)
        if entry is not None:
            return entry
        found = repository.folder_at(folder, name)
        if found is None or not self._is_shown(found):
            raise NotFound(name)
        return found

    def page(self, folder: int, *, after: int = 0, limit: int = 1000) -> list[tuple[int, Node]]:
        """Up to about `limit` members behind the cookie `after`, each with its own cookie.

        A member keeps its cookie while the folder changes around it, so that a listing
        in pages neither repeats nor skips one that was there all the time.
        """
        with self.catalog.read() as repository:
            if folder == BY_ID:
                images = repository.images(_WITH_ENTRY, after=after, limit=limit)
                links = [(image.number, self._link(repository, image)) for image in images]
                return [(cookie, link) for cookie, link in links if link is not None]
            return self._members(repository, folder, after, limit)

    def _members(
        self, repository: Repository, folder: int, after: int, limit: int
    ) -> list[tuple[int, Node]]:
        members: list[tuple[int, Node]] = []
        if after < _ENTRIES:
            if folder == self.root.number and after < 1:
                members.append((1, self.by_id))
            found = repository.folders_in(folder, after=after, limit=limit)
            # The trash is found by its name alone: a tool that makes a folder like another
            # one (rsync --delete, rclone sync) must not empty it.
            members += [
                (child.number, child)
                for child in found
                if self._is_shown(child) and child.kind is not FolderKind.TRASH
            ]
            if len(found) == limit:
                # An empty page would end the listing: go on behind what is not shown.
                return members or self._members(repository, folder, found[-1].number, limit)
        first = max(after - _ENTRIES, 0)
        entries = repository.entries_in(folder, after=first, limit=limit - len(members))
        return members + [(_ENTRIES + entry.location.number, entry) for entry in entries]

    def members(self, folder: int) -> Iterator[Node]:
        """All members of a folder, fetched in pages."""
        after = 0
        while page := self.page(folder, after=after):
            yield from (node for _cookie, node in page)
            after = page[-1][0]

    def resolve(self, path: str) -> Node:
        """What an absolute path stands for.  Raises NotFound, NotAFolder."""
        node: Node = self.root
        for name in path.split("/"):
            if not name:
                continue
            if not isinstance(node, Folder):
                raise NotAFolder(path)
            try:
                node = self.lookup(node.number, name)
            except NotFound:
                raise NotFound(path) from None
        return node

    def place(self, path: str) -> Place:
        """The folder and the name of an absolute path whose last part may not exist yet."""
        above, _, name = path.rstrip("/").rpartition("/")
        folder = self.resolve(above)
        if not isinstance(folder, Folder):
            raise NotAFolder(above)
        return Place(folder.number, names.check(name))

    def path(self, node: Node) -> str:
        """The absolute path of a folder or an entry."""
        if isinstance(node, Link):
            return f"/{names.BY_ID}/{node.name}"
        if isinstance(node, Folder):
            if node.number == BY_ID:
                return f"/{names.BY_ID}"
            with self.catalog.read() as repository:
                return _folder_path(repository, node) or "/"
        with self.catalog.read() as repository:
            return f"{_folder_path(repository, repository.folder(node.folder))}/{node.name}"

    def entries_of(self, image: int) -> list[Entry]:
        """The entries of an image, oldest first."""
        with self.catalog.read() as repository:
            return repository.entries_of(image)

    def usage(self, store: str) -> Usage:
        """A store's room; of the default store when `store` is empty."""
        return self.catalog.store(store or self.catalog.settings.default_store).usage()

    def _is_shown(self, folder: Folder) -> bool:
        # A store that is no longer configured keeps its rows but is not in the tree.
        return folder.kind is not FolderKind.STORE or folder.name in self.catalog.stores

    def _link(self, repository: Repository, image: Image) -> Link | None:
        for entry in repository.entries_of(image.number):
            above = _folder_path(repository, repository.folder(entry.folder))
            return Link(image, f"..{above}/{entry.name}")
        return None

    # -- changing names ----------------------------------------------------------------

    def create(self, place: Place, principal: Principal) -> Entry:
        """Make a queued image.

        Raises AlreadyExists, InvalidName, ReadOnlyStore, and StoreUnavailable: rather no
        image than one that can never get its data.
        """
        self._check_real(place)
        store = self.folder(place.folder).store
        if store:
            self.catalog.store(store).check()
        return self.catalog.create(place, principal)

    def make_folder(self, place: Place, principal: Principal) -> Folder:
        """Make an empty folder."""
        self._check_real(place)
        return self.catalog.make_folder(place, principal)

    def remove_folder(self, place: Place, principal: Principal) -> None:
        """Remove an empty folder."""
        self._check_real(place)
        self.catalog.remove_folder(place, principal)

    def register(self, place: Place, url: str, principal: Principal) -> Entry:
        """Make an image of what lies at `url` (`ln -s URL`).

        Raises NotSupported in a store that is not made for it, InvalidImage,
        StoreUnavailable, NotFound.
        """
        self._check_real(place)
        access.check_create(principal)
        store = self.catalog.store(self.folder(place.folder).store)
        if Capability.EXTERNAL not in store.capabilities:
            raise NotSupported(place.name, f"store {store.name} takes no links to other places")
        return self.catalog.register(place, external.examine(store, url), principal)

    def remove(self, place: Place, principal: Principal) -> None:
        """Remove an entry: its copy, or the image when it is the last.

        In the trash it is purged.  An upload that goes on is cancelled first.  Raises
        NotFound, IsAFolder, Protected, Forbidden, Conflict.
        """
        self._check_real(place)
        entry = self._entry(place)
        access.check_change(principal, entry.image)
        if entry.image.status is Status.PENDING_DELETE:
            purge(self.catalog, entry.image)
            return
        if entry.image.status is Status.SAVING:
            upload = self.uploads.get(entry.image.number)
            if upload is None:
                raise Conflict(entry.name, "is being uploaded by another process")
            upload.cancel("it was deleted while it was being uploaded")
        if len(self.entries_of(entry.image.number)) > 1:
            delete_data(self.catalog, self.catalog.detach_copy(place, principal))
        else:
            self.catalog.to_trash(place, principal)

    def rename(
        self, source: Place, target: Place, principal: Principal, *, replace: bool = True
    ) -> None:
        """Rename or move an entry or a folder; what it replaces goes to the trash.

        Into a trash it deletes, out of one it restores, to another store it moves the
        data, and from a temporary name it publishes a finished upload.
        """
        self._check_real(source)
        self._check_real(target)
        with self.catalog.read() as repository:
            node = self._lookup(repository, source.folder, source.name)
            into = repository.folder(target.folder)
            out_of = repository.folder(source.folder)
        match node:
            case Folder():
                self.catalog.move_folder(source, target, principal)
            case Entry() if into.kind is FolderKind.TRASH and out_of.number != into.number:
                self._move_to_trash(source, node, into, principal)
            case Entry() if into.store != node.store:
                self._migrate(node, source, target, into, principal, replace)
            case Entry():
                self._rename(node, source, target, into, principal, replace)

    def _move_to_trash(
        self, source: Place, entry: Entry, trash: Folder, principal: Principal
    ) -> None:
        if trash.store != entry.store:
            raise NotSupported(entry.name, "a deleted image goes to the trash of its own store")
        self.remove(source, principal)

    def _migrate(
        self,
        entry: Entry,
        source: Place,
        target: Place,
        into: Folder,
        principal: Principal,
        replace: bool,
    ) -> None:
        if Capability.EXTERNAL in self.catalog.store(entry.store).capabilities:
            raise NotSupported(entry.name, "is only a link: 'ln' it to copy its data")
        # Before the data is copied: that may take long, and then be refused.
        self.catalog.check_rename(source, target, principal, replace=replace)
        replicate(
            self.catalog,
            entry.image,
            into.store,
            target,
            principal,
            replace=replace,
            instead_of=source,
        )

    def _rename(
        self,
        entry: Entry,
        source: Place,
        target: Place,
        into: Folder,
        principal: Principal,
        replace: bool,
    ) -> None:
        temporary = into.temporary or names.is_temporary(target.name)
        upload = self.uploads.get(entry.image.number)
        if (
            entry.image.status is Status.SAVING
            and not temporary
            and (upload is None or upload.state is UploadState.FINISHED)
        ):
            self._publish(entry, source, target, principal, replace)
        else:
            self.catalog.rename(source, target, principal, replace=replace)

    def _publish(
        self, entry: Entry, source: Place, target: Place, principal: Principal, replace: bool
    ) -> None:
        upload = self.uploads.get(entry.image.number)
        if upload is None:
            raise Conflict(entry.name, "is being uploaded by another process")
        if upload.mtime is not None and upload.mtime // 10**9 == 0:
            # rsync --partial gives a file this time when it keeps one that is not whole.
            raise IncompleteUpload(entry.name, "rsync was interrupted: the file is not whole")
        # Checked before anything is committed: a refused name must not cost the upload.
        self.catalog.check_rename(source, target, principal, replace=replace)
        upload.commit(publish=Rename(source, target, principal, replace))

    def link(
        self,
        number: int,
        place: Place,
        principal: Principal,
        *,
        progress: Progress = no_progress,
    ) -> Entry:
        """Replicate an image to the store of `place` (`ln`).

        Raises NotSupported within one store, AlreadyExists, Conflict, StoreFull, ….
        """
        self._check_real(place)
        image = self.catalog.image(number)
        access.check_change(principal, image)
        store = self.folder(place.folder).store
        if any(entry.store == store for entry in self.entries_of(number)):
            raise NotSupported(place.name, f"store {store} has this image already")
        try:
            self.lookup(place.folder, place.name)
        except NotFound:
            replicate(self.catalog, image, store, place, principal, progress=progress)
            return self._entry(place)
        raise AlreadyExists(place.name)

    def copy(self, source: Entry, target: Place, principal: Principal, *, replace: bool) -> None:
        """Make a new image of an image, in the same store or another (WebDAV's COPY)."""
        self._check_real(target)
        access.check_read_data(principal, source.image, members_of(self.catalog, source.image))
        store = self.folder(target.folder).store
        if store == source.store:
            duplicate(self.catalog, source, target, principal, replace=replace)
        else:
            access.check_change(principal, source.image)
            replicate(self.catalog, source.image, store, target, principal, replace=replace)

    # -- data --------------------------------------------------------------------------

    def open(self, number: int, principal: Principal) -> DataReader:
        """Open an image's data to read.  Raises Forbidden, Deactivated, ImageKilled."""
        return open_image(self.catalog, number, principal)

    def is_temporary(self, entry: Entry) -> bool:
        """Whether the entry's name or folder says that it is not to be published yet."""
        return names.is_temporary(entry.name) or self.folder(entry.folder).temporary

    def close(self) -> None:
        """Cancel what is still being uploaded, with a reason, and close the catalog."""
        for upload in self.uploads:
            try:
                upload.cancel("the process that took the upload was stopped")
            except CatalogError:
                continue  # the next start finds its record
        self.catalog.close()

    def _entry(self, place: Place) -> Entry:
        node = self.lookup(place.folder, place.name)
        if isinstance(node, Entry):
            return node
        raise IsAFolder(place.name)

    def _check_real(self, place: Place) -> None:
        if place.folder == BY_ID or (
            place.folder == self.root.number and place.name == names.BY_ID
        ):
            raise Forbidden(place.name, "/.by-id is made by the catalog")


_ENTRIES = 1 << 48
"""Added to the cookies of entries, so that they come behind all folders."""

_WITH_ENTRY = ImageFilter(statuses=frozenset(Status) - {Status.DELETED})


def _folder_path(repository: Repository, folder: Folder) -> str:
    parts: list[str] = []
    while folder.kind is not FolderKind.ROOT:
        parts.append(folder.name)
        folder = repository.folder(folder.parent)
    return "".join(f"/{part}" for part in reversed(parts))
