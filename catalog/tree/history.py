"""What was done with an image: by whom, when, through which frontend.

Threading: any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from catalog.catalog import Catalog
from catalog.errors import NotFound
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.activity import Event, EventKind
from catalog.model.status import Status


@dataclass(frozen=True, slots=True)
class Happened:
    """One event with what it means."""

    event: Event
    before: Status | None
    """The image's status before it; None if that is not known."""


def number_of_gone(catalog: Catalog, image_id: str, principal: Principal) -> int:
    """The number of an image that was deleted for good.  Raises NotFound.

    Only an administrator finds it: nobody is left who could say who else may.
    """
    with catalog.read() as repository:
        number = repository.number_in_history(image_id) if principal.is_admin else None
    if number is None:
        raise NotFound(image_id, "no image has or had this id, as far as is remembered")
    return number


def history_of(catalog: Catalog, number: int, principal: Principal) -> Iterator[Happened]:
    """The events of an image, oldest first.

    Raises Forbidden for a principal who may not change the image: it names other people.
    """
    with catalog.read() as repository:
        try:
            image = repository.image(number)
        except NotFound:
            if not principal.is_admin:
                raise
        else:
            access.check_see(principal, image, repository.members_of(image))
            access.check_change(principal, image)
    before: Status | None = None
    for event in catalog.all_events(number):
        yield Happened(_with_paths(catalog, event), before)
        if event.kind is EventKind.STATUS:
            before = Status(event.detail["status"])
        elif event.kind is EventKind.CREATED:
            before = Status.QUEUED


def _with_paths(catalog: Catalog, event: Event) -> Event:
    """The event with paths as they are now; of a folder that is gone only its number is known."""
    if event.kind is not EventKind.RENAMED:
        return event
    detail = {key: _path(catalog, *place) for key, place in event.detail.items()}
    return replace(event, detail=detail)


def _path(catalog: Catalog, folder: int, name: str) -> str:
    with catalog.read() as repository:
        try:
            return f"{repository.path_of(repository.folder(folder))}/{name}"
        except NotFound:
            return f"(folder {folder})/{name}"
