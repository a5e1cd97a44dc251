"""`imagefs cache`: what of remote images is on this host, and what should be."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from catalog.cli.arguments.targets import find
from catalog.cli.console.output import (
    each,
    human_size,
    json_document,
    json_option,
    line,
    printable,
    progress_bar,
)
from catalog.cli.session import Session, pass_session
from catalog.errors import InvalidValue, NotFound, NotSupported, StoreFull

if TYPE_CHECKING:
    from catalog.cache.folder import CachedImage, CacheFolder

_STEP = 4 << 20
"""Bytes that are read in one step."""

_images = click.argument("images", metavar="IMAGE...", nargs=-1, required=True)


@click.group(no_args_is_help=False)
def cache() -> None:
    """Verified chunks of remote images on this host's disk."""


@cache.command()
@json_option
@pass_session
def status(session: Session, as_json: bool) -> None:
    """Tell what is in the cache, what was used last first."""
    folder = _folder(session)
    used = folder.usage()
    found = [_describe(session, image) for image in folder.images()]
    if as_json:
        head = {"path": str(folder.path), "size": folder.size, "used": used}
        json_document({**head, "images": found})
        return
    line(f"{folder.path}: {human_size(used)} of {human_size(folder.size)}")
    layout = "{:36}  {:>10}  {:>5}  {:7}  {}"
    line(layout.format("ID", "CACHED", "", "STATE", "NAME"))
    for image in found:
        state = ",".join(word for word in ("open", "pinned") if image[word])
        share = f"{100 * image['claimed'] // max(1, image['chunks'])} %"
        row = (image["id"], human_size(image["cached"]), share, state, printable(image["name"]))
        line(layout.format(*row).rstrip())


@cache.command()
@_images
@pass_session
def warm(session: Session, images: tuple[str, ...]) -> int:
    """Fetch all of each IMAGE into the cache, each chunk verified."""
    folder = _folder(session)
    return each(images, lambda argument: _warm(session, folder, argument))


@cache.command()
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Drop every image that nobody reads.")
@pass_session
def drop(session: Session, images: tuple[str, ...], everything: bool) -> int:
    """Remove each IMAGE from the cache; one that is being read stays."""
    folder = _folder(session)
    if everything == bool(images):
        raise click.UsageError("name images, or --all")
    if everything:
        images = tuple(image.image for image in folder.images() if not image.is_open)
    return each(images, lambda argument: folder.drop(_id_of(session, folder, argument)))


@cache.command()
@_images
@click.option("--remove", is_flag=True, help="Let them be evicted again.")
@pass_session
def pin(session: Session, images: tuple[str, ...], remove: bool) -> int:
    """Keep each IMAGE in the cache, however full that is; `warm` fetches it."""
    folder = _folder(session)
    act = folder.unpin if remove else folder.pin
    return each(images, lambda argument: act(_id_of(session, folder, argument)))


def _folder(session: Session) -> CacheFolder:
    folder = session.catalog.cache.folder
    if folder is None:
        raise NotSupported("cache", "there is none: its size is 0 in the configuration")
    return folder


def _id_of(session: Session, folder: CacheFolder, argument: str) -> str:
    """The id that the argument means: of an image in the catalog, or of one only in the cache."""
    try:
        return find(session.vfs, argument).image.id
    except NotFound:
        found = [image.image for image in folder.images() if image.image.startswith(argument)]
        if "/" in argument or len(found) != 1:
            raise
        return found[0]


def _warm(session: Session, folder: CacheFolder, argument: str) -> None:
    from catalog.cache.reader import CachedReader

    image = find(session.vfs, argument).image
    with closing(session.vfs.open(image.number, session.principal)) as reader:
        if not isinstance(reader, CachedReader):
            reason = "is not cached: it is on this host, or has no digests ('imagefs verify')"
            raise InvalidValue(image.name, reason)
        with progress_bar(image.name, reader.size) as progress:
            for offset in range(0, reader.size, _STEP):
                progress(len(reader.read_at(offset, _STEP)))
        if not reader.is_complete():
            raise StoreFull(image.name, f"not all of it found room in {folder.path}")


def _describe(session: Session, image: CachedImage) -> dict[str, Any]:
    """Everything about a cached image; `name` is empty if the catalog no longer has it."""
    try:
        with session.catalog.read() as repository:
            name = repository.image_by_id(image.image).name
    except NotFound:
        name = ""
    return {
        "id": image.image,
        "name": name,
        "size": image.size,
        "cached": image.cached,
        "chunks": image.chunks,
        "claimed": image.claimed,
        "open": image.is_open,
        "pinned": image.is_pinned,
        "used_at": image.used_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
