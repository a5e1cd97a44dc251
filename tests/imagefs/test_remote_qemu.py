"""qemu, and many readers at once, on images in S3: what they read, and what the server sends."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalog.cache.boot_profile import encode
from catalog.model.image import CHUNK_SIZE
from tests.imagefs.boot_sector import DRIVES, assert_boots, make_disk
from tests.kit.daemon import Daemon, wait_until
from tests.kit.remote_mount import cache_of, make_cold, mounted, other_host, s3_section
from tests.kit.stores.s3_account import Account
from tests.kit.tools import MIB, field, run, some_bytes
from tests.servers.network.breaking_proxy import Fault, Proxy, always, never, proxy
from tests.servers.swift import Swift

CHUNKS = 20
DATA = some_bytes((CHUNKS - 1) * CHUNK_SIZE + 5, seed=6)
READERS = 16
PROFILE = "user.property.boot_profile"
BOOT = [0, 14, 15, 3, 9, 19]
"""The chunks that a boot reads, in its order."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """Two hosts on one catalog, with what passes between them and the server."""

    first: Daemon
    second: Daemon
    between: Proxy

    def fetched(self) -> Counter[int]:
        """How often the server was asked for each chunk, wholly or partly, since `set_plan`."""
        found: Counter[int] = Counter()
        for request in self.between.requests:
            if request.method == "GET" and "range" in request.headers:
                first, last = request.headers["range"].removeprefix("bytes=").split("-")
                found.update(range(int(first) // CHUNK_SIZE, int(last) // CHUNK_SIZE + 1))
        return found


@pytest.fixture(scope="module")
def hosts(swift_server: Swift, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two mounts, each with a cache of its own."""
    folder = tmp_path_factory.mktemp("hosts")
    with ExitStack() as stack:
        between = stack.enter_context(proxy(swift_server.port))
        account = Account(between.url, swift_server.user, swift_server.key, folder)
        account.make_bucket()
        first = stack.enter_context(mounted(folder / "first", s3_section("qemu", account)))
        second = stack.enter_context(other_host(first, folder / "second"))
        yield Hosts(first, second, between)


@pytest.fixture(scope="module")
def mount(hosts: Hosts) -> Daemon:
    """The first host's mount, whose log is looked at after each test."""
    return hosts.first


@pytest.fixture
def image(hosts: Hosts, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An image of raw data in S3 that no host has anything of."""
    source = tmp_path / "source.img"
    source.write_bytes(DATA)
    path = hosts.first.path / "qemu" / f"{request.node.name}.img"
    run("cp", source, path)
    make_cold(hosts.first, path)
    hosts.between.set_plan(never)
    return path


def _read_direct(path: Path, chunks: list[int]) -> None:
    """Read a page in the midst of each chunk, past the kernel's cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as page:
        for index in chunks:
            # The last chunk has but five bytes.
            at = min(index * CHUNK_SIZE + MIB, len(DATA) // 4096 * 4096)
            length = os.preadv(fd, [page], at)
            assert page[:length] == DATA[at : at + 4096]
    os.close(fd)


@pytest.mark.parametrize("engine", ["native", "io_uring"])
def test_qemu_reads_an_overlay(hosts: Hosts, tmp_path: Path, engine: str) -> None:
    """A guest's disk on top of an image in S3, without the host's page cache."""
    base = tmp_path / "base.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", base, "64M")
    run("qemu-io", "-c", "write -P 7 3M 20M", base)
    stored = hosts.first.path / "qemu" / f"base-{engine}.qcow2"
    run("cp", base, stored)
    overlay = tmp_path / "overlay.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", stored, overlay)
    for command in ("read -P 7 3M 20M", "read -P 0 0 3M", "write -P 9 4M 64k", "read -P 9 4M 64k"):
        output = run("qemu-io", "-t", "none", "-i", engine, "-c", command, overlay)
        assert "failed" not in output


