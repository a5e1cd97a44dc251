"""OpenStack Swift on loopback: its own API and S3's on one port.

    with swift(folder) as server:
        ... server.auth_url, server.user, server.key ...
        ... server.s3_endpoint, with user and key as access key and secret ...

One replica in one folder, whose file system needs extended attributes.  Each of its
processes is a single one, so that it ends by its process id.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from tests.servers.programs import environment, free_ports, program, running, wait_for_port

# setuptools: Swift imports pkg_resources, which newer ones no longer have.
REQUIREMENTS = ("swift==2.38.*", "setuptools<81", "keystonemiddleware")

_PIPELINE = (
    "catch_errors gatekeeper healthcheck cache etag-quoter listing_formats bulk "
    "tempurl {auth} copy container-quotas account-quotas slo dlo versioned_writes symlink "
    "proxy-server"
)

_WITHOUT_SETTINGS = (
    "catch_errors gatekeeper healthcheck etag-quoter listing_formats bulk tempurl copy "
    "container-quotas account-quotas slo dlo symlink"
).split()

_SWIFT_CONF = """
[swift-hash]
swift_hash_path_suffix = s
swift_hash_path_prefix = p
[storage-policy:0]
name = gold
default = yes
[swift-constraints]
max_header_size = 16384
"""

_COMMON = """
[DEFAULT]
user = {user}
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}/etc
log_level = WARNING
log_address = /dev/null
workers = 0
"""

_PROXY = """
[pipeline:main]
pipeline = {pipeline}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
user_test_second = testing .admin
user_test_member = testing
storage_url_scheme = default
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1
check_bucket_owner = false
allow_multipart_uploads = true
min_segment_size = 5242880
max_upload_part_num = 10000
dns_compliant_bucket_names = true
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached_port}
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
{plain}
{more}
"""

# What a filter that has no settings needs.
_PLAIN = """
[filter:{name}]
use = egg:swift#{egg}
"""

_STORAGE = """
devices = {folder}/node
mount_check = false
fallocate_reserve = 0
disk_chunk_size = 1048576
network_chunk_size = 1048576
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

# The ring builder's program, but all rings by one process: it takes long to start.
_RINGS = """
import sys
from swift.common.ring import RingBuilder
folder, *ports = sys.argv[1:]
for kind, port in zip(("account", "container", "object"), map(int, ports)):
    place = {"ip": "127.0.0.1", "port": port, "device": "d1", "region": 1, "zone": 1}
    replication = {"replication_ip": "127.0.0.1", "replication_port": port}
    builder = RingBuilder(4, 1, 0)
    builder.add_dev({**place, **replication, "weight": 1, "meta": ""})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
"""

_READY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Swift:
    """A running Swift."""

    folder: Path
    """`*.log` of each process are in it."""
    port: int
    """Of the proxy server: all that a client needs."""
    memcached_port: int
    user: str = "test:tester"
    key: str = "testing"

    @property
    def url(self) -> str:
        """Where the proxy server listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def auth_url(self) -> str:
        """Of v1 authentication (tempauth)."""
        return f"{self.url}/auth/v1.0"

    @property
    def storage_url(self) -> str:
        """Of the user's account."""
        return f"{self.url}/v1/AUTH_{self.user.partition(':')[0]}"

    @property
    def s3_endpoint(self) -> str:
        """Of S3's API, addressed by path; its region is us-east-1."""
        return self.url

    def expire_tokens(self) -> None:
        """Make every token that was given out invalid."""
        with socket.create_connection(("127.0.0.1", self.memcached_port)) as connection:
            connection.sendall(b"flush_all\r\n")
            answer = connection.recv(100)
        if answer != b"OK\r\n":
            raise RuntimeError(f"memcached answered {answer!r}")


@contextmanager
def swift(
    folder: Path,
    auth: str = "s3api tempauth",
    more: str = "",
) -> Iterator[Swift]:
    """Run Swift in `folder`.

    `auth` are the filters that authenticate, `more` the sections of those not known
    here.
    """
    programs = environment("swift", REQUIREMENTS)
    (folder / "etc").mkdir()
    (folder / "node" / "d1").mkdir(parents=True)
    (folder / "etc" / "swift.conf").write_text(_SWIFT_CONF)
    proxy_port, memcached_port, *ports = free_ports(5)
    with ExitStack() as servers:
        options = ["-u", "nobody", "-l", "127.0.0.1", "-p", str(memcached_port), "-m", "16"]
        memcached = program("memcached", "memcached")
        log = folder / "memcached.log"
        listening = [
            (memcached_port, servers.enter_context(running([memcached, *options], log)), log)
        ]
        _make_rings(programs, folder, ports)
        for kind, port in zip(("account", "container", "object"), ports, strict=True):
            config = _STORAGE.format(folder=folder, kind=kind)
            process = servers.enter_context(_server(programs, folder, kind, port, config))
            listening.append((port, process, folder / f"{kind}.log"))
        config = _PROXY.format(
            pipeline=_PIPELINE.format(auth=auth),
            memcached_port=memcached_port,
            plain="".join(map(_plain_filter, _WITHOUT_SETTINGS)),
            more=more,
        )
        proxy = servers.enter_context(_server(programs, folder, "proxy", proxy_port, config))
        for port, process, log in listening:
            wait_for_port(port, process, log)
        _wait_healthy(proxy_port, proxy, folder / "proxy.log")
        yield Swift(folder, proxy_port, memcached_port)


@contextmanager
def _server(
    programs: Path, folder: Path, kind: str, port: int, config: str
) -> Iterator[subprocess.Popen[bytes]]:
    user = "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")
    common = _COMMON.format(folder=folder, port=port, user=user)
    path = folder / "etc" / f"{kind}-server.conf"
    path.write_text(common + config)
    command = [str(programs / f"swift-{kind}-server"), str(path), "--verbose"]
    with running(command, folder / f"{kind}.log") as process:
        yield process


def _plain_filter(name: str) -> str:
    return _PLAIN.format(name=name, egg=name.replace("-", "_"))


def _make_rings(programs: Path, folder: Path, ports: list[int]) -> None:
    python = [str(programs / "python"), "-c", _RINGS]
    arguments = [str(folder / "etc"), *map(str, ports)]
    subprocess.run([*python, *arguments], check=True, capture_output=True)


def _wait_healthy(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(_READY_SECONDS * 50):
        if process.poll() is not None:
            raise RuntimeError(f"Swift's proxy ended: {log.read_text()}")
        with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=5):
            return
        time.sleep(0.02)
    raise RuntimeError(f"Swift is not up after {_READY_SECONDS} s: {log.read_text()}")
