"""Publishes that a process is alive and which images it holds open; drops rows that are too old.

Scope: leases, heartbeats, old rows; each function is one transaction.  Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

from catalog.catalog import Catalog
from catalog.model.activity import Use
from catalog.model.image import now
from catalog.process import Process
from catalog.repository.reserve import on_a_full_disk


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
        repository.beat_uploads(process, at)
        repository.set_leases(process, held, at, users)
        repository.set_used(used, at)


def drop_leases(catalog: Catalog, process: Process) -> None:
    """Drop the leases of a process."""
    with catalog.write() as repository:
        repository.drop_leases(process)


@on_a_full_disk
def trim(catalog: Catalog, before: datetime) -> None:
    """Drop rows that nobody needs any more: old changes and events, images deleted long ago."""
    with catalog.write() as repository:
        repository.trim_changes(before)
        repository.forget_deleted(before)
        repository.trim_history(now() - timedelta(seconds=catalog.settings.history_time))
