"""The commands that change an image's metadata or its place in the tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from catalog.cli.arguments import assignments
from catalog.cli.arguments.targets import Target, absolute, find
from catalog.cli.console.output import each, json_document, json_option, line, report
from catalog.cli.session import Session, pass_session
from catalog.errors import InvalidTransition, InvalidValue, NotFound, NotSupported, Protected
from catalog.model.fields import FIELDS
from catalog.model.status import HAS_DATA, Status
from catalog.model.tree import Entry

if TYPE_CHECKING:
    from catalog.model.tree import Place
    from catalog.tree.vfs import Vfs


@click.command("set")
@click.argument("image")
@click.argument("values", metavar="FIELD=VALUE...", nargs=-1, required=True)
@pass_session
def set_fields(session: Session, image: str, values: tuple[str, ...]) -> None:
    """Set fields and properties of IMAGE, all or none.

    A name that is no field of an image is a property's, unless it looks like a field's.
    """
    from catalog.rules import fields

    wanted = {_attribute(name): text for name, text in assignments.parse(values).items()}
    number = find(session.vfs, image).image.number
    fields.set_attributes(session.catalog, number, wanted, session.principal)


@click.command()
@click.argument("image")
@click.argument("properties", metavar="PROPERTY...", nargs=-1, required=True)
@pass_session
def unset(session: Session, image: str, properties: tuple[str, ...]) -> None:
    """Remove properties of IMAGE, all or none."""
    from catalog.rules import fields

    wanted: dict[str, str | None] = {_attribute(name): None for name in properties}
    for name in wanted:
        if name.startswith("image."):
            raise InvalidValue(name.removeprefix("image."), "is a field: every image has it")
    number = find(session.vfs, image).image.number
    fields.set_attributes(session.catalog, number, wanted, session.principal)


@click.command()
@click.argument("image")
@click.argument("tags", metavar="TAG...", nargs=-1, required=True)
@click.option("--remove", is_flag=True, help="Remove these tags instead.")
@pass_session
def tag(session: Session, image: str, tags: tuple[str, ...], remove: bool) -> None:
    """Add tags to IMAGE."""
    from catalog.rules import fields

    number = find(session.vfs, image).image.number
    if remove:
        fields.change_tags(session.catalog, number, session.principal, add=(), remove=tags)
    else:
        fields.change_tags(session.catalog, number, session.principal, add=tags, remove=())


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@pass_session
def deactivate(session: Session, images: tuple[str, ...]) -> int:
    """Let only an administrator read each IMAGE, until it is reactivated."""
    return each(images, _status_setter(session, Status.DEACTIVATED))


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@pass_session
def reactivate(session: Session, images: tuple[str, ...]) -> int:
    """Let everybody read each IMAGE again."""
    return each(images, _status_setter(session, Status.ACTIVE))


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--now", is_flag=True, help="Delete the data as well, for good.")
@click.option(
    "--force",
    is_flag=True,
    help="As --now, also if a store refuses, is gone or is not configured: its data stays there.",
)
@pass_session
def delete(session: Session, images: tuple[str, ...], now: bool, force: bool) -> int:
    """Move each IMAGE to the trash, from where it can be restored.

    A path stands for that copy, as with rm: the image is deleted with its last one.  An
    id stands for the image with all its copies.
    """

    def act(argument: str) -> None:
        if force:
            _force(session, find(session.vfs, argument, is_gone=True))
        else:
            _delete(session, argument, find(session.vfs, argument), now)

    if force:
        session.require_admin("delete --force")
    return each(images, act)


@click.command()
@click.argument("image")
@click.option("--to", metavar="PATH", help="Where to; else where it was.")
@json_option
@pass_session
def restore(session: Session, image: str, to: str | None, as_json: bool) -> None:
    """Take IMAGE out of the trash, with its properties and in the status it had."""
    from catalog.model.tree import Place

    vfs = session.vfs
    found = find(vfs, image).image
    if found.status is not Status.PENDING_DELETE:
        raise NotFound(image, "is not in the trash")
    entry = _only_entry(vfs, found.number, image)
    target = _old_place(vfs, entry) if to is None else vfs.place(absolute(to))
    vfs.rename(Place(entry.folder, entry.name), target, session.principal, replace=False)
    path = vfs.path(_only_entry(vfs, found.number, image))
    if as_json:
        json_document({"path": path, "id": found.id})
    else:
        line(f"{found.id}  {path}")


def _attribute(name: str) -> str:
    """The full name of a field or a property."""
    if name.startswith(("image.", "property.")):
        return name
    return f"image.{name}" if name in FIELDS else f"property.{name}"


def _status_setter(session: Session, wanted: Status) -> Callable[[str], None]:
    from catalog.rules import fields

    def act(argument: str) -> None:
        image = find(session.vfs, argument).image
        if image.status not in HAS_DATA:
            raise InvalidTransition(argument, image.status, wanted)
        fields.set_attributes(
            session.catalog, image.number, {"image.status": wanted}, session.principal
        )

    return act


def _delete(session: Session, argument: str, target: Target, now: bool) -> None:
    from catalog.copies.purge import purge
    from catalog.model import access
    from catalog.model.tree import Place

    vfs, image = session.vfs, target.image
    access.check_change(session.principal, image)
    if image.status is Status.PENDING_DELETE and not now:
        raise NotSupported(argument, "is in the trash already: --now deletes it for good")
    if image.protected and target.entry is None:
        raise Protected(argument)  # before the first of its copies is gone
    if image.status is not Status.PENDING_DELETE:
        entries = [target.entry] if target.entry else vfs.entries_of(image.number)
        if not entries:
            told = "is only in stores that are not configured: --force deletes it for good"
            raise NotSupported(argument, told)
        for entry in entries:
            vfs.remove(Place(entry.folder, entry.name), session.principal)
        image = vfs.catalog.image(image.number)
    if now and image.status is Status.PENDING_DELETE:
        purge(vfs.catalog, image)


def _force(session: Session, target: Target) -> None:
    from catalog.upkeep import lost

    catalog, principal = session.catalog, session.principal
    if target.entry is not None:
        left = lost.delete_copy(catalog, target.entry, principal)
    else:
        left = lost.delete_image(catalog, target.image, principal)
    for each_left in left:
        report(f"{target.image.name}: {each_left}")


def _only_entry(vfs: Vfs, number: int, argument: str) -> Entry:
    entries = vfs.entries_of(number)
    if not entries:
        raise NotFound(argument)
    return entries[0]


def _old_place(vfs: Vfs, entry: Entry) -> Place:
    """The place of an image before its deletion; in its store's top if the folder is gone."""
    from catalog.model.tree import Place

    folder = entry.location.trashed_from
    if folder is not None:
        try:
            return Place(vfs.folder(folder).number, entry.image.name)
        except NotFound:
            pass
    return vfs.place(f"/{entry.store}/{entry.image.name}")
