"""An image in S3 through the mount, against obstore itself, `rclone mount` and s3fs.

All ask one server, Ceph's radosgw over an OSD in memory, on this machine: it takes its share
of the two cores from each of them.  `far` puts a link between that gives each connection
32 MiB/s, as a store that is not on the same machine may.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from obstore.store import S3Store

from tests.bench import measure
from tests.bench.conftest import Table
from tests.bench.measure import MIB
from tests.kit.daemon import Daemon
from tests.kit.stores.s3_account import Account
from tests.servers.ceph import ceph, radosgw
from tests.servers.network.rated_link import rated_link

SIZE = 512 * MIB
UPLOAD = 1024 * MIB
BLOCK = 8 * MIB
AT_ONCE = 8
CONNECTION = 32 * MIB
"""Bytes a second of one connection that is far."""
RANDOM = 128 * 1024
READS = 400
OURS = "imagefs"
_NAME = "image.img"

_SECTIONS = """\
[cache]
path = "{folder}/cache"
size = 4_294_967_296
[stores.s3]
type = "s3"
endpoint = "{account.endpoint}"
bucket = "images"
prefix = "ours"
access_key = {{ file = "{access}" }}
secret_key = {{ file = "{secret}" }}
"""


_PROBE = """
import os, select, sys, time
folder = os.open(sys.argv[1], os.O_RDONLY)
slept = time.perf_counter()
while not select.select([sys.stdin], [], [], 0.005)[0]:
    start = time.perf_counter()
    os.fsync(folder)
    print(start, time.perf_counter() - start, start - slept - 0.005)
    slept = time.perf_counter()
"""


@dataclass(frozen=True, slots=True)
class Peers:
    """The same object: through our mount, through others', and by obstore."""

    ours: Daemon
    mounts: dict[str, Path]
    client: S3Store
    source: Path

    def forget(self) -> None:
        """Let nobody have anything of it any more."""
        for path in self.mounts.values():
            measure.forget_pages(path)
        self.ours.command("cache", "drop", f"/s3/{_NAME}")


@pytest.fixture(params=["near", "far"])
def distance(request: pytest.FixtureRequest) -> str:
    """Whether the server is on this machine, or as if it were elsewhere."""
    return str(request.param)


@pytest.fixture
def peers(tmp_path: Path, distance: str) -> Iterator[Peers]:
    """A server, our mount, rclone's and s3fs's."""
    with ExitStack() as stack:
        cluster = stack.enter_context(ceph(tmp_path / "cluster", 8 << 30))
        server = stack.enter_context(radosgw(cluster))
        account = Account(server.url, server.access_key, server.secret_key, tmp_path)
        account.make_bucket()
        if distance == "far":
            port = int(server.url.rpartition(":")[2])
            far = stack.enter_context(rated_link(tmp_path / "link", port, CONNECTION))
            account = account.by_way_of(far)
        secrets = {
            "access": account.reference(account.access_key).file,
            "secret": account.reference(account.secret_key).file,
        }
        text = _SECTIONS.format(folder=tmp_path, account=account, **secrets)
        ours = stack.enter_context(Daemon(tmp_path / "host", sections=text).mounted())
        source = measure.make_file(tmp_path / "source.img", SIZE)
        image = ours.path / "s3" / _NAME
        shutil.copyfile(source, image)
        key = os.getxattr(image, "user.image.id").decode()
        mounts = {OURS: image}
        for name, command in _mounts(account, tmp_path).items():
            place = tmp_path / name
            stack.enter_context(measure.other_mount(place, *command, place))
            mounts[name] = place / key
        client = S3Store(
            "images",
            prefix="ours",
            endpoint=account.endpoint,
            access_key_id=account.access_key,
            secret_access_key=account.secret_key,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )
        yield Peers(ours, mounts, client, source)


def _mounts(account: Account, folder: Path) -> dict[str, tuple[str | Path, ...]]:
    remote = (
        f":s3,provider=Ceph,access_key_id={account.access_key},"
        f"secret_access_key={account.secret_key},endpoint='{account.endpoint}':images/ours"
    )
    password = folder / "s3fs-password"
    password.touch(mode=0o600)
    password.write_text(f"{account.access_key}:{account.secret_key}")
    options = f"url={account.endpoint},use_path_request_style,passwd_file={password}"
    return {
        # With a CA bundle of the environment's, rclone cannot do without TLS.
        "rclone mount": (
            *("env", "-u", "AWS_CA_BUNDLE"),
            *("rclone", "mount", "--config=", "--read-only", remote),
        ),
        "s3fs": ("s3fs", "-f", "-o", options, "images:/ours"),
    }


