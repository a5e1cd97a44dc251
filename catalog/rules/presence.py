"""Which processes serve the catalog, what they hold open, and which of them have ended.

A process of this host is looked at.  A process of another host is known by its heartbeat: if it has
not been heard of for `SILENCE`, it has ended.  That is told only by the database's clock, and only
if another process was heard of all that time: when the database itself was away, nobody could be.

Scope: processes, leases, heartbeats, old rows; each function is one transaction.  Threading: any.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

from catalog.catalog import Catalog
from catalog.model.activity import Service, ServiceKind, Use
from catalog.model.clock import now
from catalog.process import Process, can_look, is_gone
from catalog.repository.database import Repository
from catalog.repository.reserve import on_a_full_disk

HEARTBEAT = timedelta(seconds=20)
"""How often a process that serves the catalog says that it lives."""
SILENCE = timedelta(minutes=5)
"""After so long without a heartbeat a process of another host is taken to have ended."""
_GAP = 3 * HEARTBEAT
"""A heartbeat that comes later than this ends the time in which a process was heard of."""


def register(
    catalog: Catalog, process: Process, kind: ServiceKind, place: str, version: str
) -> list[Service]:
    """Say that a process begins to serve the catalog.

    Returns living processes that claim to be on this host and are not: two hosts have one name.
    """
    at = now()
    with catalog.write() as repository:
        repository.add_service(Service(process, kind, place, version, at, at, at))
        return [
            other
            for other in repository.services()
            if other.process.host == process.host
            and other.process.boot.partition("/")[0] != process.boot.partition("/")[0]
            and at - other.heartbeat_at < _GAP
        ]


def live(catalog: Catalog, process: Process) -> bool:
    """Say that a process still serves the catalog; False if it is not registered any more."""
    with catalog.write() as repository:
        return repository.beat_service(process, now(), _GAP)


def leave(catalog: Catalog, process: Process) -> None:
    """Say that a process serves no more, and holds nothing open."""
    with catalog.write() as repository:
        repository.drop_service(process)
        repository.drop_leases(process)


def forget_host(catalog: Catalog, host: str) -> None:
    """Forget all processes of a host, and what they hold open."""
    with catalog.write() as repository:
        repository.drop_host(host)


def beat(
    catalog: Catalog,
    process: Process,
    held: Collection[int],
    users: Mapping[int, Sequence[Use]] = MappingProxyType({}),
    used: Collection[int] = (),
) -> None:
    """Publish that this process is alive, and which images it holds open.

    `users` are the programs that use them, `used` the images that were in use lately.
    """
    at = now()
    with catalog.write() as repository:
        if not catalog.reads_only:
            repository.beat_uploads(process, at)
        repository.set_leases(process, held, at, users)
        repository.set_used(used, at)


def ended(repository: Repository) -> Callable[[Process], bool]:
    """A test whether a process is known to have ended, on whatever host it was."""
    services = repository.services()
    at = now()
    heard = {service.process: service.heartbeat_at for service in services}
    watched_since = min(
        (each.heard_since for each in services if at - each.heartbeat_at < _GAP), default=at
    )

    def has_ended(process: Process) -> bool:
        if can_look(process):
            return is_gone(process)
        last = heard.get(process)
        if is_gone(process):
            # It was of an earlier boot of this host.  If it still sends heartbeats, two hosts have
            # this name, and it runs on the other one.
            return last is None or at - last > _GAP
        return last is not None and at - max(last, watched_since) > SILENCE

    return has_ended


def has_worker(repository: Repository, image: int) -> bool:
    """Whether a process that has not ended uploads or copies the image."""
    record = repository.upload(image)
    return record is not None and not ended(repository)(record.process)


def have_ended(catalog: Catalog) -> Callable[[Process], bool]:
    """As `ended`, read now."""
    with catalog.read() as repository:
        return ended(repository)


@on_a_full_disk
def trim(catalog: Catalog, before: datetime) -> None:
    """Drop rows that nobody needs any more: old changes and events, images deleted long ago."""
    with catalog.write() as repository:
        repository.trim_changes(before)
        repository.forget_deleted(before)
        repository.trim_history(now() - timedelta(seconds=catalog.settings.history_time))
