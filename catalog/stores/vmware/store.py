"""A store in a datastore of VMware vSphere: each image is one file, as with Glance's driver.

Safe from several threads.  Bytes go through the server's `/folder/` by HTTP.  The API renames,
deletes, copies and lists files (`files`).

An upload has the name `KEY.<random>.part` until it is complete and renamed.

A file has no ETag.  Two versions can only be told apart by the second of their last change.  So a
file is opened only when that second is over (RFC 9110 §8.8.2.2).
"""

from __future__ import annotations

import secrets
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from requests import Request, Response
from requests.adapters import HTTPAdapter

from catalog.errors import (
    CatalogError,
    InvalidName,
    InvalidValue,
    NotSupported,
    StoreRefused,
    StoreUnavailable,
)
from catalog.stores.base import Capability, Stat, Usage, WithoutPolicy
from catalog.stores.http_client.answers import conditions, etag_of, is_empty, part_of, verify
from catalog.stores.http_client.errors import body, http_errors
from catalog.stores.vmware.files import VmwareAccount, VmwareFiles
from catalog.stores.vmware.location import VmwareLocation
from catalog.stores.vmware.settings import VmwareStoreSettings
from catalog.stores.vmware.writer import VmwareUpload, VmwareWriter

_PART = ".part"
_KEY_MAX = 200
_LOOKS = 3


class VmwareStore(WithoutPolicy):
    """A folder of one datastore."""

    capabilities = Capability.WRITE | Capability.COPY | Capability.LISTING

    def __init__(self, name: str, settings: VmwareStoreSettings) -> None:
        self.name = name
        self._settings = settings
        self._server = urlsplit(settings.server)
        self._tls = ssl.create_default_context(cafile=settings.ca_bundle)
        # Without a Session, for the reasons in `http`.
        self._adapter = HTTPAdapter(pool_maxsize=settings.policy.requests, pool_block=True)
        place = (settings.datacenter, settings.datastore)
        self._files = VmwareFiles(
            name, self._server, self._account, place, self._tls, settings.timeout
        )

    def initialize(self) -> None:
        """Make the folder.  Idempotent.  Raises StoreUnavailable."""
        self._files.make_folder(self._folder)

    def check(self) -> None:
        """Raise StoreUnavailable unless the datastore is there and accessible."""
        self._files.usage()

    def open(self, url: str) -> VmwareReader:
        """Open a file to read.  Raises NotFound, StoreUnavailable."""
        location = self._parse(url)
        return VmwareReader(self, location, self._settled(location))

    def stat(self, url: str) -> Stat:
        """Size, and the second of the last change.  Raises as `open`."""
        return self._settled(self._parse(url))

    def writer(self, key: str, size: int | None = None) -> VmwareWriter:
        """Start storing a file.  Raises InvalidName, StoreUnavailable."""
        target = self._location(_checked(key))
        part = self._location(f"{key}.{secrets.token_hex(8)}{_PART}")
        upload = VmwareUpload(
            self._server, self._tls, self._settings.timeout, part.request, str(target)
        )
        upload.begin(self._authorization(), size)
        return VmwareWriter(
            upload, self._files, lambda place: self._probe(place)[0].size, part, target
        )

    def delete(self, url: str) -> None:
        """Remove a file and unfinished uploads of it.

        Raises Conflict if the server has it locked, StoreUnavailable.
        """
        location = self._parse(url)
        folder, _, key = location.file.rpartition("/")
        # The file comes last: if anything before it is refused, the file is still there.
        for part in self._files.names(folder, f"{key}.*{_PART}"):
            self._files.delete(f"{folder}/{part.name}")
        self._files.delete(location.file)

    def copy(self, url: str, key: str) -> str:
        """Duplicate a file on the server."""
        source, target = self._parse(url), self._location(_checked(key))
        part = self._location(f"{key}.{secrets.token_hex(8)}{_PART}")
        size = self._probe(source)[0].size
        try:
            self._files.copy(source.file, part.file, size)
            self._files.move(part.file, target.file)
        except CatalogError:
            with suppress(CatalogError):
                self._files.delete(part.file)
            raise
        return str(target)

    def usage(self) -> Usage:
        """The datastore's size and its free bytes."""
        return self._files.usage()

    def url_of(self, key: str) -> str:
        """`vsphere://HOST/folder/FOLDER/KEY?dsName=…&dcPath=…`, as glance_store."""
        return str(self._location(_checked(key)))

    def keys(self) -> Iterator[str]:
        """The files of the folder, except unfinished uploads."""
        for found in self._files.names(self._folder):
            if not found.name.endswith(_PART) and not found.name.startswith("."):
                yield found.name

    def staging_folder(self) -> Path | None:
        """None: the datastore is on another host."""
        return None

    def quarantine(self, key: str) -> str:
        """Raise NotSupported."""
        raise NotSupported(self.name)

    def leftovers(self, older_than: float) -> Iterator[str]:
        """Unfinished uploads that were last written to more than `older_than` seconds ago."""
        for found in self._files.names(self._folder, f"*{_PART}"):
            if found.modified < time.time() - older_than:
                yield f"{self._folder}/{found.name}"

    def drop_leftover(self, name: str) -> None:
        """Remove one of `leftovers`."""
        self._files.delete(name)

    def close(self) -> None:
        """Close the connections and log out."""
        self._adapter.close()
        self._files.close()

    def _authorization(self) -> dict[str, str]:
        """The header with our credentials (RFC 7617).  Raises StoreUnavailable."""
        account = self._account()
        both = f"{account.user}:{account.password}".encode()
        return {"Authorization": f"Basic {b64encode(both).decode()}"}

    def get(self, location: VmwareLocation, wanted: range, etag: str = "") -> Response:
        """GET the bytes `wanted` of a file, unless it has another `etag` by now.

        The body is not read yet; the caller closes the response.  Raises StoreUnavailable.
        """
        headers = {
            "Range": f"bytes={wanted.start}-{wanted.stop - 1}",
            "Accept-Encoding": "identity",
            "User-Agent": "imagefs",
            **conditions(etag),
            **self._authorization(),
        }
        request = Request("GET", f"{self._settings.server}{location.request}", headers).prepare()
        bundle = self._settings.ca_bundle
        with http_errors(str(location)):
            return self._adapter.send(
                request,
                stream=True,
                timeout=self._settings.timeout,
                verify=str(bundle) if bundle else True,
            )

    def body(self, url: str, response: Response, size: int) -> bytes:
        """Exactly `size` bytes of a response's body.  Raises StoreUnavailable."""
        return body(url, response.raw, size, self._settings.timeout)

    def _probe(self, location: VmwareLocation) -> tuple[Stat, float]:
        """A file's size and etag, and the seconds since its last change by the server's clock."""
        url = str(location)
        with self.get(location, range(1)) as response:
            if response.status_code == 404:
                # A missing datastore is answered with 404, too; `usage` raises then.
                self._files.usage()
            if is_empty(response):
                return Stat(0, etag_of(response)), 1
            found, size = part_of(url, response)
            if found != range(1):
                raise StoreUnavailable(url, "the server answered with another range")
            self.body(url, response, 1)
            return Stat(size, etag_of(response)), _age(response)

    def _settled(self, location: VmwareLocation) -> Stat:
        """A file's size and etag, when a later change would show in the etag.

        After a few looks it goes on all the same: the server's clocks may disagree.
        """
        for _ in range(_LOOKS):
            found, age = self._probe(location)
            if age >= 1:
                break
            time.sleep(1)
        return found

    def _parse(self, url: str) -> VmwareLocation:
        """Read a url of this store.

        Any other url is StoreRefused: the settings may have changed.
        """
        try:
            location = VmwareLocation.parse(url)
        except InvalidValue as error:
            raise StoreRefused(self.name, error.reason) from error
        ours = self._location("")
        theirs = (location.server, location.datastore, location.datacenter)
        if theirs != (ours.server, ours.datastore, ours.datacenter):
            raise StoreRefused(self.name, f"{url} is not in its datastore")
        return location

    def _location(self, key: str) -> VmwareLocation:
        settings = self._settings
        path = f"{settings.folder}/{key}"
        return VmwareLocation(self._server.netloc, path, settings.datastore, settings.datacenter)

    @property
    def _folder(self) -> str:
        return f"[{self._settings.datastore}] {self._settings.folder}"

    def _account(self) -> VmwareAccount:
        return VmwareAccount(self._settings.user, self._settings.password.read())


