"""A guest's first boot from an image in S3, on one host, and then on another.

What is measured is how long the guest waits for its reads, and what the server sends
for them.  A last start, on the second host again, finds all in the cache: it waits for
what reads cost at all, on a machine this busy.  The server is Ceph's radosgw behind a
relay that delays each request by 25 ms and sends 50 MB/s on each connection, as a store
in another building would.  The hosts are two mounts of one catalog on this machine, each
with a cache of its own.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from catalog.cache.boot_profile import decode
from catalog.model.image import CHUNK_SIZE
from tests.bench import measure
from tests.bench.conftest import Table
from tests.bench.measure import MIB, forget_pages
from tests.kit.daemon import Daemon, wait_until
from tests.kit.remote_mount import make_cold, mounted, other_host, s3_section
from tests.kit.stores.s3_account import Account
from tests.servers.ceph import ceph, radosgw
from tests.servers.guest import GUEST_SIZE, boot_guest, make_guest
from tests.servers.network.slow_relay import SlowRelay, slow_relay

SIZE = 1024 * MIB
DELAY = 0.025
RATE = 50_000_000
PROFILE = "user.property.boot_profile"
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Read:
    """One read of a boot."""

    offset: int
    size: int
    think: float
    """Seconds the guest computes before it."""


@dataclass(frozen=True, slots=True)
class Boot:
    """What a boot has cost."""

    waited: float
    """Seconds in reads, together."""
    fetched: int
    """Bytes the server has sent."""
    touched: int
    """Chunks that were read."""

    @property
    def excess(self) -> float:
        """How much more was fetched than the chunks that were read."""
        return self.fetched / (self.touched * CHUNK_SIZE)


def trace(seed: int, chunks: int = 100, reads: int = 1000) -> list[Read]:
    """Reads of 4 to 64 KiB that keep coming to new chunks, and back to old ones."""
    chance = random.Random(seed)
    places = chance.sample(range(SIZE // CHUNK_SIZE), chunks)
    found = []
    for number in range(reads):
        newest = number * chunks // reads
        chunk = places[newest if chance.random() < 0.5 else chance.randint(0, newest)]
        size = _PAGE << chance.randrange(5)
        offset = chance.randrange(0, CHUNK_SIZE - size + 1, _PAGE)
        found.append(Read(chunk * CHUNK_SIZE + offset, size, chance.expovariate(1 / 0.005)))
    return found


def boot(image: Path, reads: list[Read], flags: int) -> float:
    """Read as qemu does, which opens the image with these flags; the seconds waited."""
    waited = 0.0
    block = mmap.mmap(-1, 64 * 1024)
    fd = os.open(image, os.O_RDONLY | flags)
    try:
        for each in reads:
            time.sleep(each.think)
            begun = time.perf_counter()
            with memoryview(block)[: each.size] as part:
                assert os.preadv(fd, [part], each.offset) == each.size
            waited += time.perf_counter() - begun
    finally:
        os.close(fd)
        block.close()
    return waited


@dataclass(frozen=True, slots=True)
class Hosts:
    """Two hosts on one catalog, and the server that both read from."""

    first: Daemon
    second: Daemon
    server: SlowRelay


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """The server, the relay and both mounts."""
    folder = tmp_path_factory.mktemp("boot")
    with ExitStack() as stack:
        cluster = stack.enter_context(ceph(folder / "cluster"))
        s3 = stack.enter_context(radosgw(cluster))
        server = stack.enter_context(slow_relay(cluster.s3_port, delay=DELAY, rate=RATE))
        account = Account(server.url, s3.access_key, s3.secret_key, folder)
        account.make_bucket()
        first = stack.enter_context(mounted(folder / "first", s3_section("s3", account)))
        second = stack.enter_context(other_host(first, folder / "second"))
        yield Hosts(first, second, server)


@pytest.fixture(scope="module")
def name(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image for synthetic boots."""
    source = measure.make_file(tmp_path_factory.mktemp("source") / "source.img", SIZE)
    shutil.copyfile(source, hosts.first.path / "s3" / source.name)
    source.unlink()
    return source.name


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("cache", ["none", "writeback"])
def test_synthetic_boot(hosts: Hosts, table: Table, name: str, seed: int, cache: str) -> None:
    """A fixed trace of small reads, with time to think between them."""
    reads = trace(seed)
    touched = len({each.offset // CHUNK_SIZE for each in reads})
    boots: list[Boot] = []
    if profile_of(hosts.first.path / "s3" / name):
        os.removexattr(hosts.first.path / "s3" / name, PROFILE)
    for host in (hosts.first, hosts.second):
        make_cold(host, host.path / "s3" / name)
    for host in (hosts.first, hosts.second, hosts.second):
        image = host.path / "s3" / name
        forget_pages(image)
        before = hosts.server.sent
        waited = boot(image, reads, os.O_DIRECT if cache == "none" else 0)
        wait_until(partial(profile_of, image), "the boot profile is saved")
        boots.append(Boot(waited, hosts.server.sent - before, touched))
    compare(table, f"trace {seed}, cache={cache}", *boots)


@pytest.mark.parametrize("options", [(), ("-c",)], ids=["", "compressed"])
def test_real_boot(hosts: Hosts, table: Table, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Debian with systemd, under qemu without KVM, from an overlay on each host."""
    guest = make_guest()
    name = f"debian{''.join(options)}.qcow2"
    stored = hosts.first.path / "s3" / name
    measure.run("qemu-img", "convert", "-O", "qcow2", *options, guest.disk, stored)
    boots: list[Boot] = []
    make_cold(hosts.first, stored)
    for host in (hosts.first, hosts.second, hosts.second):
        image, overlay = host.path / "s3" / name, tmp_path / f"{len(boots)}.qcow2"
        before = hosts.server.sent
        # -u: the image is not opened before the guest opens it.
        make_overlay = ("qemu-img", "create", "-u", "-fqcow2", "-Fqcow2", "-b")
        measure.run(*make_overlay, image, overlay, str(GUEST_SIZE))
        waited = boot_guest(guest, overlay).waited
        wait_until(partial(profile_of, image), "the boot profile is saved")
        touched = sum(map(len, decode(profile_of(image), SIZE)))
        boots.append(Boot(waited, hosts.server.sent - before, touched))
    compare(table, " ".join(["Debian", *options]), *boots)


def profile_of(image: Path) -> str:
    """What was recorded of a boot of the image; empty if nothing was."""
    try:
        return os.getxattr(image, PROFILE).decode()
    except OSError:
        return ""


def compare(table: Table, what: str, first: Boot, second: Boot, warm: Boot) -> None:
    """Add the rows of an image's boots on two hosts."""
    waits = [f"{second.waited:.2f} s", f"{first.waited:.2f} s"]
    table.add(f"{what}: waiting, 2nd host to 1st", waits, second.waited / first.waited, "≤ 0.5")
    table.note(f"{what}: waiting with all of it cached", f"{warm.waited:.2f} s")
    for name, each in (("1st", first), ("2nd", second)):
        sizes = [f"{each.fetched / MIB:.0f} MiB", f"{each.touched} chunks"]
        table.add(f"{what}: fetched to touched, {name} host", sizes, each.excess, "≤ 1.3")
