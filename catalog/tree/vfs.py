"""The virtual tree: what its operations do.

docs/semantics.md#the-tree and the sections after it say what users can rely on.

Scope: decides what an operation on a name does, and is the only place for that.  Names are in
`namespace`, rules in `catalog.rules`, data in `catalog.uploads` and `catalog.copies`.  Threading:
any thread.

    /                       one folder per configured store
    /<store>/[folders/]NAME an image
    /<store>/.trash/NAME    a deleted image; .trash itself is not listed
    /.by-id/<id>            a link to the image's path
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass

from catalog.catalog import Catalog
from catalog.copies import external
from catalog.copies.duplicate import check_copy, check_no_copy, duplicate
from catalog.copies.progress import Progress, no_progress
from catalog.copies.purge import purge, restore
from catalog.copies.reader import Readable, open_readable, readable
from catalog.copies.removal import check_droppable, let_go, remove_marked
from catalog.copies.replicate import replicate
from catalog.copies.unfinished import recover_if_dead
from catalog.copies.uses import DELETED, User, Uses, in_use
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
from catalog.model.activity import Use
from catalog.model.image import Image
from catalog.model.status import IN_PROGRESS, Status
from catalog.model.tree import Entry, Folder, FolderKind, Place
from catalog.repository.database import Repository
from catalog.rules import entries, folders, placement, replacing, sparing, trash
from catalog.rules.entries import Rename
from catalog.rules.locks import Writing, held_at
from catalog.rules.sparing import Meant
from catalog.stores.base import Capability, DataReader, Usage
from catalog.tree.namespace import BY_ID, Namespace, Node, Spot
from catalog.uploads.staging import Uploads
from catalog.uploads.upload import Upload, UploadState

BY_ANOTHER = "is being uploaded by another process: 'imagefs uploads' tells by which"


@dataclass(frozen=True, slots=True)
class _Seen:
    """The state of the tree before a rename."""

    node: Node
    out_of: Folder
    into: Folder
    present: Entry | None
    """The entry that has the name already."""
    refusal: CatalogError | None = None
    """Why the entry may not get the name; None if it may, or if that was not checked."""

    @property
    def is_to_be_deleted(self) -> bool:
        return self.into.kind is FolderKind.TRASH and self.out_of.number != self.into.number


class Vfs(Namespace):
    """The tree over one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__(catalog)
        self.uploads = Uploads(catalog)
        self.uses = Uses(catalog)

    # -- changing names ----------------------------------------------------------------

    def create(
        self,
        place: Place,
        principal: Principal,
        *,
        target: Place | None = None,
        folder: Folder | None = None,
        expected_hash: str | None = None,
    ) -> Entry:
        """Make a queued image; `target` is its place after it is complete, if not `place`.

        `folder` is the folder of `place`, if the caller has just read it.  Raises AlreadyExists,
        InvalidName, ReadOnlyStore, the errors of a `rename` to `target`, and StoreUnavailable:
        an unreachable store is refused now, so that no image is left that cannot get its data.
        """
        self._check_real(place)
        folder = folder or self.known.folder(place.folder) or self.folder(place.folder)
        store = folder.store
        if store:
            self.catalog.store(store).check()
        return entries.create(
            self.catalog, place, principal, target=target, expected_hash=expected_hash
        )

    def make_folder(self, place: Place, principal: Principal) -> Folder:
        """Make an empty folder."""
        self._check_real(place)
        return folders.make_folder(self.catalog, place, principal)

    def remove_folder(self, place: Place, principal: Principal) -> None:
        """Remove an empty folder."""
        self._check_real(place)
        folders.remove_folder(self.catalog, place, principal)

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
        return entries.register(self.catalog, place, external.examine(store, url), principal)

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
            dropped = entries.remove(self.catalog, place, principal, meant)
        for location in dropped:
            remove_marked(self.catalog, location)

    def discard(self, place: Place, principal: Principal) -> None:
        """Remove an entry that was just made, with its data; it does not stay in the trash."""
        image = self._entry(place).image
        self.remove(place, principal)
        if self.catalog.image(image.number).status is Status.PENDING_DELETE:
            purge(self.catalog, image)

    def exchange(self, one: Place, other: Place, principal: Principal) -> None:
        """Exchange the names of two nodes in one folder, in one step.

        Raises NotFound, Forbidden, InvalidName.
        """
        for place in (one, other):
            self._check_real(place)
        folders.exchange(self.catalog, one, other, principal)

    def rename(
        self, source: Place, target: Place, principal: Principal, *, replace: bool = True
    ) -> None:
        """Rename or move an entry or a folder; an image that it replaces goes to the trash.

        A rename into a trash deletes, and one out of it restores.  A rename to another store
        moves the data, and one from a temporary name publishes a finished upload.
        """
        self._check_real(source)
        self._check_real(target)
        move = Rename(source, target, principal, replace)
        seen = self._see(move)
        if seen.present is not None and self.settled(seen.present.image) is not seen.present.image:
            seen = self._see(move)
        match seen.node:
            case Folder():
                folders.move_folder(self.catalog, source, target, principal)
            case Entry() if seen.is_to_be_deleted:
                self._move_to_trash(source, seen.node, seen.into, principal)
            case Entry():
                if seen.present is not None and replace:
                    self.uses.publish_of(seen.present.image)
                if seen.into.store != seen.node.store:
                    self._migrate(seen.node, seen, move)
                else:
                    self._rename(seen.node, seen, move)

    def _see(self, move: Rename) -> _Seen:
        """Read the state of the tree before a rename, in one transaction."""
        source, target = move.source, move.target
        with self.catalog.read() as repository:
            seen = _Seen(
                self._lookup(repository, source.folder, source.name),
                repository.folder(source.folder),
                repository.folder(target.folder),
                repository.entry_at(target.folder, target.name),
            )
            node = seen.node
            # A publication or a copy takes more than one step: check it before it begins.  A plain
            # rename is checked by its own transaction.
            if isinstance(node, Entry) and (
                node.image.status is Status.SAVING or node.store != seen.into.store
            ):
                try:
                    placement.check_rename(
                        repository, node, target, move.principal, replace=move.replace
                    )
                except CatalogError as error:
                    return dataclasses.replace(seen, refusal=error)
        return seen

    def _move_to_trash(
        self, source: Place, entry: Entry, trash: Folder, principal: Principal
    ) -> None:
        if trash.store != entry.store:
            raise NotSupported(entry.name, "a deleted image goes to the trash of its own store")
        self.remove(source, principal)

    def _migrate(self, entry: Entry, seen: _Seen, move: Rename) -> None:
        if Capability.EXTERNAL in self.catalog.store(entry.store).capabilities:
            raise NotSupported(entry.name, "is only a link: 'ln' it to copy its data")
        # Checked before the data is copied, as that may take long.
        if seen.refusal is not None:
            raise seen.refusal
        replicate(
            self.catalog,
            entry.image,
            seen.into.store,
            move.target,
            move.principal,
            replace=move.replace,
            instead_of=move.source,
        )

    def _rename(self, entry: Entry, seen: _Seen, move: Rename) -> None:
        temporary = seen.into.temporary or names.is_temporary(move.target.name)
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
            if upload is None:
                raise Conflict(entry.name, BY_ANOTHER)
            # Checked before anything is committed: a refused name must not cost the upload.
            _check_whole(upload)
            if seen.refusal is not None:
                raise seen.refusal
            upload.commit(move, image=entry.image)
        else:
            if entry.image.status is Status.PENDING_DELETE:
                restore(self.catalog, entry.image)
            gave_way = entries.rename(
                self.catalog, move.source, move.target, move.principal, replace=move.replace
            )
            let_go(self.catalog, gave_way)
            # The upload was finished between the look above and the rename, by a close that saw the
            # temporary name and did not publish it.  So it is published here.
            if upload is not None and not temporary and upload.state is UploadState.FINISHED:
                upload.commit()

    def publish(self, upload: Upload, writing: Writing, move: Rename | None = None) -> bool:
        """Finish and commit an upload: with the rename `move`, or under its present name.

        Returns False if that name is temporary: a later rename publishes the image.  Raises the
        errors of a rename, and Locked if a lock forbids the write at the end; the upload is lost
        then.
        """

        def check(repository: Repository, entry: Entry) -> bool:
            writing.check(held_at(repository, writing.path))
            return move is not None or not names.is_temporary(entry.name)

        if move is not None:
            _check_whole(upload)
        elif names.is_temporary(upload.image.name):
            # Check before the commit as well: if the name is still temporary, the store does not
            # need the data yet.
            upload.finish()
            with self.catalog.read() as repository:
                entries = repository.entries_of(upload.image.number)
                if not all(check(repository, entry) for entry in entries):
                    return False
        return upload.commit(move, check)

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
        with suppress(NotFound):
            present = self.lookup(target.folder, target.name)
            if isinstance(present, Entry) and replace:
                self.uses.publish_of(present.image)
        if store == source.store:
            duplicate(self.catalog, source, target, principal, replace=replace)
        else:
            replicate(self.catalog, source.image, store, target, principal, replace=replace)

    def store_for(self, place: Place) -> str:
        """The store for data at `place`.  Raises Forbidden if nothing can be put there."""
        self._check_real(place)
        with self.catalog.read() as repository:
            return placement.writable_folder(repository, place).store

    # -- data --------------------------------------------------------------------------

    def settled(self, image: Image) -> Image:
        """The image as it is now; an upload of a dead process is given up first."""
        if image.status not in IN_PROGRESS or self.uploads.get(image.number) is not None:
            return image
        recover_if_dead(self.catalog, image)
        return self.catalog.image(image.number)

    def in_use(self, number: int) -> list[Use]:
        """The programs that have the image open now, on all hosts, the oldest first."""
        return in_use(self.catalog, number)

    def usage(self, store: str) -> Usage:
        """The total and free bytes of a store, or of the default store if `store` is empty."""
        return self.catalog.store(store or self.catalog.settings.default_store).usage()

    def open(self, number: int, principal: Principal, user: User = "") -> DataReader:
        """Open an image's data to read; `user`, if given, counts as its user until it is closed.

        Raises Forbidden, Deactivated, ImageKilled.
        """
        with self.catalog.read() as repository:
            found = readable(self.catalog, repository, number)
        return self._open(found, principal, user)

    def open_seen(self, spot: Spot, principal: Principal, user: User = "") -> DataReader:
        """As `open`, for an image that `look` has looked up with its data."""
        if spot.readable is None:
            raise NotFound(spot.path)
        return self._open(spot.readable, principal, user)

    def _open(self, found: Readable, principal: Principal, user: User) -> DataReader:
        reader = open_readable(self.catalog, found, principal)
        return self.uses.note(found.image, reader, user) if user else reader

    def is_temporary(self, entry: Entry) -> bool:
        """Whether the entry's name or folder is temporary, so that it is not published yet."""
        return names.is_temporary(entry.name) or self.folder(entry.folder).temporary

    def has_temporary_name(self, number: int) -> bool:
        """As `is_temporary`, for the present name of an image; False if it has none."""
        with self.catalog.read() as repository:
            for entry in repository.entries_of(number)[:1]:
                return names.is_temporary(entry.name) or repository.folder(entry.folder).temporary
        return False

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
        """Whether a name still belongs to the same image."""
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
            trash.check_removable(repository, Entry(entry.location, image))
            sparing.check_meant(repository, entry, meant)
        check_droppable(self.catalog, entry)

    def note_failed_replacement(self, place: Place, principal: Principal, reason: str) -> None:
        """Spare the image at `place`, if there is one, after a failed request to replace it.

        Raises Forbidden if the principal may not change it.
        """
        replacing.note_failure(self.catalog, place, principal, reason)

    def _check_real(self, place: Place) -> None:
        if place.folder == BY_ID or (
            place.folder == self.root.number and place.name == names.BY_ID
        ):
            raise Forbidden(place.name, "/.by-id is made by the catalog")


def _check_whole(upload: Upload) -> None:
    if upload.mtime is not None and upload.mtime // 10**9 == 0:
        # rsync --partial gives this time to an incomplete file that it keeps.
        raise IncompleteUpload(upload.image.name, "rsync was interrupted: the file is not whole")
