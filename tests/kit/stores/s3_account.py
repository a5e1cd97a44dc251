"""Accounts of the tests' S3 servers, each with one bucket."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from catalog.errors import StoreUnavailable
from catalog.stores.s3.requests import S3Requests
from catalog.stores.s3.settings import S3StoreSettings
from catalog.stores.s3.store import S3Store
from catalog.stores.secret import SecretReference

_PREFIXES = itertools.count()


@dataclass(frozen=True, slots=True)
class Account:
    """A bucket, and the settings that open it."""

    endpoint: str
    access_key: str
    secret_key: str
    folder: Path
    """Where the credentials lie."""

    def settings(self, **changed: object) -> S3StoreSettings:
        """A place of its own in the bucket."""
        values: dict[str, object] = {
            "endpoint": self.endpoint,
            "bucket": "images",
            "prefix": f"test-{next(_PREFIXES)}",
            "access_key": self.reference(self.access_key),
            "secret_key": self.reference(self.secret_key),
            "timeout": 10,
        }
        return S3StoreSettings.model_validate(values | changed)

    def section(self, name: str) -> str:
        """`[stores.NAME]` of a configuration, with a place of its own in the bucket."""
        return f"""\
[stores.{name}]
type = "s3"
endpoint = "{self.endpoint}"
bucket = "images"
prefix = "{name}-{next(_PREFIXES)}"
access_key = {{ file = "{self.reference(self.access_key).file}" }}
secret_key = {{ file = "{self.reference(self.secret_key).file}" }}
"""

    def reference(self, secret: str) -> SecretReference:
        """A file with a secret in it."""
        path = self.folder / hashlib.sha256(secret.encode()).hexdigest()
        path.touch(mode=0o600)
        path.write_text(f"{secret}\n")
        return SecretReference(file=path)

    def make_bucket(self, name: str = "images") -> None:
        """Make a bucket, unless it is there; the store itself never does."""
        requests = S3Requests(self.settings(bucket=name))
        try:
            requests.send("GET", query={"max-keys": "1"}, subject=name)
        except StoreUnavailable:
            requests.send("PUT", subject=name)
        requests.close()

    def by_way_of(self, endpoint: str) -> Account:
        """The same through a proxy."""
        return replace(self, endpoint=endpoint)


@contextmanager
def opened(settings: S3StoreSettings) -> Iterator[S3Store]:
    """A store, closed in the end."""
    store = S3Store("s3", settings)
    try:
        yield store
    finally:
        store.close()


def leftovers(store: S3Store) -> list[str]:
    """All unfinished uploads, however young: clocks may differ."""
    return list(store.leftovers(-60))
