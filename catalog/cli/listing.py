"""`imagefs list`, `imagefs show` and `imagefs log`."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from catalog.cli.arguments.assignments import property_option
from catalog.cli.arguments.targets import absolute, find, paths_of
from catalog.cli.console.history import document, told
from catalog.cli.console.output import (
    all_fields,
    human_size,
    image_fields,
    json_array,
    json_document,
    json_option,
    line,
    printable,
)
from catalog.cli.session import Session, pass_session
from catalog.errors import NotFound
from catalog.model import names
from catalog.model.fields import FIELDS
from catalog.model.image import Image
from catalog.model.status import Status
from catalog.model.tree import Entry, Folder, FolderKind

if TYPE_CHECKING:
    from catalog.model.listings import ImageFilter
    from catalog.tree.namespace import Node
    from catalog.tree.vfs import Vfs

Listed = tuple[str, Entry]
"""A path and the entry at it."""

_SHORT = "{:14}  {:7}  {:>15}  {}"
_SHORT_HEADER = ("STATUS", "FORMAT", "SIZE", "PATH")
_LONG = "{:36}  {:14}  {:7}  {:>10}  {:>10}  {:12}  {:16}  {}"
_LONG_HEADER = ("ID", "STATUS", "FORMAT", "SIZE", "VIRTUAL", "OWNER", "CREATED", "PATH")

_DELETED = "{:36}  {:16}  {:16}  {:12}  {:>10}  {}"
_DELETED_HEADER = ("ID", "DELETED", "UNTIL", "BY", "SIZE", "PATH")

_EVENT = "{:19}  {:12}  {:8}  {:12}  {}"
_EVENT_HEADER = ("WHEN (UTC)", "WHO", "THROUGH", "HOST", "WHAT")

_SORTABLE = [*(name for name in FIELDS if name not in ("tags", "stores")), "deleted_at"]


@click.command("list")
@click.argument("path", default="/")
@click.option(
    "--status",
    type=click.Choice([str(status) for status in Status]),
    multiple=True,
    help="Only of this status.",
)
@property_option("Only with this property.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only with this tag.")
@click.option("--deleted", is_flag=True, help="The images in the trash instead.")
@click.option("--sort", metavar="FIELD[:desc]", help="Sort by a field; else as they were added.")
@click.option("--long", "is_long", is_flag=True, help="More columns, and sizes for people.")
@json_option
@pass_session
def list_images(
    session: Session,
    path: str,
    status: tuple[str, ...],
    properties: dict[str, str],
    tags: tuple[str, ...],
    deleted: bool,
    sort: str | None,
    is_long: bool,
    as_json: bool,
) -> None:
    """List the images in PATH and in all folders below it.

    An image with copies in two stores is listed twice.  The path of a store that is no longer
    configured lists what the catalog still knows of it.
    """
    from catalog.model.listings import ImageFilter
    from catalog.rules.members import may_see

    wanted = ImageFilter(
        statuses=frozenset(map(Status, status)) or None,
        properties=tuple(properties.items()),
        tags=tags,
    )
    listed: Iterable[Listed] = (
        (found, entry)
        for found, entry in _images(session.vfs, absolute(path), wanted, deleted)
        if may_see(session.catalog, entry.image, session.principal)
    )
    if sort is not None:
        listed = _sorted(listed, sort)
    keep = timedelta(seconds=session.settings.catalog.scrub_time)
    if as_json:
        json_array(_as_json(found, entry.image, keep, deleted) for found, entry in listed)
    elif deleted:
        _print_trash(listed, keep)
    else:
        _print_table(listed, is_long)


@click.command()
@click.argument("image")
@json_option
@pass_session
def show(session: Session, image: str, as_json: bool) -> None:
    """Show all there is to tell of IMAGE: a path, an id or the beginning of an id."""
    from catalog.copies.uses import in_use
    from catalog.rules.members import check_see

    found = find(session.vfs, image).image
    check_see(session.catalog, found, session.principal)
    details = session.catalog.details(found.number)
    paths = paths_of(session.vfs, found)
    users = in_use(session.catalog, found.number)
    keep = timedelta(seconds=session.settings.catalog.scrub_time)
    deletion = {} if found.deleted_at is None else _deletion(found, keep)
    if as_json:
        used_by = [
            {"user": use.user, "host": use.process.host, "since": use.since.isoformat()}
            for use in users
        ]
        used = {"used_by": used_by} if users else {}
        json_document(all_fields(details, paths) | deletion | used)
        return
    rows = [("path", path) for path in paths]
    rows += [(name, field.render(details) or "") for name, field in FIELDS.items()]
    rows += [(name, value or "") for name, value in deletion.items()]
    rows += [(f"property.{name}", value) for name, value in details.properties.items()]
    rows += [("used by", f"{use} since {use.since:%Y-%m-%d %H:%M:%S} UTC") for use in users]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        line(f"{printable(name):{width}}  {printable(value)}".rstrip())


def _images(vfs: Vfs, path: str, wanted: ImageFilter, deleted: bool) -> Iterator[Listed]:
    """The wanted images at and below `path`, in the order in which folders list them."""
    from catalog.tree import namespace
    from catalog.tree.search import search

    node = namespace.resolve_anywhere(vfs, path)
    if isinstance(node, Folder) and not wanted.is_everything:
        tops = [*_trashes(vfs, node)] if deleted else [node]
        found = search(vfs.catalog, tops, wanted)
        if found is not None:
            yield from found
            return
    matching = _matching(vfs, wanted)
    for each, entry in _all_images(vfs, path, node, deleted):
        if (wanted.statuses is None or entry.image.status in wanted.statuses) and (
            matching is None or entry.image.number in matching
        ):
            yield each, entry


def _all_images(vfs: Vfs, path: str, node: Node, deleted: bool) -> Iterator[Listed]:
    if isinstance(node, Entry):
        yield path, node
    elif isinstance(node, Folder):
        for top in _trashes(vfs, node) if deleted else [node]:
            yield from _walk(vfs, top, vfs.path(top).rstrip("/"))


def _trashes(vfs: Vfs, folder: Folder) -> Iterator[Folder]:
    """The trash of the folder's store; of every store for the root."""
    for store in [folder.store] if folder.store else sorted(vfs.catalog.stores):
        trash = vfs.resolve(f"/{store}/{names.TRASH}")
        if isinstance(trash, Folder):
            yield trash