def test_sequential(peers: Peers, table: Table, distance: str) -> None:
    """From beginning to end, cold; and again from what is kept."""
    key = peers.mounts["s3fs"].name
    works: dict[str, Callable[[], object]] = {
        name: partial(measure.read_all, path) for name, path in peers.mounts.items()
    }
    works["obstore, 8 x 8 MiB"] = partial(_read_by_obstore, peers.client, key)
    times = measure.in_turns(works, rounds=3, before=peers.forget)
    targets = {"obstore, 8 x 8 MiB": "≥ 0.8", "rclone mount": "≥ 1.5", "s3fs": "≥ 1.5"}
    _compare(table, f"sequential, cold, {distance}", times, SIZE, targets)
    ours = peers.mounts[OURS]
    local = peers.ours.path / "file" / _NAME
    shutil.copyfile(peers.source, local)
    works = {OURS: partial(measure.read_all, ours), "file store": partial(measure.read_all, local)}
    times = measure.in_turns(works, before=lambda: _forget_pages(ours, local))
    _compare(table, "from the cache", times, SIZE, {"file store": "≥ 0.9"})
    assert peers.ours.process is not None
    table.note("peak memory of the mount", f"{peers.ours.peak_memory() / MIB:.0f} MiB", "< 300")


@pytest.mark.parametrize("distance", ["near"])
def test_loop(peers: Peers, table: Table) -> None:
    """How long the mount's loop keeps others waiting meanwhile.

    It answers an fsync(2) of a folder by itself, without a thread or the database: what that
    takes is at least what the loop was busy with something else, and what the machine was:
    beside it stands how much too late the one who asks was woken from its own sleep.
    """
    probe = [sys.executable, "-c", _PROBE, str(peers.ours.path / "s3")]
    busy = []
    with subprocess.Popen(probe, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        for _ in range(5):
            peers.forget()
            start = time.perf_counter()
            measure.read_all(peers.mounts[OURS])
            busy.append((start, time.perf_counter()))
        told, _ = other.communicate("stop")
    answers = [[float(word) for word in line.split()] for line in told.splitlines()]
    inside = [each for each in answers if any(start <= each[0] <= end for start, end in busy)]
    p99, late = (
        sorted(each[column] for each in inside)[len(inside) * 99 // 100] * 1000 for column in (1, 2)
    )
    what = f"p99 of {len(inside)} answers of the loop; of a sleep of who asks"
    table.note(what, f"{p99:.1f} ms; {late:.1f} ms", "< 10 ms")


@pytest.mark.parametrize("distance", ["near"])
@pytest.mark.parametrize("threads", [1, 8])
def test_random(peers: Peers, table: Table, threads: int) -> None:
    """Blocks from all over the image, cold."""
    works = {
        name: partial(_read_at_random, path, threads)
        for name, path in peers.mounts.items()
        if name != "s3fs"
    }
    times = measure.in_turns(works, rounds=3, before=peers.forget)
    what = f"random 128 KiB, cold, {threads} threads"
    _compare(table, what, times, READS * RANDOM, {"rclone mount": "≥ 1"})


@pytest.mark.parametrize("distance", ["near"])
def test_upload(peers: Peers, table: Table, tmp_path: Path) -> None:
    """`cp` into the mount, digests included, against obstore's own multipart put."""
    source = measure.make_file(tmp_path / "upload.img", UPLOAD)
    image = peers.ours.path / "s3" / "upload.img"
    trashed = peers.ours.path / "s3" / ".trash" / image.name
    used: list[float] = []

    def copy() -> None:
        assert peers.ours.process is not None
        before = measure.cpu_seconds(peers.ours.process.pid)
        # The real one: Python's writes 64 KiB at once, and cp what st_blksize tells, 1 MiB.
        measure.run("cp", source, image)
        used.append(measure.cpu_seconds(peers.ours.process.pid) - before)

    def put() -> None:
        peers.client.put("upload", source, chunk_size=BLOCK, max_concurrency=AT_ONCE)

    def make_room() -> None:
        if image.exists():
            image.unlink()
            trashed.unlink()

    times = measure.in_turns({OURS: copy, "obstore's put": put}, rounds=3, before=make_room)
    _compare(table, "cp", times, UPLOAD, {"obstore's put": "≥ 0.8"})
    table.note("cp: processor time of the mount", f"{statistics.median(used):.1f} s")


def _read_by_obstore(client: S3Store, key: str) -> None:
    def read(start: int) -> int:
        return len(client.get_range(key, start=start, end=min(start + BLOCK, SIZE)))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert sum(pool.map(read, range(0, SIZE, BLOCK))) == SIZE


def _read_at_random(path: Path, threads: int) -> None:
    def read(seed: int) -> None:
        measure.read_at_random(path, RANDOM, READS // threads, seed)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(threads)))


def _forget_pages(*paths: Path) -> None:
    for path in paths:
        measure.forget_pages(path)
    subprocess.run(["sync"], check=True)


def _compare(
    table: Table, what: str, times: dict[str, float], size: int, targets: dict[str, str]
) -> None:
    for name in times:
        if name != OURS:
            speed = [f"{size / MIB / times[it]:.0f} MiB/s" for it in (OURS, name)]
            table.add(f"{what}, to {name}", speed, times[name] / times[OURS], targets.get(name, ""))
