"""Makes the HTML.  The templates escape everything; no markup is built from strings here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from catalog.model.access import ANONYMOUS, owns
from catalog.model.fields import FIELDS, Details
from catalog.model.image import Visibility
from catalog.model.listings import Sort
from catalog.model.status import HAS_DATA, IN_PROGRESS, Status
from catalog.model.tree import Entry
from catalog.rules import locks
from dav.browse import documents, wording
from dav.browse.assets import URLS
from dav.browse.commands import commands
from dav.browse.exchange import Request, Response, answer, url_of
from dav.browse.listing import MAX_FOLDERS, PAGE_SIZE, Listing
from dav.browse.stores import StoreCard
from web.exchange import representation
from web.exchange.negotiation import Kind, kind_for

COLUMNS = (
    (Sort.NAME, "Name"),
    (Sort.OS, "OS"),
    (Sort.DISK_FORMAT, "Format"),
    (Sort.SIZE, "Size"),
    (Sort.VIRTUAL_SIZE, "Virtual size"),
    (Sort.STATUS, "Status"),
    (Sort.VISIBILITY, "Visibility"),
    (Sort.UPDATED_AT, "Updated"),
)
TRASH_COLUMNS = (
    (Sort.NAME, "Name"),
    (Sort.DISK_FORMAT, "Format"),
    (Sort.SIZE, "Size"),
    (Sort.DELETED_AT, "Deleted"),
)
_FILTERS = (
    Status.ACTIVE,
    Status.SAVING,
    Status.QUEUED,
    Status.DEACTIVATED,
    Status.KILLED,
)
# Fields that the head of the page or the list of digests shows; the table leaves them out.
_SHOWN_ELSEWHERE = frozenset(
    "name status message os_hash_algo os_hash_value checksum stores".split()
)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dav.browse"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        size=wording.human_size,
        thousands=wording.thousands,
        minute=wording.minute,
        printable=wording.printable,
        instant=wording.instant,
        href=url_of,
    )
    environment.globals.update(anonymous=ANONYMOUS, assets=URLS, status_names=wording.STATUS_NAMES)
    return environment


_TEMPLATES = _environment()


def _render(template: str, **values: Any) -> bytes:
    return _TEMPLATES.get_template(template).render(values).encode(errors="replace")


def _page(template: str, request: Request, path: str, **values: Any) -> bytes:
    return _render(
        template,
        crumbs=_crumbs(path),
        principal=request.principal,
        request_id=request.request_id,
        **values,
    )


def _crumbs(path: str) -> list[tuple[str, str]]:
    """The name and the path of every folder along the path, including the last one."""
    crumbs: list[tuple[str, str]] = []
    above = ""
    for name in path.split("/"):
        if name:
            above += f"/{name}"
            crumbs.append((name, above))
    return crumbs


def root_page(request: Request, cards: tuple[StoreCard, ...]) -> bytes:
    """The overview of all stores."""
    return _page("root.html", request, "", cards=cards)


def listing_page(request: Request, listing: Listing) -> bytes:
    """A folder's table, or the trash."""
    view = listing.view
    last = max(listing.total - 1, 0) // PAGE_SIZE * PAGE_SIZE
    return _page(
        "trash.html" if listing.is_trash else "folder.html",
        request,
        listing.path,
        listing=listing,
        view=view,
        columns=TRASH_COLUMNS if listing.is_trash else COLUMNS,
        filters=_FILTERS,
        last=last,
        page_size=PAGE_SIZE,
        max_folders=MAX_FOLDERS,
        in_progress=IN_PROGRESS,
        scrub_time=timedelta(seconds=request.vfs.catalog.settings.scrub_time),
    )


def by_id_page(request: Request, links: list[tuple[str, str]], following: int | None) -> bytes:
    """Some of the ids; the next page begins after the cookie `following`."""
    return _page("by_id.html", request, "/.by-id", links=links, following=following)


@dataclass(frozen=True, slots=True)
class Shown:
    """An image with its paths, for its page."""

    entry: Entry
    details: Details
    path: str
    paths: tuple[str, ...]
    size: int
    """Bytes; during an upload, those that have arrived."""
    downloadable: bool


def image_page(request: Request, shown: Shown) -> bytes:
    """Everything about one image."""
    image = shown.details.image
    is_complete = image.status in HAS_DATA
    return _page(
        "image.html",
        request,
        shown.path,
        shown=shown,
        image=image,
        etag=representation.etag(image) if representation.exists(image) else "",
        held=locks.over(request.vfs.catalog, shown.path),
        fields=_fields(shown.details),
        commands=_commands(request, shown) if is_complete else (),
        editable=owns(request.principal, image.owner) and image.status is not Status.PENDING_DELETE,
        used_by=", ".join(str(use) for use in request.vfs.in_use(image.number)),
        is_complete=is_complete,
        in_progress=IN_PROGRESS,
        visibilities=tuple(Visibility),
    )


def _fields(details: Details) -> list[tuple[str, str]]:
    rendered = ((name, field.render(details)) for name, field in FIELDS.items())
    return [
        (name, "–" if text in (None, "") else str(text))
        for name, text in rendered
        if name not in _SHOWN_ELSEWHERE
    ]


def _commands(request: Request, shown: Shown) -> Any:
    return commands(
        shown.details, shown.entry.name, shown.path, request.base_url, request.principal
    )


# -- errors ----------------------------------------------------------------------------

_ADVICE = {
    401: "Log in with a user of this server.",
    403: "If you should be allowed to do this, ask an administrator.",
    404: "It may have been renamed or deleted. Deleted images are in their store's trash.",
    409: "Somebody else is changing the same thing. Reload the page and try again.",
    503: "The store or the catalog does not answer. Try again in a moment.",
    507: "Delete what is no longer needed, or ask an administrator for more room.",
}


def error_page(status: int, message: str, request_id: str, accept: str) -> Response:
    """The answer to a failed request: HTML or JSON if the client asks for it, else one line."""
    kind = kind_for(accept, otherwise=Kind.TEXT)
    if kind is Kind.JSON:
        return answer(documents.error_document(status, message, request_id), kind, status=status)
    if kind is Kind.TEXT:
        text = f"{message} (request {request_id})\n"
        return answer(text.encode(errors="replace"), kind, status=status)
    body = _render(
        "error.html",
        crumbs=[],
        principal=None,
        status=status,
        phrase=_phrase(status),
        message=message,
        advice=_ADVICE.get(status, ""),
        request_id=request_id,
    )
    return answer(body, kind, status=status)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
