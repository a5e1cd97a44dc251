"""The catalog: what may happen to images, folders and locations, and when.

Scope: the rules, each operation one transaction; this is the only module that begins one, and
none spans a store's I/O.  Threading: any thread; every call opens its own transaction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from time import time_ns

from catalog import attributes, replacing, rules, sparing
from catalog.cache.block_cache import BlockCache
from catalog.errors import Conflict, NotFound, ReadOnlyStore
from catalog.model import access, names
from catalog.model.access import Principal
from catalog.model.activity import Change, UploadRecord, Version
from catalog.model.fields import Details
from catalog.model.image import Announced, ChunkDigests, External, Image, Saved, Visibility, now
from catalog.model.status import HAS_DATA, IN_PROGRESS, Status
from catalog.model.tree import Entry, Folder, FolderKind, Location, LocationState, Place
from catalog.process import Process, this_process
from catalog.repository import copies
from catalog.repository.database import Database, Repository
from catalog.repository.reserve import on_a_full_disk
from catalog.rules import GaveWay
from catalog.settings import CatalogSettings
from catalog.sparing import Meant
from catalog.stores.base import Capability, Store

CHECKPOINT = 1.0
"""Seconds after which a program that stays brings the database's main file up to date."""


@dataclass(frozen=True, slots=True)
class Rename:
    """A change of an entry's name that goes with another change, in the same step."""

    source: Place
    target: Place
    principal: Principal
    replace: bool


Check = Callable[[Repository, Entry], bool]
"""Asked of an upload in the transaction that would publish it: False leaves it as it is.  What it
raises refuses the upload."""


class Reannounced(Exception):
    """Something else has been announced of an upload's data since that was verified."""


class _Undo(Exception):
    """Rolls a transaction back that was only a trial."""


