"""Looks up names in the virtual tree (docs/semantics.md#the-tree).

Scope: reads only; the only place that resolves a path and reads a folder in pages.  Threading: any
thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol, TypeVar, cast

from catalog.catalog import Catalog
from catalog.copies.reader import Readable, readable
from catalog.errors import CatalogError, InvalidName, NotAFolder, NotFound
from catalog.model import names
from catalog.model.access import Principal
from catalog.model.image import Image
from catalog.model.listings import ImageFilter
from catalog.model.status import Status
from catalog.model.tree import Entry, Folder, FolderKind, Listed, Place
from catalog.repository.database import Repository
from catalog.rules.locks import NOT_HELD, Held, held_at
from catalog.rules.members import may_see
from catalog.tree.known import Known, Page

ROOT = 1
"""The number of the root."""
BY_ID = -1
"""The number of `/.by-id`, which is in no table."""

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
"""Everything that can have a name."""
Member = Folder | Listed | Link
"""A node as a listing shows it."""

_Row = TypeVar("_Row", Entry, Listed)


@dataclass(frozen=True, slots=True)
class Spot:
    """What is at a path for one principal, read in one transaction."""

    path: str
    folder: Folder | None = None
    """The folder of the path's last name; None for the root, and if there is no such folder."""
    name: str = ""
    present: Node | None = None
    """The node with that name, even if it is hidden; then the client must not learn of it."""
    is_hidden: bool = False
    """Whether `present` is an image that the principal may not see."""
    found: Folder | Entry | None = None
    """The node that the principal sees at the path; a link in /.by-id is followed."""
    readable: Readable | None = None
    """What is needed to read the image's data, if the caller asked for that."""
    held: Held = NOT_HELD
    error: CatalogError | None = None
    """Why nothing can be at the path."""

    def members_of(self, _image: Image) -> Set[str]:
        """The image's members, if its data was asked for (`members.Members`)."""
        return frozenset() if self.readable is None else self.readable.members

    @property
    def node(self) -> Node | None:
        """As `found`, but a link is not followed."""
        return None if self.is_hidden else self.present

    @property
    def place(self) -> Place:
        """The place of the path, even if nothing is there.

        Raises NotFound, NotAFolder, InvalidName.
        """
        if self.error is not None:
            raise self.error
        if self.folder is None:
            raise InvalidName("(empty)")
        return Place(self.folder.number, self.name)


class _Fetch(Protocol[_Row]):
    """A method of the repository that reads a page of a folder's entries."""

    def __call__(
        self, repository: Repository, folder: int, /, *, after: int, limit: int
    ) -> list[_Row]: ...


