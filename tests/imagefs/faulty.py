"""A mount whose stores are real servers behind proxies that break what they are told to.

The stores are `s3` and `swift`, two doors of one Swift behind one proxy, `mirror`, an nginx
behind another, and `slow`, S3 by a proxy of its own and with time-outs that no test lives to
see.  Each has one image with the same data, `IMAGE`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from catalog.cache.folder import CacheFolder
from catalog.errors import Conflict
from tests.kit.daemon import Daemon, wait_until
from tests.kit.stores import s3_account, swift_account
from tests.kit.tools import MIB, attempt, field, run, some_bytes
from tests.servers.network.breaking_proxy import Proxy, never, proxy
from tests.servers.nginx import nginx
from tests.servers.swift import Swift

CHUNK = 4 * MIB
DATA = some_bytes(10 * CHUNK + 3 * 512)
"""Eleven chunks, in whole sectors."""
IMAGE = "cold.img"
STORES = ("s3", "swift", "mirror")
CONTAINER = "faults"

TIMEOUT = 5
"""Seconds, of each store but `slow`."""
_RETRIED = 15
STATED = max(_RETRIED, TIMEOUT) + 2 * TIMEOUT
"""Seconds that a read takes at most (docs/stores.md, "Time-outs")."""

_POLICY = f"""\
[stores.{{name}}.policy]
deadline = {_RETRIED}
pause = 0.2
"""

_SECTIONS = """\
[cache]
path = "{cache}"
[stores.s3]
type = "s3"
endpoint = "{between.url}"
bucket = "images"
prefix = "faults"
access_key = {{ file = "{folder}/user" }}
secret_key = {{ file = "{folder}/key" }}
timeout = {timeout}
[stores.swift]
type = "swift"
auth_url = "{between.url}/auth/v1.0"
user = "{swift.user}"
auth_version = 1
key = {{ file = "{folder}/key" }}
container = "{container}"
segment_size = {segment}
timeout = {timeout}
[stores.slow]
type = "s3"
endpoint = "{slow.url}"
bucket = "images"
prefix = "slow"
access_key = {{ file = "{folder}/user" }}
secret_key = {{ file = "{folder}/key" }}
timeout = 3600
[stores.mirror]
type = "http"
allow_hosts = ["127.0.0.1"]
timeout = {timeout}
"""


@dataclass(frozen=True, slots=True)
class Remote:
    """The mount, and what stands between it and its servers."""

    daemon: Daemon
    server: Swift
    between: Proxy
    web: Proxy
    slow: Proxy
    folder: Path
    """Of the credentials, `user` and `key`, and of `source`, a file with DATA."""

    @property
    def source(self) -> Path:
        """A local file with DATA."""
        return self.folder / "source.img"

    @property
    def cache(self) -> Path:
        """The cache's folder."""
        return self.folder / "cache"

    def path(self, store: str, name: str = IMAGE) -> Path:
        """An image through the mount."""
        return self.daemon.path / store / name

    def proxy(self, store: str) -> Proxy:
        """What stands before the server of a store."""
        return {"mirror": self.web, "slow": self.slow}.get(store, self.between)

    def cold(self, store: str, name: str = IMAGE) -> Path:
        """An image of which neither the cache nor the kernel has a byte."""
        path = self.path(store, name)
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        number = field(path, "id")
        folder = CacheFolder(self.cache, 10 << 30)

        def is_dropped() -> bool:
            # The mount lets go of a file a moment after its last close(2).
            with suppress(Conflict):
                folder.drop(number)
                return True
            return False

        wait_until(is_dropped, f"nobody reads {path}")
        return path

    def behave(self) -> None:
        """Let nothing go wrong any more, and wait until no store is left alone for what went."""
        for each in (self.between, self.web, self.slow):
            each.resume()
            each.set_plan(never)
        for store in STORES:
            is_right = partial(_is_right, self.path(store))
            wait_until(is_right, "an image is opened again")
            self.cold(store)
            wait_until(is_right, "a store is read again")

    def left_in_s3(self) -> list[str]:
        """Objects and unfinished uploads of the store `s3`, asked of the server itself."""
        account = s3_account.Account(
            self.server.s3_endpoint, self.server.user, self.server.key, self.folder
        )
        with s3_account.opened(account.settings(prefix="faults")) as store:
            return [*store.keys(), *s3_account.leftovers(store)]

    def left_in_swift(self) -> list[str]:
        """Objects and segments of the store `swift`."""
        account = swift_account.Account(self.server)
        return [*account.names(CONTAINER), *account.names(f"{CONTAINER}_segments")]


def failure(path: Path, offset: int = 0) -> int | None:
    """The errno of reading a piece of an image, or None if it is right."""
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            assert os.pread(fd, 100_000, offset) == DATA[offset : offset + 100_000]
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno
    return None


def _is_right(path: Path) -> bool:
    return failure(path) is None


@contextmanager
def remote_mount(server: Swift, folder: Path, *, cache: Path | None = None) -> Iterator[Remote]:
    """Run it, in `folder`; the cache may be elsewhere."""
    for name, text in (("user", server.user), ("key", server.key)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    (folder / "source.img").write_bytes(DATA)
    if cache is not None:
        (folder / "cache").symlink_to(cache)
    s3_account.Account(server.s3_endpoint, server.user, server.key, folder).make_bucket()
    with ExitStack() as running:
        _fuse_control()
        web = running.enter_context(nginx(_made(folder / "nginx")))
        (web.root / IMAGE).write_bytes(DATA)
        between = running.enter_context(proxy(server.port))
        before_web = running.enter_context(proxy(web.port))
        slow = running.enter_context(proxy(server.port))
        sections = _SECTIONS.format(
            timeout=TIMEOUT,
            folder=folder,
            cache=folder / "cache",
            between=between,
            slow=slow,
            swift=server,
            container=CONTAINER,
            segment=5 * MIB,
        )
        sections += "".join(_POLICY.format(name=name) for name in STORES)
        daemon = Daemon(folder / "host", sections=sections)
        running.enter_context(daemon.mounted())
        remote = Remote(daemon, server, between, before_web, slow, folder)
        for store in ("s3", "swift", "slow"):
            run("cp", remote.source, remote.path(store))
        run("ln", "-s", f"{before_web.url}/{IMAGE}", remote.path("mirror"))
        daemon.command("verify", field(remote.path("mirror"), "id"))
        # The link is a file now; the kernel shall not remember that it was none.
        wait_until(lambda: not remote.path("mirror").is_symlink(), "the link is an image")
        try:
            yield remote
        finally:
            for each in (between, before_web, slow):
                each.resume()
                each.set_plan(never)


def _fuse_control() -> None:
    """Have the files by which a mount sets its limits, which systemd mounts on every host.

    They stay: another worker of the same run may need them as well.
    """
    place = "/sys/fs/fuse/connections"
    attempt("mount", "-t", "fusectl", "fusectl", place)
    assert os.path.ismount(place)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
