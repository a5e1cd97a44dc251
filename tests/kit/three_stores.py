"""A mount with remote stores, and what their servers have of its uploads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from catalog.catalog import Catalog
from tests.kit.daemon import Daemon, wait_until
from tests.kit.stores import swift_account
from tests.kit.stores.s3_account import Account
from tests.kit.tools import MIB, field, some_bytes
from tests.servers.ceph import S3
from tests.servers.swift import Swift

STORES = ("radosgw", "s3api", "swift")
DATA = some_bytes(100 * MIB + 5)
"""Two parts where the size is not known."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A catalog with the stores STORES; who made it mounts it."""

    daemon: Daemon
    catalog: Catalog

    def left(self, store: str) -> list[str]:
        """Parts and segments on the server that belong to no object."""
        return list(self.catalog.store(store).leftovers(-60))

    def has_begun(self, store: str) -> None:
        """Wait until the server has something of an upload."""
        wait_until(lambda: self.left(store), "parts are sent")

    def has_nothing(self, store: str) -> None:
        """Wait until it has not."""
        wait_until(lambda: not self.left(store), "parts are removed")

    def digest(self, path: Path) -> str:
        """The SHA-256 of what the server has of an image."""
        store = self.catalog.store(path.relative_to(self.daemon.path).parts[0])
        reader = store.open(store.url_of(field(path, "id")))
        found = hashlib.sha256()
        for offset in range(0, reader.size, 8 * MIB):
            found.update(reader.read_at(offset, 8 * MIB))
        reader.close()
        return found.hexdigest()


@contextmanager
def remote(folder: Path, swift: Swift, radosgw: S3) -> Iterator[Remote]:
    """Make the catalog."""
    accounts = {
        "radosgw": Account(radosgw.url, radosgw.access_key, radosgw.secret_key, folder),
        "s3api": Account(swift.s3_endpoint, swift.user, swift.key, folder),
    }
    sections = swift_account.section(swift, folder / "swift", "swift")
    for name, account in accounts.items():
        account.make_bucket()
        sections += account.section(name)
    sections += f'[cache]\npath = "{folder}/cache"\n'
    daemon = Daemon(folder / "host", sections=sections, drain_timeout=1)
    catalog = daemon.catalog()
    try:
        yield Remote(daemon, catalog)
    finally:
        daemon.end()
        catalog.close()
