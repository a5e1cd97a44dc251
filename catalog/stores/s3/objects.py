"""Whole objects of one bucket, by obstore: reading, deleting, listing.

Safe from several threads; its calls release the GIL.  Scope: each method is one request without
retries, and checks that the answer is what it asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from obstore.store import S3Store as Client

from catalog.errors import DataChanged, NotFound, StoreRefused, StoreUnavailable
from catalog.stores.base import Stat
from catalog.stores.s3.account import S3Account
from catalog.stores.s3.errors import obstore_errors
from catalog.stores.s3.requests import Block, Body, S3Requests
from catalog.stores.s3.settings import Credentials, S3StoreSettings

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig, S3Credential

Result = TypeVar("Result")

_PAGE = 1000
"""Objects that one request lists."""


class S3Objects:
    """The requests of one bucket, by full key."""

    def __init__(
        self, settings: S3StoreSettings, account: S3Account, requests: S3Requests, url: str
    ) -> None:
        """`url` is the store's, for errors' texts: `s3://HOST/BUCKET/`."""
        self._settings = settings
        self._account = account
        self._requests = requests
        self._url = url
        self._lock = threading.Lock()
        self._client: tuple[Credentials, Client] | None = None

    def check(self) -> None:
        """Raise StoreUnavailable unless the bucket answers a listing of one object."""
        query = {"list-type": "2", "max-keys": "1", "prefix": self._settings.prefix}
        self._requests.send("GET", "", query, subject=self._url, is_retried=False)

    def head(self, key: str) -> Stat:
        """Size and ETag.  Raises NotFound, StoreUnavailable."""
        try:
            found = self._ask(key, lambda client: client.head(key))
        except NotFound:
            # An answer to HEAD has no body: a missing bucket looks like a missing object.
            self.check()
            raise
        return Stat(found["size"], _etag(found))

    def read(self, key: str, wanted: range, opened: Stat) -> memoryview:
        """The bytes `wanted` of an object, if it has not changed since it was opened.

        Raises DataChanged, NotFound, StoreUnavailable.
        """
        options: GetOptions = {"range": (wanted.start, wanted.stop)}
        if opened.etag.startswith('"'):
            options["if_match"] = opened.etag

        def read(client: Client) -> memoryview:
            result = client.get(key, options=options)
            if Stat(result.meta["size"], _etag(result.meta)) != opened:
                raise DataChanged(self._url + key)
            if result.range != (wanted.start, wanted.stop):
                raise StoreUnavailable(self._url + key, f"answered with the bytes {result.range}")
            return memoryview(result.bytes())

        data = self._ask(key, read)
        if len(data) != len(wanted):
            reason = f"the server sent {len(data)} bytes instead of {len(wanted)}"
            raise StoreUnavailable(self._url + key, reason)
        return data

    def put(self, key: str, data: Block) -> None:
        """Make `data` an object in one step."""
        headers = {"Content-Type": "application/octet-stream"}
        subject = self._url + key
        self._requests.send("PUT", key, None, headers, Body.of(data), subject=subject)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        with suppress(NotFound):
            self._requests.send("DELETE", key, subject=self._url + key, is_retried=False)

    def list(self, prefix: str) -> Iterator[str]:
        """Every key that begins with `prefix`: whole folders, or nothing for all."""
        # First, as it renews refused credentials: between two pages of the listing that is not
        # possible any more.
        self.check()
        client = self._connected(self._account.current())
        with obstore_errors(self._url):
            for page in client.list(prefix.rstrip("/") or None, chunk_size=_PAGE):
                yield from (found["path"] for found in page)

    def close(self) -> None:
        """Let go of the connections."""
        with self._lock:
            self._client = None

    def _ask(self, key: str, question: Callable[[Client], Result]) -> Result:
        """Ask obstore's client; ask again if the credentials were refused and there are others."""
        credentials = self._account.current()
        try:
            with obstore_errors(self._url + key):
                return question(self._connected(credentials))
        except StoreRefused:
            if not self._account.renew(credentials):
                raise
        with obstore_errors(self._url + key):
            return question(self._connected(self._account.current()))

    def _connected(self, credentials: Credentials) -> Client:
        with self._lock:
            if self._client is None or self._client[0] != credentials:
                self._client = credentials, _connect(self._settings, credentials)
            return self._client[1]


def _connect(settings: S3StoreSettings, credentials: Credentials) -> Client:
    is_virtual = settings.addressing == "virtual"
    endpoint = settings.bucket_url if is_virtual else settings.endpoint
    return Client(
        settings.bucket,
        config={
            "endpoint": endpoint,
            "region": settings.region,
            "virtual_hosted_style_request": is_virtual,
            "unsigned_payload": settings.is_tls,
            # Many servers do not have the request that deletes several objects; for one object a
            # DELETE does the same.
            "disable_bulk_delete": True,
            # Set, because otherwise obstore reads them from the environment.
            "aws_endpoint_url_s3": endpoint,
            "skip_signature": False,
            "s3_express": False,
        },
        client_options=_client_options(settings),
        retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
        credential_provider=_provider(credentials),
    )


def _client_options(settings: S3StoreSettings) -> ClientConfig:
    options: ClientConfig = {
        "allow_http": not settings.is_tls,
        "connect_timeout": timedelta(seconds=settings.timeout),
        "read_timeout": timedelta(seconds=settings.timeout),
        # For a whole request: a server that sends single bytes never meets `read_timeout`.
        "timeout": timedelta(seconds=10 * settings.timeout),
        "user_agent": "imagefs",
    }
    if settings.ca_bundle is not None:
        options["root_certificate"] = settings.ca_bundle.read_bytes()
    return options


def _provider(credentials: Credentials) -> Callable[[], S3Credential]:
    """The credentials as a provider: as settings, obstore would add the environment's token."""
    return lambda: {
        "access_key_id": credentials.access_key,
        "secret_access_key": credentials.secret_key,
        "token": credentials.session_token,
        "expires_at": None,
    }


def _etag(found: ObjectMeta) -> str:
    """The ETag, or the time of the last change if there is none."""
    return found["e_tag"] or found["last_modified"].isoformat()
