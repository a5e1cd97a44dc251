"""Stores in a real Cinder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog.stores.cinder.settings import CinderStoreSettings
from catalog.stores.cinder.store import CinderStore
from tests.servers.cinder import Cinder


def settings(server: Cinder, folder: Path, **values: object) -> CinderStoreSettings:
    """Of the server's project, for its ordinary member."""
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text(server.key)
    given = {
        "auth_url": server.identity.auth_url,
        "user": server.user,
        "project": server.project,
        "key": {"file": str(key)},
        "ceph_conf": server.ceph.conf,
        "timeout": 60,
        **values,
    }
    return CinderStoreSettings.model_validate(given)


@contextmanager
def cinder_store(server: Cinder, folder: Path, **values: object) -> Iterator[CinderStore]:
    """A store in that project."""
    store = CinderStore("block", settings(server, folder, **values))
    yield store
    store.close()