class VmwareReader:
    """A file; each `read_at` is one request.  Safe from several threads."""

    def __init__(self, store: VmwareStore, location: VmwareLocation, opened: Stat) -> None:
        self.size = opened.size
        self._store = store
        self._location = location
        self._opened = opened

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes `[offset, offset + size)`, cut at the end.

        Raises NotFound, StoreUnavailable; DataChanged if the file is not the one opened.
        """
        wanted = range(offset, min(offset + size, self.size))
        if not wanted:
            return b""
        url = str(self._location)
        with self._store.get(self._location, wanted, self._opened.etag) as response:
            verify(url, response, wanted, self._opened)
            return self._store.body(url, response, len(wanted))

    def fileno(self) -> int | None:
        """None: there is no file of this host."""
        return None

    def close(self) -> None:
        """Connections belong to the store."""


def _age(response: Response) -> float:
    """Seconds since the last change; 1 if the headers are missing."""
    changed, now = response.headers.get("Last-Modified"), response.headers.get("Date")
    if changed is None or now is None:
        return 1
    try:
        return (parsedate_to_datetime(now) - parsedate_to_datetime(changed)).total_seconds()
    except (TypeError, ValueError):
        return 1


def _checked(key: str) -> str:
    """The key, if it is a name that stays in the folder.  Raises InvalidName."""
    is_name = key.isprintable() and not key.startswith(".") and not set(key) & set("/\\[]*?")
    if not key or len(key) > _KEY_MAX or not is_name or key.endswith(_PART):
        raise InvalidName(key, "is not a key of an image")
    return key
