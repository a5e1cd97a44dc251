"""Stores in a real Swift, and its bare API beside them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

from catalog.stores.base import DataWriter
from catalog.stores.swift.location import SwiftLocation
from catalog.stores.swift.store import SwiftStore, SwiftStoreSettings
from tests.kit.stores.contract import DATA
from tests.servers.swift import Swift

SEGMENT = 1 << 16
"""Makes DATA five segments."""


class Account:
    """The bare API, for what the driver is not asked to do."""

    def __init__(self, server: Swift, user: str = "", key: str = "") -> None:
        self._pool = urllib3.PoolManager()
        sign = {"X-Auth-User": user or server.user, "X-Auth-Key": key or server.key}
        answer = self._pool.request("GET", server.auth_url, headers=sign)
        self._token = {"X-Auth-Token": answer.headers["X-Auth-Token"]}
        self._url = server.storage_url

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; header names with `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self._pool.request(
            method, f"{self._url}/{path}", body=body, headers={**self._token, **sent}
        )
        assert answer.status < 300, (method, path, answer.status, answer.data)
        return answer

    def names(self, container: str) -> list[str]:
        """What a container lists."""
        return [entry["name"] for entry in self.ask("GET", f"{container}?format=json").json()]

    def put_dlo(self, path: str, data: bytes, step: int) -> None:
        """Store an object as Glance does: `PATH-00001` and so on, and a manifest."""
        for number, at in enumerate(range(0, len(data), step), start=1):
            self.ask("PUT", f"{path}-{number:05d}", data[at : at + step])
        self.ask("PUT", path, X_Object_Manifest=f"{path}-")


def settings(server: Swift, folder: Path, **values: object) -> SwiftStoreSettings:
    """Of an empty container of the test's own."""
    folder.mkdir(exist_ok=True)
    key = folder / "key"
    key.write_text(f"{server.key}\n")
    key.chmod(0o400)
    given = {
        "auth_url": server.auth_url,
        "auth_version": 1,
        "user": server.user,
        "key": {"file": str(key)},
        "container": f"c{secrets.token_hex(4)}",
        "segment_size": SEGMENT,
        "timeout": 30,
        **values,
    }
    return SwiftStoreSettings.model_validate(given)


def section(server: Swift, folder: Path, name: str) -> str:
    """`[stores.NAME]` of a configuration, with an empty container of its own."""
    made = settings(server, folder)
    return f"""\
[stores.{name}]
type = "swift"
auth_url = "{made.auth_url}"
auth_version = 1
user = "{made.user}"
key = {{ file = "{folder}/key" }}
container = "{made.container}"
segment_size = {8 << 20}
"""


@contextmanager
def swift_store(server: Swift, folder: Path, **values: object) -> Iterator[SwiftStore]:
    """A store in two new containers."""
    store = SwiftStore("sw", settings(server, folder, **values))
    store.initialize()
    yield store
    store.close()


def container_of(store: SwiftStore) -> str:
    """The store's container."""
    return SwiftLocation.parse(store.url_of("a")).container


def store_all(writer: DataWriter, data: bytes) -> None:
    """Write and commit: either may notice a failure first."""
    writer.write(data)
    writer.commit()


def abandon_upload(store: SwiftStore, key: str) -> None:
    """What a process that is killed leaves: segments, and no object."""
    writer = store.writer(key)
    writer.write(DATA)
    writer._threads.shutdown()
