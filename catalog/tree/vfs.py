"""The virtual tree: what its operations do.

What users are promised is in docs/semantics.md#the-tree and the sections behind it.

Scope: the only place that decides what an operation on a name does; names are in `namespace`, rules
in `catalog`, data in `upload`, `reader`, `replicate`.  Threading: any thread.

    /                       one folder per configured store
    /<store>/[folders/]NAME an image
    /<store>/.trash/NAME    a deleted image; .trash itself is not listed
    /.by-id/<id>            a link to the image's path
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from catalog import rules, sparing
from catalog.catalog import Catalog, Rename
from catalog.copies import external
from catalog.copies.duplicate import check_copy, check_no_copy, duplicate
from catalog.copies.progress import Progress, no_progress
from catalog.copies.purge import purge, restore
from catalog.copies.reader import opened
from catalog.copies.removal import check_droppable, delete_detached, remove_marked
from catalog.copies.replicate import replicate
from catalog.copies.unfinished import recover_if_dead
from catalog.copies.uses import DELETED, REPLACED, User, Uses
from catalog.errors import (
    AlreadyExists,
    CatalogError,
    Conflict,
    Forbidden,
    IncompleteUpload,
    IsAFolder,
    NotFound,
    NotSupported,
)
from catalog.model import access, names
from catalog.model.access import Principal
from catalog.model.image import Image
from catalog.model.status import IN_PROGRESS, Status
from catalog.model.tree import Entry, Folder, FolderKind, Place
from catalog.sparing import Meant
from catalog.stores.base import Capability, DataReader, Usage
from catalog.tree.namespace import BY_ID, Namespace
from catalog.uploads.staging import Uploads
from catalog.uploads.upload import UploadState

BY_ANOTHER = "is being uploaded by another process: 'imagefs uploads' tells by which"


class Vfs(Namespace):
    """The tree over one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__(catalog)
        self.uploads = Uploads(catalog)
        self.uses = Uses(catalog)

    # -- changing names ----------------------------------------------------------------

    def create(self, place: Place, principal: Principal, *, target: Place | None = None) -> Entry:
        """Make a queued image; `target` is where it will be when it is complete.

        Raises AlreadyExists, InvalidName, ReadOnlyStore, StoreUnavailable.  An unreachable store
        is refused here, so that no image is left without a way to get its data.
        """
        self._check_real(place)
        store = self.folder(place.folder).store
        if store:
            self.catalog.store(store).check()
        return self.catalog.create(place, principal, target=target)

    def make_folder(self, place: Place, principal: Principal) -> Folder:
        """Make an empty folder."""
        self._check_real(place)
        return self.catalog.make_folder(place, principal)

    def remove_folder(self, place: Place, principal: Principal) -> None:
        """Remove an empty folder."""
        self._check_real(place)
        self.catalog.remove_folder(place, principal)

    def register(self, place: Place, url: str, principal: Principal) -> Entry:
        """Make an image of the data at `url` (`ln -s URL`).

        Raises NotSupported in a store that takes no links, InvalidImage, StoreUnavailable,
        NotFound.
        """
        self._check_real(place)
        access.check_create(principal)
        store = self.catalog.store(self.folder(place.folder).store)
        if Capability.EXTERNAL not in store.capabilities:
            raise NotSupported(place.name, f"store {store.name} takes no links to other places")
        return self.catalog.register(place, external.examine(store, url), principal)

    def remove(self, place: Place, principal: Principal, meant: Meant = Meant.SURELY) -> None:
        """Remove an entry: its copy, or the whole image if it is the last entry.

        In the trash the image is purged.  An upload in progress is cancelled first; the image
        that it would have replaced is removed with it, unless the caller may mean only the
        upload.  Raises NotFound, IsAFolder, Protected, Forbidden, Conflict, Spared, and the error
        of a store that does not remove its copy; then everything is as before.
        """
        self._check_real(place)
        entry = self._entry(place)
        access.check_change(principal, entry.image)
        if entry.image.status is Status.PENDING_DELETE:
            self.uses.check_closed(entry.image)
            purge(self.catalog, entry.image)
            return
        if self.settled(entry.image).status is Status.SAVING:
            upload = self.uploads.get(entry.image.number)
            if upload is None:
                raise Conflict(entry.name, BY_ANOTHER)
            upload.cancel("it was deleted while it was being uploaded")
            if meant is Meant.PERHAPS and not self._is_still(place, entry):
                return
            meant = Meant.SURELY
        check_droppable(self.catalog, entry)
        with self.uses.told(entry.image, DELETED):
            dropped = self.catalog.remove(place, principal, meant)
        for location in dropped:
            remove_marked(self.catalog, location)

    def discard(self, place: Place, principal: Principal) -> None:
        """Remove an entry that was just made, with its data; it does not stay in the trash."""
        image = self._entry(place).image
        self.remove(place, principal)
        if self.catalog.image(image.number).status is Status.PENDING_DELETE:
            purge(self.catalog, image)

    def exchange(self, one: Place, other: Place, principal: Principal) -> None:
        """Let two nodes of one folder change their names, in one step.

        Raises NotFound, Forbidden, InvalidName.
        """
        for place in (one, other):
            self._check_real(place)
            names.check_new(place.name)
        with self.catalog.write() as repository:
            rules.exchange(repository, one, other, principal)

    def rename(
        self, source: Place, target: Place, principal: Principal, *, replace: bool = True
    ) -> None:
        """Rename or move an entry or a folder; an image that it replaces goes to the trash.

        A rename into a trash deletes, and one out of it restores.  A rename to another store
        moves the data, and one from a temporary name publishes a finished upload.
        """
        self._check_real(source)
        self._check_real(target)
        with self.catalog.read() as repository:
            node = self._lookup(repository, source.folder, source.name)
            into = repository.folder(target.folder)
            out_of = repository.folder(source.folder)
            present = repository.entry_at(target.folder, target.name)
        if present is not None:
            self.settled(present.image)
        match node:
            case Folder():
                self.catalog.move_folder(source, target, principal)
            case Entry() if into.kind is FolderKind.TRASH and out_of.number != into.number:
                self._move_to_trash(source, node, into, principal)
            case Entry():
                with self._replacing(target, replace):
                    if into.store != node.store:
                        self._migrate(node, source, target, into, principal, replace)
                    else:
                        self._rename(node, source, target, into, principal, replace)

    @contextmanager
    def _replacing(self, target: Place, replace: bool) -> Iterator[None]:
        """Warn if the image that the block replaces is in use."""
        with ExitStack() as stack:
            with suppress(NotFound):
                present = self.lookup(target.folder, target.name) if replace else None
                if isinstance(present, Entry):
                    stack.enter_context(self.uses.told(present.image, REPLACED))
            yield

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
        # Checked before the data is copied, as that may take long.
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
        if upload is not None and upload.interrupted and not temporary:
            # When rsync --partial is stopped by a signal, it renames the incomplete file.
            reason = f"{upload.interrupted} was interrupted: the file is not whole"
            raise IncompleteUpload(entry.name, reason)
        if (
            entry.image.status is Status.SAVING
            and not temporary
            and (upload is None or upload.state is UploadState.FINISHED)
        ):
            self._publish(entry, source, target, principal, replace)
        else:
            if entry.image.status is Status.PENDING_DELETE:
                restore(self.catalog, entry.image)
            dropped = self.catalog.rename(source, target, principal, replace=replace)
            delete_detached(self.catalog, dropped)
            # The upload was finished between the look above and the rename, by a close that saw the
            # temporary name and did not publish it.  So it is published here.
            if upload is not None and not temporary and upload.state is UploadState.FINISHED:
                upload.commit()

    def _publish(
        self, entry: Entry, source: Place, target: Place, principal: Principal, replace: bool
    ) -> None:
        upload = self.uploads.get(entry.image.number)
        if upload is None:
            raise Conflict(entry.name, BY_ANOTHER)
        if upload.mtime is not None and upload.mtime // 10**9 == 0:
            # rsync --partial sets this time on an incomplete file that it keeps.
            raise IncompleteUpload(entry.name, "rsync was interrupted: the file is not whole")
        # Checked before the commit: a name that is refused must not kill the upload.
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
        store = self.store_for(place)
        image = self.catalog.image(number)
        access.check_change(principal, image)
        check_no_copy(self.catalog, image, store)
        try:
            self.lookup(place.folder, place.name)
        except NotFound:
            replicate(self.catalog, image, store, place, principal, progress=progress)
            return self._entry(place)
        raise AlreadyExists(place.name)

    def copy(self, source: Entry, target: Place, principal: Principal, *, replace: bool) -> None:
        """Make a new image of an image, in the same store or another (WebDAV's COPY)."""
        store = self.store_for(target)
        check_copy(self.catalog, source, store, principal)
        with self._replacing(target, replace):
            if store == source.store:
                duplicate(self.catalog, source, target, principal, replace=replace)
            else:
                replicate(self.catalog, source.image, store, target, principal, replace=replace)

    def store_for(self, place: Place) -> str:
        """The store for data at `place`.  Raises Forbidden if nothing can be put there."""
        self._check_real(place)
        with self.catalog.read() as repository:
            return rules.writable_folder(repository, place).store

    # -- data --------------------------------------------------------------------------

    def settled(self, image: Image) -> Image:
        """The image as it is now; an upload of a dead process is given up first."""
        if image.status not in IN_PROGRESS or self.uploads.get(image.number) is not None:
            return image
        recover_if_dead(self.catalog, image)
        return self.catalog.image(image.number)

    def usage(self, store: str) -> Usage:
        """A store's room; that of the default store if `store` is empty."""
        return self.catalog.store(store or self.catalog.settings.default_store).usage()

    def open(self, number: int, principal: Principal, user: User = "") -> DataReader:
        """Open an image's data to read; `user`, if given, counts as its user until it is closed.

        Raises Forbidden, Deactivated, ImageKilled.
        """
        image, reader = opened(self.catalog, number, principal)
        return self.uses.note(image, reader, user) if user else reader

    def is_temporary(self, entry: Entry) -> bool:
        """Whether the entry's name or folder is temporary, so that it is not published yet."""
        return names.is_temporary(entry.name) or self.folder(entry.folder).temporary

    def close(self) -> None:
        """Cancel all uploads in progress, with a reason, and close the catalog."""
        for upload in self.uploads:
            try:
                upload.cancel("the process that took the upload was stopped")
            except CatalogError:
                continue  # recovery at the next start finds its row
        self.catalog.close()

    def _entry(self, place: Place) -> Entry:
        node = self.lookup(place.folder, place.name)
        if isinstance(node, Entry):
            return node
        raise IsAFolder(place.name)

    def _is_still(self, place: Place, entry: Entry) -> bool:
        """Whether a name still stands for the same image."""
        with self.catalog.read() as repository:
            present = repository.entry_at(place.folder, place.name)
        return present is not None and present.image.number == entry.image.number

    def check_remove(self, entry: Entry, meant: Meant) -> None:
        """Raise what `remove` would raise: Protected, Conflict, Spared, StoreUnavailable."""
        image = self.settled(entry.image)
        if image.status is Status.SAVING:
            if self.uploads.get(image.number) is None:
                raise Conflict(entry.name, BY_ANOTHER)
            return
        with self.catalog.read() as repository:
            rules.check_removable(repository, Entry(entry.location, image))
            sparing.check_meant(repository, entry, meant)
        check_droppable(self.catalog, entry)

    def note_failed_replacement(self, place: Place, principal: Principal, reason: str) -> None:
        """Spare the image at `place`, if there is one, after a failed request to replace it.

        Raises Forbidden if the principal may not change it.
        """
        with self.catalog.read() as repository:
            present = repository.entry_at(place.folder, place.name)
        if present is not None and present.image.status is not Status.KILLED:
            access.check_change(principal, present.image)
            with self.catalog.write() as repository:
                sparing.note_failure(repository, present.image.number, reason)

    def _check_real(self, place: Place) -> None:
        if place.folder == BY_ID or (
            place.folder == self.root.number and place.name == names.BY_ID
        ):
            raise Forbidden(place.name, "/.by-id is made by the catalog")