class Catalog:
    """Images and where they are, over one database and the configured stores."""

    def __init__(
        self,
        database: Database,
        settings: CatalogSettings,
        stores: Mapping[str, Store],
        cache: BlockCache | None = None,
        replicas: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Use `bootstrap.open_catalog` to get one."""
        self.settings = settings
        self.stores = stores
        self.cache = cache or BlockCache()
        self.keeps_locks = False
        """Set where WebDAV is served: what is done there has been held to the locks."""
        self._replicas = replicas or {}
        self._database = database
        self.reserve = database.reserve

    # -- transactions ------------------------------------------------------------------

    def read(self) -> AbstractContextManager[Repository]:
        """A transaction that only reads: one consistent view, and it waits for nobody."""
        return self._database.read(self.stores)

    def write(self) -> AbstractContextManager[Repository]:
        """A transaction that writes: committed at the end, rolled back by an exception."""
        return self._database.write(self.stores, keeps_locks=self.keeps_locks)

    def checkpoint(self) -> None:
        """Bring the database's main file up to date, for those who copy it as it is."""
        self._database.checkpoint()

    def damages(self) -> list[str]:
        """What is wrong in the database as a whole; empty if nothing is known to be."""
        return self._database.damages()

    def close(self) -> None:
        """Close the cache, the stores and the database."""
        self.cache.close()
        for store in self.stores.values():
            store.close()
        self._database.close()

    def store(self, name: str) -> Store:
        """The configured store of that name.  Raises NotFound."""
        try:
            return self.stores[name]
        except KeyError:
            raise NotFound(name, "no such store is configured") from None

    # -- looking -----------------------------------------------------------------------

    def version(self) -> Version:
        """What is the same only as long as nothing of the tree has changed."""
        with self.read() as repository:
            return repository.version()

    def changes_between(self, old: Version, new: Version, limit: int) -> list[Change] | None:
        """What has changed between two versions, oldest first; None if not all of it is known."""
        count, first = new[0] - old[0], old[1] + 1
        if not 0 < count <= limit:
            return None
        with self.read() as repository:
            found = repository.changes(old[1], count)
        # Some may be forgotten, or were not committed in the order of their numbers.
        numbers = [change.number for change in found]
        return found if numbers == list(range(first, first + count)) else None

    def image(self, number: int) -> Image:
        """The image of that number.  Raises NotFound."""
        with self.read() as repository:
            return repository.image(number)

    def details(self, number: int) -> Details:
        """Everything there is to tell of an image.  Raises NotFound."""
        with self.read() as repository:
            return Details(
                repository.image(number),
                repository.properties(number),
                repository.tags(number),
                repository.stores_of(number),
            )

    def members_of(self, image: Image) -> frozenset[str]:
        """The members of a shared image; none of any other, without asking the database."""
        if image.visibility is not Visibility.SHARED:
            return frozenset()
        with self.read() as repository:
            return repository.members_of(image)

    def properties_of(self, numbers: Collection[int]) -> dict[int, dict[str, str]]:
        """The custom properties of those images that have any, by number."""
        with self.read() as repository:
            return repository.properties_of(numbers)

    def details_of(self, numbers: Collection[int]) -> dict[int, Details]:
        """Everything there is to tell of several images, by number."""
        with self.read() as repository:
            return repository.details_of(numbers)

    # -- folders -----------------------------------------------------------------------

    def make_folder(self, place: Place, principal: Principal) -> Folder:
        """Make an empty folder.  Raises AlreadyExists, InvalidName, NotFound, Forbidden."""
        access.check_create(principal)
        names.check_new(place.name)
        with self.write() as repository:
            parent = rules.writable_folder(repository, place)
            rules.check_free(repository, place)
            temporary = parent.temporary or names.is_temporary(place.name)
            return repository.add_folder(
                parent.number,
                parent.store,
                place.name,
                FolderKind.PLAIN,
                principal.owner,
                temporary,
            )

    def remove_folder(self, place: Place, principal: Principal) -> None:
        """Remove an empty folder.  Raises NotFound, NotAFolder, FolderNotEmpty, Forbidden."""
        with self.write() as repository:
            rules.remove_folder(repository, place, principal)

    def move_folder(self, source: Place, target: Place, principal: Principal) -> None:
        """Rename a folder within its store; an empty folder at `target` gives way.

        Raises NotFound, Forbidden, FolderNotEmpty, NotAFolder, InvalidName, and
        NotSupported for another store.
        """
        if target.name != source.name:
            names.check_new(target.name)
        with self.write() as repository:
            rules.move_folder(repository, source, target, principal)

    # -- entries -----------------------------------------------------------------------

    def create(
        self,
        place: Place,
        principal: Principal,
        image_id: str | None = None,
        *,
        target: Place | None = None,
        replace: bool = True,
        expected_hash: str | None = None,
    ) -> Entry:
        """Make a queued image with an entry.

        `target` is where it will be when it is complete, if not at `place`.  `expected_hash` is
        announced of its data.  Raises AlreadyExists, InvalidName, NotFound, Forbidden,
        ReadOnlyStore, and what `rename` to `target` would raise.
        """
        access.check_create(principal)
        for each in (place, target or place):
            names.check_new(each.name)
        if expected_hash is not None:
            attributes.hash_algorithm(expected_hash)
        with self.write() as repository:
            folder = rules.writable_folder(repository, place)
            self._check_takes_data(folder.store)
            rules.check_free(repository, place)
            name = (target or place).name
            number = rules.add_image(
                repository, name, principal, image_id, expected_hash=expected_hash
            )
            repository.add_location(number, folder.store, folder.number, place.name)
            replacing.begin(repository, number, place, target, principal)
            entry = rules.entry_at(repository, place)
            if target is not None:
                rules.check_move(repository, entry, target, principal, replace=replace)
            return entry

    def register(self, place: Place, external: External, principal: Principal) -> Entry:
        """Make an active image of data that lies at a URL (`ln -s URL`)."""
        access.check_create(principal)
        names.check_new(place.name)
        with self.write() as repository:
            folder = rules.writable_folder(repository, place)
            rules.check_free(repository, place)
            rules.add_external(repository, folder, place.name, external, principal)
            return rules.entry_at(repository, place)

    @on_a_full_disk
    def rename(
        self, source: Place, target: Place, principal: Principal, *, replace: bool = True
    ) -> GaveWay:
        """Rename an entry within its store; restores it when it comes from the trash.

        What had the name `target` is removed in the same step.  Raises NotFound,
        AlreadyExists (unless `replace`), IsAFolder, Protected, Conflict, Forbidden,
        InvalidName.
        """
        with self.write() as repository:
            entry = rules.entry_at(repository, source)
            access.check_change(principal, entry.image)
            return rules.move(repository, entry, target, principal, replace=replace)

    def check_rename(
        self, source: Place, target: Place, principal: Principal, *, replace: bool
    ) -> None:
        """Raise what `rename` would raise, and change nothing."""
        with self.read() as repository:
            entry = rules.entry_at(repository, source)
            rules.check_rename(repository, entry, target, principal, replace=replace)

    def take_back(self, entry: Entry) -> None:
        """Undo `create`, when what the image was made for has failed; it leaves no trace.

        Raises InvalidTransition when somebody writes to it already.
        """
        with self.write() as repository:
            rules.take_back(repository, entry)

    @on_a_full_disk
    def remove(
        self, place: Place, principal: Principal, meant: Meant = Meant.SURELY
    ) -> list[Location]:
        """Remove an entry: one of several copies, or with its last name the image.

        The image goes to its store's trash; with a temporary name and no data it is
        deleted at once.  Returns the copy whose data goes next: it is an entry until its
        store has removed it (`removal.remove_marked`).  Raises NotFound, Forbidden,
        Protected, Conflict (an upload goes on, or this is the only complete copy, or the
        only one that is not damaged), Spared as `meant` says.
        """
        with self.write() as repository:
            entry = rules.entry_at(repository, place)
            access.check_change(principal, entry.image)
            # First what refuses for good: waiting would not help.
            rules.check_removable(repository, entry)
            sparing.check_meant(repository, entry, meant)
            if meant is Meant.PERHAPS and replacing.give_back_unwritten(repository, entry):
                return []
            return rules.remove(repository, entry, principal)

    # -- copies ------------------------------------------------------------------------

    def start_copy(self, number: int, store: str, process: Process) -> Location:
        """Note a copy that is about to be made in a store; it is no entry yet.

        Raises NotFound, ReadOnlyStore, and Conflict for an image without data, one with
        a copy there already, or one that is being copied now.
        """
        at = now()
        with self.write() as repository:
            image = repository.image(number)
            if image.status not in HAS_DATA:
                raise Conflict(image.name, f"is {image.status}: only an active image is copied")
            self._check_takes_data(store)
            if repository.upload(number) is not None:
                raise Conflict(image.name, "is being copied already")
            repository.add_upload(UploadRecord(number, process, "", at, at))
            return repository.add_location(number, store, None, None)

    def finish_copy(
        self,
        location: Location,
        url: str,
        place: Place | None,
        principal: Principal,
        *,
        replace: bool = False,
        instead_of: Place | None = None,
    ) -> GaveWay:
        """Note that a copy is complete, and make it the entry `place` if it is to have a name.

        A copy that is complete already gets the name.  `instead_of` takes another copy out
        of the tree, which is among the copies that are returned.  Raises as `rename`.
        """
        with self.write() as repository:
            image = repository.image(location.image)
            access.check_change(principal, image)
            if image.status not in HAS_DATA:
                raise Conflict(image.name, f"is {image.status} since")
            if location.state is LocationState.PENDING:
                record = repository.upload(location.image)
                if record is None or record.process != this_process():
                    raise Conflict(image.name, "the copy was aborted")
                repository.drop_upload(location.image)
            repository.set_location(location.number, LocationState.ACTIVE, url)
            if place is None:
                repository.set_image(location.image)  # its `stores` have changed
                return GaveWay()
            entry = Entry(location, image)
            gave_way = rules.move(repository, entry, place, principal, replace=replace)
            if instead_of is not None:
                old = rules.entry_at(repository, instead_of).location
                if old.image != location.image:
                    raise Conflict(instead_of.name, "is another image since")
                repository.detach_location(old)
                gave_way = dataclasses.replace(gave_way, dropped=(*gave_way.dropped, old))
            return gave_way

    @on_a_full_disk
    def drop_copy(self, location: Location) -> None:
        """Forget a copy that was not completed, or whose data is gone."""
        with self.write() as repository:
            repository.drop_location(location)
            if location.state is LocationState.PENDING:
                repository.drop_upload(location.image)

    # -- uploads -----------------------------------------------------------------------

    def start_upload(
        self, number: int, process: Process, staged: str, store: str | None = None
    ) -> None:
        """queued -> saving.  Raises InvalidTransition, NotFound.

        With `store` also Conflict, unless the image has a name there.
        """
        at = now()
        with self.write() as repository:
            record = UploadRecord(number, process, staged, at, at)
            rules.begin_upload(repository, record, Status.QUEUED)
            if store not in (None, *(each.store for each in repository.entries_of(number))):
                raise Conflict(repository.image(number).name, "is elsewhere since")

    def reopen_upload(self, number: int, process: Process, staged: str) -> list[Location]:
        """active -> saving, for the writer that committed it.

        Source: docs/semantics.md#writing-a-file-uploads-an-image.

        Returns the copies that were made of what is now to change: their data goes next.
        Raises Conflict while one is being made.
        """
        at = now()
        with self.write() as repository:
            record = UploadRecord(number, process, staged, at, at)
            return rules.begin_upload(repository, record, Status.ACTIVE)

    def finish_upload(
        self,
        number: int,
        url: str,
        saved: Saved,
        publish: Rename | None = None,
        checked: Announced | None = None,
        check: Check | None = None,
    ) -> GaveWay | None:
        """saving -> active, with everything the upload found out, in one step.

        `publish` renames the entry in the same step.  `checked` is what the data was compared
        with: raises Reannounced if that is another by now.  Returns None, and changes nothing,
        if `check` says so.
        """
        with self.write() as repository:
            if not _may_finish(repository, number, checked, check):
                return None
            repository.change_status(
                number,
                Status.ACTIVE,
                only_from=(Status.SAVING,),
                size=saved.size,
                disk_format=saved.disk_format,
                virtual_size=saved.virtual_size,
                os_hash_algo=saved.os_hash_algo,
                os_hash_value=saved.os_hash_value,
                checksum=saved.checksum,
                mtime=saved.mtime if saved.mtime is not None else time_ns(),
                expected_size=None,
                expected_hash=None,
                message="",
                gate=saved.gate,
            )
            repository.set_chunk_digests(number, saved.chunks)
            (entry,) = repository.entries_of(number)
            repository.set_location(entry.location.number, LocationState.ACTIVE, url)
            replicas = self._replicas.get(entry.store, ())
            copies.want(repository, number, replicas, now() + copies.SETTLE)
            repository.drop_upload(number)
            if publish is None:
                if (replaced := repository.replaced(number)) is not None:
                    sparing.take_place(repository, number, replaced)
                return GaveWay()
            entry = rules.entry_at(repository, publish.source)
            return rules.move(
                repository, entry, publish.target, publish.principal, replace=publish.replace
            )

    @on_a_full_disk
    def fail_upload(self, number: int, message: str) -> bool:
        """saving -> killed, with the reason, unless it had ended; whether it is killed now.

        What is killed, by whomever, has no right to data: whoever has put some in its store
        takes it out again.  What it was to replace is good again in the same step.
        """
        with self.write() as repository:
            repository.drop_upload(number)
            image = repository.image(number)
            if image.status not in IN_PROGRESS:
                return Status.KILLED in (image.status, image.status_before_delete)
            repository.change_status(number, Status.KILLED, size=0, message=message)
            replacing.give_back(repository, number, message)
            return True

    def renew(self, place: Place, principal: Principal) -> Entry:
        """Let a new queued image take the name of a killed one (O_TRUNC on it)."""
        access.check_create(principal)
        with self.write() as repository:
            entry = rules.entry_at(repository, place)
            access.check_change(principal, entry.image)
            if entry.image.status is not Status.KILLED:
                raise Conflict(entry.name, f"is {entry.image.status} by now")
            rules.to_trash(repository, entry, principal)
            number = rules.add_image(repository, place.name, principal, None)
            repository.add_location(number, entry.store, place.folder, place.name)
            return rules.entry_at(repository, place)

    def record_digests(self, number: int, algo: str, value: str, chunks: ChunkDigests) -> None:
        """Record the digests of an active image that came without any; the first ones stay."""
        with self.write() as repository:
            if repository.image(number).os_hash_value is not None:
                return
            repository.set_image(number, os_hash_algo=algo, os_hash_value=value, expected_hash=None)
            repository.set_chunk_digests(number, chunks)

    # -- fields ------------------------------------------------------------------------

    def set_attributes(
        self, number: int, values: Mapping[str, str | None], principal: Principal
    ) -> None:
        """Set image fields and custom properties from text, all or nothing.

        Names are `image.<field>` and `property.<name>`; None removes a property.  Raises
        InvalidValue, Immutable, Forbidden, NotFound, QuotaExceeded, InvalidTransition.
        """
        with self.write() as repository:
            access.check_change(principal, repository.image(number))
            attributes.apply(repository, number, values, principal)

    def check_attributes(
        self, number: int, values: Mapping[str, str | None], principal: Principal
    ) -> None:
        """Raise what `set_attributes` would raise, and change nothing."""
        with suppress(_Undo), self.write() as repository:
            access.check_change(principal, repository.image(number))
            attributes.apply(repository, number, values, principal)
            raise _Undo

    def change_tags(
        self, number: int, principal: Principal, *, add: Collection[str], remove: Collection[str]
    ) -> None:
        """Add some tags and remove others.  Raises InvalidValue, Forbidden, NotFound."""
        with self.write() as repository:
            access.check_change(principal, repository.image(number))
            attributes.change_tags(repository, number, add, remove)

    def set_mtime(self, number: int, mtime: int, principal: Principal) -> None:
        """Keep the modification time a tool sets; nanoseconds since 1970."""
        with self.write() as repository:
            access.check_change(principal, repository.image(number))
            repository.set_image(number, mtime=mtime)

    def _check_takes_data(self, store: str) -> None:
        if Capability.WRITE not in self.store(store).capabilities:
            raise ReadOnlyStore(store)


def _may_finish(
    repository: Repository, number: int, checked: Announced | None, check: Check | None
) -> bool:
    """Whether an upload may be finished as it is; raises Reannounced, and what `check` raises."""
    image = repository.image(number)
    if image.status is not Status.SAVING:
        return True  # the change of its status is refused
    if checked not in (None, image.announced):
        raise Reannounced
    return check is None or check(repository, repository.entries_of(number)[0])
