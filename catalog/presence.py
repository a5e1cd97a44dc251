"""That a process lives, what it holds open, and what nobody asks for any more.

Scope: leases, heartbeats, and the rows that time takes away; each function one transaction.
Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
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
    """Tell the other processes that this one lives, and which images it holds open.

    `users` are the programs that use them, `used` the images that were in use lately.
    """
    at = now()
    with catalog.write() as repository:
        repository.beat_uploads(process, at)
        repository.set_leases(process, held, at, users)
        repository.set_used(used, at)


def drop_leases(catalog: Catalog, process: Process) -> None:
    """Forget what a process held open."""
    with catalog.write() as repository:
        repository.drop_leases(process)


@on_a_full_disk
def trim(catalog: Catalog, before: datetime) -> None:
    """Forget what nobody asks for any more: old changes and long deleted images."""
    with catalog.write() as repository:
        repository.trim_changes(before)
        repository.forget_deleted(before)
