"""One page of a folder, sorted and filtered as the URL's query says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from catalog.errors import CatalogError, Forbidden, NotFound
from catalog.model.access import Principal, check_create, owns
from catalog.model.listings import ListedEntry, Sort
from catalog.model.status import IN_PROGRESS, Status
from catalog.model.tree import Entry, Folder, FolderKind
from catalog.stores.base import Capability, Usage
from catalog.tree.listings import Wanted, screen
from catalog.tree.vfs import Vfs
from dav.browse.exchange import number_of
from web.exchange import representation

PAGE_SIZE = 100
MAX_FOLDERS = 1000
"""Folders shown above the images at most; nobody reads more."""


class View(Wanted):
    """The order, filter and position in which the folder is shown."""

    __slots__ = ()

    def url(self, *, sort: Sort | None = None, offset: int = 0) -> str:
        """The query for the same folder in another order, or at another position."""
        descending = self.descending
        if sort is not None:
            descending = sort is self.sort and not descending
        fields = {
            "q": self.text,
            "status": self.status or "",
            "sort": sort or self.sort,
            "dir": "desc" if descending else "asc",
            "offset": str(offset or ""),
        }
        return "?" + urlencode({name: value for name, value in fields.items() if value})


@dataclass(frozen=True, slots=True)
class Row:
    """One image of the table."""

    entry: Entry
    path: str
    os: str
    size: int
    """Bytes; during an upload, those that have arrived."""
    owned: bool
    restore_to: str | None
    """In the trash: the path to which it can be restored."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder's page."""

    folder: Folder
    path: str
    """Absolute, without a slash at its end; empty for the root."""
    view: View
    folders: tuple[Folder, ...]
    rows: tuple[Row, ...]
    total: int
    usage: Usage | None
    """The store's used and free bytes; None if it does not answer."""
    writable: bool

    @property
    def busy(self) -> bool:
        """Whether an image on this page is still being uploaded."""
        return any(row.entry.image.status in IN_PROGRESS for row in self.rows)

    @property
    def is_trash(self) -> bool:
        return self.folder.kind is FolderKind.TRASH


def view_of(query: Mapping[str, str], folder: Folder) -> View:
    """Read the query; missing and wrong values get their defaults."""
    in_trash = folder.kind is FolderKind.TRASH
    default = Sort.DELETED_AT if in_trash else Sort.NAME
    wanted = query.get("sort", "")
    status = query.get("status", "")
    return View(
        sort=Sort(wanted) if wanted in set(Sort) else default,
        descending=query.get("dir") == "desc" if wanted else in_trash,
        text=query.get("q", "").replace("\0", "")[:255],
        status=Status(status) if status in set(Status) else None,
        offset=number_of(query.get("offset", "")),
    )


def read_listing(
    vfs: Vfs, folder: Folder, path: str, query: Mapping[str, str], principal: Principal
) -> Listing:
    """One page of a store, its trash, or a folder in it."""
    view = view_of(query, folder)
    folders, page = screen(
        vfs.catalog, folder, view, principal, most_folders=MAX_FOLDERS, most_images=PAGE_SIZE
    )
    restore = _Restore(vfs) if folder.kind is FolderKind.TRASH else None
    return Listing(
        folder,
        path,
        view,
        folders,
        tuple(_row(vfs, listed, path, principal, restore) for listed in page.listed),
        page.total,
        _usage(vfs, folder.store),
        _is_writable(vfs, folder, principal),
    )


def _row(
    vfs: Vfs, listed: ListedEntry, path: str, principal: Principal, restore: _Restore | None
) -> Row:
    entry = listed.entry
    return Row(
        entry,
        f"{path}/{entry.name}",
        " ".join(part for part in (listed.os_distro, listed.os_version) if part),
        arrived(vfs, entry),
        owns(principal, entry.image.owner),
        None if restore is None else restore.path(entry),
    )


def arrived(vfs: Vfs, entry: Entry) -> int:
    """The image's size in bytes, or how much of it this process has received so far."""
    if entry.image.status in IN_PROGRESS:
        upload = vfs.uploads.get(entry.image.number)
        if upload is not None:
            return upload.size
    return entry.image.size


class _Restore:
    """The paths where deleted images were; each folder is looked up once."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self._paths: dict[int | None, str] = {}

    def path(self, entry: Entry) -> str:
        number = entry.location.trashed_from
        if number not in self._paths:
            self._paths[number] = self._folder_path(number, entry.store)
        return f"{self._paths[number]}/{entry.image.name}"

    def _folder_path(self, number: int | None, store: str) -> str:
        # If the folder was removed meanwhile, the image is restored to the store's top.
        if number is not None:
            try:
                return self._vfs.path(self._vfs.folder(number))
            except NotFound:
                pass
        return f"/{store}"


def _usage(vfs: Vfs, store: str) -> Usage | None:
    try:
        return vfs.usage(store)
    except CatalogError:
        return None


def _is_writable(vfs: Vfs, folder: Folder, principal: Principal) -> bool:
    if not representation.is_writable(folder):
        return False
    try:
        check_create(principal)
    except Forbidden:
        return False
    return Capability.WRITE in vfs.catalog.store(folder.store).capabilities
