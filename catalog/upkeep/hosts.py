"""The hosts that serve the catalog: which there are, and giving up one that is gone for good.

Threading: any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from catalog.catalog import Catalog
from catalog.copies.unfinished import give_up
from catalog.errors import Conflict, NotFound
from catalog.model.access import Principal
from catalog.model.activity import Service, UploadRecord
from catalog.model.image import Image
from catalog.process import Process
from catalog.repository.database import Repository
from catalog.rules import presence


class HostState(StrEnum):
    """What is known of a host."""

    ALIVE = "alive"
    """A process there serves the catalog."""
    SILENT = "silent"
    """No process there has sent a heartbeat for long; what they did is given up."""
    IDLE = "idle"
    """No process there is registered; it has uploads of a command, or things open."""


@dataclass(frozen=True, slots=True)
class Host:
    """One host, by its name."""

    name: str
    state: HostState
    services: tuple[Service, ...]
    uploads: tuple[UploadRecord, ...]
    open: int
    """Images that its processes hold open, as they have published."""

    @property
    def seen_at(self) -> datetime | None:
        """When one of its processes was last heard of."""
        return max((each.heartbeat_at for each in self.services), default=None)


def hosts(catalog: Catalog) -> list[Host]:
    """Every host that serves the catalog or works on it, by name."""
    with catalog.read() as repository:
        has_ended = presence.ended(repository)
        return [_host(repository, name, has_ended) for name in sorted(repository.hosts_at_work())]


def host_called(catalog: Catalog, name: str) -> Host:
    """The host of that name.  Raises NotFound."""
    with catalog.read() as repository:
        if name not in repository.hosts_at_work():
            raise NotFound(name, "no such host serves the catalog")
        return _host(repository, name, presence.ended(repository))


def _host(repository: Repository, name: str, has_ended: Callable[[Process], bool]) -> Host:
    services = tuple(each for each in repository.services() if each.process.host == name)
    uploads = tuple(each for each in repository.uploads() if each.process.host == name)
    state = HostState.IDLE
    if services:
        is_silent = all(has_ended(each.process) for each in services)
        state = HostState.SILENT if is_silent else HostState.ALIVE
    return Host(name, state, services, uploads, repository.count_open(name))


def forget(
    catalog: Catalog, name: str, principal: Principal, *, force: bool = False
) -> list[Image]:
    """Give up what a host was doing; return the images whose uploads that killed.

    Raises NotFound, and Conflict for a host that is alive, unless `force`.
    """
    found = host_called(catalog, name)
    if found.state is HostState.ALIVE and not force:
        raise Conflict(name, "is alive: stop what it serves, or use --force")
    reason = f"{principal.name} has given up the host {name}"
    killed: list[Image] = []
    for record in found.uploads:
        killed += give_up(catalog, record, reason)
    presence.forget_host(catalog, name)
    return killed
