"""Finds the page for a request."""

from __future__ import annotations

from catalog.errors import CatalogError, NotFound
from catalog.model import names
from catalog.model.tree import Entry, Folder, FolderKind
from catalog.rules import locks
from catalog.rules.members import check_read, visible
from catalog.tree.namespace import BY_ID, Link, Node
from dav.browse import assets, attributes, documents, pages, sums
from dav.browse.exchange import Request, Response, answer, number_of, query_of, redirect, url_of
from dav.browse.listing import PAGE_SIZE, arrived, read_listing
from dav.browse.stores import store_cards
from web.exchange.environ import Environ
from web.exchange.negotiation import Kind, kind_for

PAGE_QUERY = "page"


def is_asked_for(environ: Environ) -> bool:
    """Whether a request is for the page of an image, and not for its data."""
    return PAGE_QUERY in query_of(environ.get("QUERY_STRING", ""))


def respond(request: Request, node: Node | None) -> Response | None:
    """Answer a request for a page; None for a request that WebDAV has to answer.

    `node` is the node at the path, None if the principal sees none there.  Pages are GET and
    HEAD of a folder, of `<image>?page`, of `SHA256SUMS` and of the assets, and POST to
    `<image>?properties`.  Raises the catalog's errors.
    """
    match request.method:
        case "GET":
            return _get(request, node)
        case "HEAD":
            response = _get(request, node)
            return None if response is None else _without_body(response)
        case "POST" if attributes.QUERY in request.query:
            return _post(request, _entry(request, node))
    return None


def _without_body(response: Response) -> Response:
    return Response(response.status, response.headers, b"")


def _get(request: Request, node: Node | None) -> Response | None:
    if request.path.startswith(assets.FOLDER + "/"):
        return assets.asset(request.path)
    path = _without_slash(request.path)
    match node:
        case None:
            return _sums(request, path)
        case Folder():
            return _folder(request, node, path)
        case Entry() | Link() if PAGE_QUERY in request.query:
            return _image(request, node, path)
        case Entry():
            # An image from an earlier version may have the name SHA256SUMS.  Answer with the real
            # digests: a user's file must not pass for them.
            return _sums(request, path)
    return None


def _without_slash(path: str) -> str:
    return "".join(f"/{part}" for part in path.split("/") if part)


def _sums(request: Request, path: str) -> Response | None:
    above, _, name = path.rpartition("/")
    if name != names.SUMS:
        return None
    folder = request.vfs.find(above, request.principal)
    if not isinstance(folder, Folder) or folder.kind not in (FolderKind.STORE, FolderKind.PLAIN):
        return None
    return answer(sums.sums(request.vfs, folder, request.principal), Kind.TEXT)


# -- folders ---------------------------------------------------------------------------


def _folder(request: Request, folder: Folder, path: str) -> Response:
    kind = kind_for(request.accept, otherwise=Kind.HTML)
    if folder.kind is FolderKind.ROOT:
        cards = store_cards(request.vfs, request.principal)
        if kind is Kind.JSON:
            return answer(documents.root_document(cards), kind)
        return answer(pages.root_page(request, cards), kind)
    if folder.number == BY_ID:
        return _by_id(request, kind)
    listing = read_listing(request.vfs, folder, path, request.query, request.principal)
    if kind is Kind.JSON:
        return answer(documents.listing_document(listing), kind)
    return answer(pages.listing_page(request, listing), kind)


def _by_id(request: Request, kind: Kind) -> Response:
    """A page of ids, which begins after the cookie `after`."""
    after = number_of(request.query.get("after", ""))
    page = request.vfs.page(BY_ID, after=after, limit=PAGE_SIZE)
    found = [node for _cookie, node in page if isinstance(node, Link)]
    seen = visible(request.vfs.catalog, [link.image for link in found], request.principal)
    links = [
        (link.name, link.target.removeprefix("..")) for link in found if link.image.number in seen
    ]
    if kind is Kind.JSON:
        return answer(documents.links_document(links), kind)
    last = page[-1][0] if page else 0
    following = last if request.vfs.page(BY_ID, after=last, limit=1) else None
    return answer(pages.by_id_page(request, links, following), kind)


# -- images ----------------------------------------------------------------------------


def _image(request: Request, node: Entry | Link, path: str) -> Response:
    if isinstance(node, Link):
        return redirect(f"{url_of(node.target.removeprefix('..'))}?{PAGE_QUERY}")
    return _show(request, node, path)


def _show(request: Request, entry: Entry, path: str) -> Response:
    vfs = request.vfs
    details = vfs.catalog.details(entry.image.number)
    paths = tuple(vfs.path(other) for other in vfs.entries_of(entry.image.number))
    kind = kind_for(request.accept, otherwise=Kind.HTML)
    size = arrived(vfs, entry)
    held = locks.over(vfs.catalog, path)
    if kind is Kind.JSON:
        return answer(documents.image_document(details, path, paths, size, held), kind)
    shown = pages.Shown(entry, details, path, paths, size, _may_download(request, entry))
    return answer(pages.image_page(request, shown), kind)


def _may_download(request: Request, entry: Entry) -> bool:
    try:
        check_read(request.vfs.catalog, entry.image, request.principal)
    except CatalogError:
        return False
    return True


def _post(request: Request, entry: Entry) -> Response:
    path = _without_slash(request.path)
    attributes.set_attributes(request, entry)
    details = request.vfs.catalog.details(entry.image.number)
    held = locks.over(request.vfs.catalog, path)
    body = documents.image_document(details, path, (path,), arrived(request.vfs, entry), held)
    return answer(body, Kind.JSON)


def _entry(request: Request, node: Node | None) -> Entry:
    if isinstance(node, Entry):
        return node
    raise NotFound(request.path, f"is not an image below a store (ids: /{names.BY_ID})")