@pytest.mark.parametrize("drive", DRIVES)
def test_a_guest_boots_from_s3(hosts: Hosts, tmp_path: Path, drive: str) -> None:
    """A machine boots from an overlay whose backing file is in S3, and cold."""
    image = hosts.first.path / "qemu" / f"boot-{DRIVES.index(drive)}.qcow2"
    make_disk(image, tmp_path)
    make_cold(hosts.first, image)
    assert_boots(image, tmp_path, drive)


def test_little_more_is_fetched_than_is_read(hosts: Hosts, image: Path, tmp_path: Path) -> None:
    """qemu reads 64 KiB here and there: at most 1.3 times the chunks that it touches are sent."""
    overlay, chance = tmp_path / "overlay.qcow2", random.Random(1)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image, overlay)
    places = [chance.randrange(0, len(DATA) - CHUNK_SIZE, 65536) for _ in range(12)]
    commands = [word for at in places for word in ("-c", f"read {at} 64k")]
    run("qemu-io", "-t", "none", "-i", "io_uring", *commands, overlay)
    # qemu reads the beginning as well, to see what it is.
    touched = {0, *(at // CHUNK_SIZE for at in places)}
    assert hosts.fetched().keys() >= touched
    assert hosts.between.body_sent <= 1.3 * len(touched) * CHUNK_SIZE


def test_a_boot_is_fetched_ahead_on_another_host(hosts: Hosts, image: Path) -> None:
    """What the first host's boot has read comes to the second when its boot begins."""
    _read_direct(image, BOOT)
    wait_until(lambda: PROFILE in os.listxattr(image), "the profile is saved")
    assert os.getxattr(image, PROFILE).decode() == encode(BOOT)
    hosts.between.set_plan(never)
    there = hosts.second.path / "qemu" / image.name
    number = field(there, "id")

    def cached() -> int:
        found = cache_of(hosts.second).images()
        return sum(each.claimed for each in found if each.image == number)

    with there.open("rb"):
        _read_direct(there, BOOT[:2])
        wait_until(lambda: cached() == len(BOOT), "all of the boot is in the second host's cache")
    assert hosts.fetched() == Counter(BOOT)
    _read_direct(there, BOOT)
    assert hosts.fetched() == Counter(BOOT)


def test_a_warm_image_needs_no_server(hosts: Hosts, image: Path) -> None:
    """`imagefs cache warm` fetches each chunk once; all is read though the server fails."""
    hosts.first.command("cache", "warm", f"/qemu/{image.name}")
    assert hosts.fetched() == Counter(range(CHUNKS))
    hosts.between.set_plan(always(Fault(status=503)))
    assert image.read_bytes() == DATA
    assert hosts.between.requests == []
    hosts.between.set_plan(never)


_READER = """
import hashlib, os, random, sys
path, number, size = sys.argv[1], int(sys.argv[2]), 1 << 17
fd = os.open(path, os.O_RDONLY)
offsets = list(range(0, os.fstat(fd).st_size, size))
if number % 2:
    random.Random(number).shuffle(offsets)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
sys.stdin.readline()
parts = {at: os.pread(fd, size, at) for at in offsets}
print(hashlib.sha256(b"".join(parts[at] for at in sorted(parts))).hexdigest())
"""


def test_many_readers_of_a_cold_image(hosts: Hosts, image: Path) -> None:
    """Sixteen processes, in order and at random: the server sends each chunk once."""
    command = [sys.executable, "-c", _READER, str(image)]
    pipe = subprocess.PIPE
    readers = [
        subprocess.Popen([*command, str(number)], stdin=pipe, stdout=pipe, text=True)
        for number in range(READERS)
    ]
    for reader in readers:
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
    digests = [reader.communicate()[0].strip() for reader in readers]
    assert digests == [field(image, "os_hash_value")] * READERS
    assert hosts.fetched() == Counter(range(CHUNKS))
    assert hosts.between.body_sent == len(DATA)