class Namespace:
    """The names in one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        with catalog.read() as repository:
            root = repository.root()
        if root is None:
            raise NotFound("/", "the catalog has no tree: run 'imagefs init'")
        self.root = root
        self.known = Known(catalog)
        self.by_id = Folder(
            BY_ID, root.number, "", names.BY_ID, FolderKind.BY_ID, False, "root", _EPOCH, _EPOCH
        )

    def folder(self, number: int) -> Folder:
        """The folder with that number.  Raises NotFound."""
        if number == BY_ID:
            return self.by_id
        drops = self.known.drops
        with self.catalog.read() as repository:
            folder = repository.folder(number)
        self.known.keep(folder, drops)
        return folder

    def lookup(self, folder: int, name: str) -> Node:
        """The node with a name in a folder.  Raises NotFound."""
        drops = self.known.drops
        with self.catalog.read() as repository:
            node = self._lookup(repository, folder, name)
        if not (isinstance(node, Link) or node is self.by_id):
            self.known.keep(node, drops, name)
        return node

    def image(self, number: int) -> Entry | Image:
        """The image's first entry, with its `links`; the image alone if it has no entry.

        Raises NotFound.
        """
        drops = self.known.drops
        with self.catalog.read() as repository:
            entries = repository.entries_of(number)
            if not entries:
                return repository.image(number)
        entry = replace(entries[0], links=len(entries))
        self.known.keep(entry, drops)
        return entry

    def _lookup(self, repository: Repository, folder: int, name: str) -> Node:
        if folder == self.root.number:
            return self._store_folder(repository, name)
        if folder == BY_ID:
            link = self._link(repository, repository.image_by_id(name))
            if link is None:
                raise NotFound(name)
            return link
        found = repository.node_at(folder, name)
        if found is None:
            raise NotFound(name)
        return found

    def _store_folder(self, repository: Repository, name: str) -> Folder:
        if name == names.BY_ID:
            return self.by_id
        found = repository.folder_at(self.root.number, name)
        if found is None or not self._is_shown(found):
            raise NotFound(name)
        return found

    def page(self, folder: int, *, after: int = 0, limit: int = 1000) -> list[tuple[int, Member]]:
        """Up to about `limit` members after the cookie `after`, each with its own cookie.

        A member keeps its cookie while the folder changes.  So a listing in pages neither repeats
        nor skips a member that is there all the time.
        """
        drops = self.known.drops
        page = self._page(folder, Repository.listed_in, after, limit)
        if folder != BY_ID:  # where targets change with the names of folders
            self.known.keep_page(folder, after, limit, cast(Page, page), drops)
        return page

    def cookie(self, folder: int, name: str) -> int:
        """The cookie of a member.  Raises NotFound."""
        node = self.lookup(folder, name)
        if isinstance(node, Entry):
            return _ENTRIES + node.cookie
        return node.image.number if isinstance(node, Link) else node.number

    def members(self, folder: int) -> Iterator[Node]:
        """All members of a folder as complete nodes, fetched in pages."""
        after = 0
        while page := self._page(folder, Repository.entries_in, after, 1000):
            yield from (node for _cookie, node in page)
            after = page[-1][0]

    def _page(
        self, folder: int, fetch: _Fetch[_Row], after: int, limit: int
    ) -> list[tuple[int, Folder | Link | _Row]]:
        with self.catalog.read() as repository:
            if folder == BY_ID:
                images = repository.images(_WITH_ENTRY, after=after, limit=limit)
                links = [(image.number, self._link(repository, image)) for image in images]
                return [(cookie, link) for cookie, link in links if link is not None]
            folders: list[tuple[int, Folder | Link | _Row]] = []
            if after < _ENTRIES:
                found, more = self._folders(repository, folder, after, limit)
                folders += found
                if more:
                    return folders
            first = max(after - _ENTRIES, 0)
            entries = fetch(repository, folder, after=first, limit=limit - len(folders))
            return folders + [(_ENTRIES + entry.cookie, entry) for entry in entries]

    def _folders(
        self, repository: Repository, folder: int, after: int, limit: int
    ) -> tuple[list[tuple[int, Folder]], bool]:
        """Folders after `after`, and whether there may be more."""
        shown: list[tuple[int, Folder]] = []
        if folder == self.root.number and after < 1:
            shown.append((1, self.by_id))
        while True:
            found = repository.folders_in(folder, after=after, limit=limit)
            # The trash is not listed, and can be looked up by its name: tools that make one folder
            # like another (rsync --delete, rclone sync) must not empty it.
            shown += [
                (child.number, child)
                for child in found
                if self._is_shown(child) and child.kind is not FolderKind.TRASH
            ]
            if len(found) < limit:
                return shown, False
            # An empty page would end the listing: go on after the folders that are not shown.
            if shown:
                return shown, True
            after = found[-1].number

    def link_counts(self, numbers: Collection[int]) -> dict[int, int]:
        """The number of entries of each of these images that has more than one."""
        # With one store no image can have a second entry.
        if len(self.catalog.stores) < 2 or not numbers:
            return {}
        with self.catalog.read() as repository:
            return repository.link_counts(numbers)

    def resolve(self, path: str) -> Node:
        """The node at an absolute path.  Raises NotFound, NotAFolder."""
        with self.catalog.read() as repository:
            return self._resolve(repository, path)

    def find(self, path: str, principal: Principal) -> Node:
        """As `resolve`, for a principal: an image that it may not see is NotFound.

        A path below an image is NotFound, too, and not NotAFolder, which would show that there is
        an image.
        """
        with self.catalog.read() as repository:
            return self._find(repository, path, principal)

    def _find(self, repository: Repository, path: str, principal: Principal) -> Node:
        try:
            node = self._resolve(repository, path)
        except NotAFolder:
            raise NotFound(path) from None
        if self._is_hidden(repository, node, principal):
            raise NotFound(path)
        return node

    def _is_hidden(self, repository: Repository, node: Node, principal: Principal) -> bool:
        if isinstance(node, Folder):
            return False
        return not may_see(repository, node.image, principal)

    def look(
        self,
        paths: Collection[str],
        principal: Principal,
        *,
        data: bool = False,
        deep: Collection[str] = (),
    ) -> list[Spot]:
        """Look up each of the paths, all in one transaction.

        With `data`, also what is needed to read an image.  For the paths in `deep`, also the
        locks below them.
        """
        with self.catalog.read() as repository:
            return [
                self._look(repository, path, principal, data=data, deep=path in deep)
                for path in paths
            ]

    def _look(
        self, repository: Repository, path: str, principal: Principal, *, data: bool, deep: bool
    ) -> Spot:
        above, _, name = path.rstrip("/").rpartition("/")
        held = held_at(repository, "/" + path.strip("/"), below=deep)
        if not name:
            return Spot(path, present=self.root, found=self.root, held=held)
        try:
            folder = self._find(repository, above, principal)
            if not isinstance(folder, Folder):
                raise NotAFolder(above)
            names.check(name)
        except CatalogError as error:
            return Spot(path, held=held, error=error)
        try:
            present = self._lookup(repository, folder.number, name)
        except NotFound:
            return Spot(path, folder, name, held=held)
        if self._is_hidden(repository, present, principal):
            return Spot(path, folder, name, present, is_hidden=True, held=held)
        found = self._followed(repository, present)
        return Spot(
            path,
            folder,
            name,
            present,
            found=found,
            readable=readable(self.catalog, repository, found.image.number)
            if data and isinstance(found, Entry)
            else None,
            held=held,
        )

    def _followed(self, repository: Repository, node: Node) -> Folder | Entry:
        return repository.entries_of(node.image.number)[0] if isinstance(node, Link) else node

    def _resolve(self, repository: Repository, path: str) -> Node:
        node: Node = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(node, Folder):
                raise NotAFolder(path)
            try:
                node = self._lookup(repository, node.number, name)
            except NotFound:
                raise NotFound(path) from None
        return node

    def place(self, path: str, principal: Principal | None = None) -> Place:
        """The folder and the name of an absolute path whose last part may not exist yet.

        With a principal, images that it may not see are NotFound.  Raises NotFound, NotAFolder,
        InvalidName.
        """
        above, _, name = path.rstrip("/").rpartition("/")
        folder = self.resolve(above) if principal is None else self.find(above, principal)
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
                return repository.path_of(node) or "/"
        with self.catalog.read() as repository:
            return f"{repository.path_of(repository.folder(node.folder))}/{node.name}"

    def entries_of(self, image: int) -> list[Entry]:
        """The entries of an image, oldest first."""
        with self.catalog.read() as repository:
            return repository.entries_of(image)

    def _is_shown(self, folder: Folder) -> bool:
        # A store that is not configured any more keeps its rows, but is not in the tree.
        return folder.kind is not FolderKind.STORE or folder.name in self.catalog.stores

    def _link(self, repository: Repository, image: Image) -> Link | None:
        for entry in repository.entries_of(image.number):
            above = repository.path_of(repository.folder(entry.folder))
            return Link(image, f"..{above}/{entry.name}")
        return None


_ENTRIES = 1 << 48
"""Added to the cookies of entries, so that entries come after all folders."""

_WITH_ENTRY = ImageFilter(statuses=frozenset(Status) - {Status.DELETED})


def resolve_anywhere(vfs: Namespace, path: str) -> Node:
    """The node at a path, also in a store that is not configured any more.  Raises NotFound."""
    parts = [*filter(None, path.split("/"))]
    with vfs.catalog.read() as repository:
        top = repository.folder_at(vfs.root.number, parts[0]) if parts else None
    if top is None or top.kind is not FolderKind.STORE or top.name in vfs.catalog.stores:
        return vfs.resolve(path)
    node: Node = top
    for name in parts[1:]:
        if not isinstance(node, Folder):
            raise NotAFolder(path)
        node = vfs.lookup(node.number, name)
    return node
