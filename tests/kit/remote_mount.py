"""A mount on stores in real servers, and what is asked of it in the words of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from catalog.cache.folder import CacheFolder
from catalog.catalog import Catalog
from catalog.errors import Conflict
from tests.bench.measure import forget_pages
from tests.kit.daemon import Daemon, wait_until
from tests.kit.service import Service, service
from tests.kit.stores.s3_account import Account
from tests.kit.tools import field
from tests.servers.ceph import Ceph
from tests.servers.swift import Swift
from tests.servers.vcsim import DATACENTER, DATASTORE, PASSWORD, USER

CACHE_SIZE = 4 << 30


@dataclass(frozen=True, slots=True)
class Remote:
    """A mounted catalog, its WebDAV server, and its stores seen from behind."""

    daemon: Daemon
    service: Service
    catalog: Catalog
    """The same catalog in the test's process."""

    @property
    def path(self) -> Path:
        """The mount."""
        return self.daemon.path

    @property
    def cache(self) -> CacheFolder:
        """The block cache's folder."""
        return cache_of(self.daemon)

    def keys(self, store: str) -> set[str]:
        """What a store's server holds: ids of images."""
        return set(self.catalog.store(store).keys())

    def leftovers(self, store: str) -> list[str]:
        """The parts of unfinished uploads at a store's server, however young."""
        return list(self.catalog.store(store).leftovers(-60))

    def read_cold(self, path: Path) -> bytes:
        """An image's data from its server: nothing of it is kept on this host."""
        make_cold(self.daemon, path)
        return path.read_bytes()


@contextmanager
def remote(folder: Path, *stores: str) -> Iterator[Remote]:
    """Mount and serve a catalog with these stores' sections besides the local ones."""
    with mounted(folder, *stores) as daemon, service(daemon) as served:
        catalog = daemon.catalog()
        yield Remote(daemon, served, catalog)
        catalog.close()


@contextmanager
def mounted(folder: Path, *stores: str, catalog: str = "") -> Iterator[Daemon]:
    """Mount a catalog, which has a block cache, with these stores' sections."""
    cache = f'[cache]\npath = "{folder}/cache"\nsize = {CACHE_SIZE}\n'
    with Daemon(folder / "host", catalog=catalog, sections=cache + "".join(stores)).mounted() as it:
        yield it


@contextmanager
def other_host(first: Daemon, folder: Path) -> Iterator[Daemon]:
    """Mount the same catalog once more, as another host does: with a cache of its own."""
    second = Daemon(folder / "host")
    text = first.config.read_text()
    second.config.write_text(text.replace(str(cache_of(first).path), f"{folder}/cache"))
    with second.mounted():
        yield second


def cache_of(daemon: Daemon) -> CacheFolder:
    """The block cache of a mount that `mounted` has made."""
    return CacheFolder(daemon.state.parent / "cache", CACHE_SIZE)


def make_cold(daemon: Daemon, path: Path) -> None:
    """Drop an image from the kernel's cache and from the block cache."""
    forget_pages(path)
    number = field(path, "id")
    cache = cache_of(daemon)

    def drop() -> bool:
        # The mount hears of the last close a little later.
        with suppress(Conflict):
            cache.drop(number)
            return True
        return False

    wait_until(drop, "nobody reads the image")


# -- sections of stores ------------------------------------------------------------------


def s3_section(
    name: str, account: Account, bucket: str = "images", prefix: str | None = None
) -> str:
    """A store in the account's bucket, under a prefix of its own unless one is given."""
    return f"""\
[stores.{name}]
type = "s3"
endpoint = "{account.endpoint}"
bucket = "{bucket}"
prefix = "{name if prefix is None else prefix}"
access_key = {{ file = "{account.reference(account.access_key).file}" }}
secret_key = {{ file = "{account.reference(account.secret_key).file}" }}
"""


def swift_section(name: str, server: Swift, folder: Path) -> str:
    """A store in two containers of its own."""
    return f"""\
[stores.{name}]
type = "swift"
auth_url = "{server.auth_url}"
auth_version = 1
user = "{server.user}"
key = {{ file = "{_secret(folder / "swift-key", server.key)}" }}
container = "{name}"
"""


def rbd_section(name: str, cluster: Ceph) -> str:
    """A store in the cluster's pool."""
    return f"""\
[stores.{name}]
type = "rbd"
pool = "{cluster.pool}"
user = "{cluster.user}"
conf = "{cluster.conf}"
timeout = 10
"""


def vmware_section(name: str, url: str, folder: Path) -> str:
    """A store in the simulator's datastore behind `url`, whose authority is in `folder`."""
    return f"""\
[stores.{name}]
type = "vmware"
server = "{url}"
user = "{USER}"
password = {{ file = "{_secret(folder / "vmware-password", PASSWORD)}" }}
datacenter = "{DATACENTER}"
datastore = "{DATASTORE}"
ca_bundle = "{folder}/authority.pem"
"""


def share_section(name: str, folder: Path) -> str:
    """A folder on a server that might hang: read by way of the cache."""
    return f"""\
[stores.{name}]
type = "filesystem"
path = "{folder}"
io_timeout = 20
"""


def web_section(name: str, authority: Path) -> str:
    """Images of web servers on loopback, also those that this authority vouches for."""
    return f"""\
[stores.{name}]
type = "http"
allow_hosts = ["127.0.0.1"]
ca_bundle = "{authority}"
"""


def _secret(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path