def _walk(vfs: Vfs, folder: Folder, path: str) -> Iterator[Listed]:
    members: Iterable[Node] = vfs.members(folder.number)
    for member in members:
        below = f"{path}/{member.name}"
        if isinstance(member, Entry):
            yield below, member
        elif isinstance(member, Folder) and member.kind in (FolderKind.STORE, FolderKind.PLAIN):
            yield from _walk(vfs, member, below)


def _matching(vfs: Vfs, wanted: ImageFilter) -> frozenset[int] | None:
    """The numbers of the images with the wanted properties and tags; None for all images."""
    if not wanted.properties and not wanted.tags:
        return None
    with vfs.catalog.read() as repository:
        return frozenset(repository.image_numbers(wanted))


def _sorted(listed: Iterable[Listed], sort: str) -> list[Listed]:
    name, _, order = sort.partition(":")
    if name not in _SORTABLE or order not in ("", "asc", "desc"):
        allowed = f"is one of {', '.join(_SORTABLE)}, perhaps with :desc"
        raise click.BadParameter(allowed, param_hint="--sort")

    def key(item: Listed) -> tuple[bool, Any]:
        value = getattr(item[1].image, name)
        return value is not None, value

    return sorted(listed, key=key, reverse=order == "desc")


def _as_json(path: str, image: Image, keep: timedelta, deleted: bool) -> dict[str, Any]:
    return {"path": path, **image_fields(image), **(_deletion(image, keep) if deleted else {})}


def _deletion(image: Image, keep: timedelta) -> dict[str, str | None]:
    """When an image was deleted, by whom, and until when it is kept."""
    at = image.deleted_at
    return {
        "deleted_at": None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "deleted_until": None if at is None else f"{at + keep:%Y-%m-%dT%H:%M:%SZ}",
        "deleted_by": image.deleted_by,
    }


def _print_trash(listed: Iterable[Listed], keep: timedelta) -> None:
    """Print deleted images with their ids: several may have had the same name."""
    line(_DELETED.format(*_DELETED_HEADER))
    for path, entry in listed:
        image = entry.image
        at = image.deleted_at
        line(
            _DELETED.format(
                image.id,
                "-" if at is None else f"{at:%Y-%m-%d %H:%M}",
                "-" if at is None else f"{at + keep:%Y-%m-%d %H:%M}",
                printable(image.deleted_by or "-"),
                human_size(image.size),
                printable(path),
            )
        )


def _print_table(listed: Iterable[Listed], is_long: bool) -> None:
    """Print a table; the path is last, as all other columns have a known width."""
    layout = _LONG if is_long else _SHORT
    line(layout.format(*(_LONG_HEADER if is_long else _SHORT_HEADER)))
    for path, entry in listed:
        row = _long_row(path, entry) if is_long else _short_row(path, entry)
        line(layout.format(*row))


def _short_row(path: str, entry: Entry) -> tuple[str, ...]:
    image = entry.image
    return image.status, image.disk_format or "-", str(image.size), printable(path)


def _long_row(path: str, entry: Entry) -> tuple[str, ...]:
    image = entry.image
    return (
        image.id,
        image.status,
        image.disk_format or "-",
        human_size(image.size),
        human_size(image.virtual_size),
        printable(image.owner),
        f"{image.created_at:%Y-%m-%d %H:%M}",
        printable(path),
    )


@click.command()
@click.argument("image", metavar="IMAGE")
@json_option
@pass_session
def log(session: Session, image: str, as_json: bool) -> None:
    """List what was done with IMAGE: who, when, through which frontend.

    An image that was deleted for good is found by its whole id.
    """
    from catalog.tree.history import history_of

    found = history_of(session.catalog, _number(session, image), session.principal)
    if as_json:
        json_array(document(each) for each in found)
        return
    line(_EVENT.format(*_EVENT_HEADER))
    for each in found:
        event = each.event
        row = (event.principal or "-", event.frontend or "-", event.host)
        shown = [printable(text) for text in (*row, told(each))]
        line(_EVENT.format(f"{event.at:%Y-%m-%d %H:%M:%S}", *shown))


def _number(session: Session, argument: str) -> int:
    from catalog.tree.history import number_of_gone

    try:
        return find(session.vfs, argument).image.number
    except NotFound:
        try:
            whole = str(uuid.UUID(argument))
        except ValueError:
            whole = ""
        if whole != argument.lower():
            raise
        return number_of_gone(session.catalog, whole, session.principal)
