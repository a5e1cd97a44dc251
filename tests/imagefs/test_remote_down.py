"""Remote stores that are down, hang or hold other data: an error in time, and nobody else waits."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.imagefs.faulty import CHUNK, DATA, IMAGE, STATED, STORES, Remote, failure
from tests.kit.daemon import DEADLINE, wait_until
from tests.kit.tools import attempt, field, run, settled
from tests.servers.network.breaking_proxy import Fault, always

HANG = Fault(stall=-1)


def test_hung_server_hangs_nobody_else(remote: Remote, tmp_path: Path) -> None:
    """200 wait for it, opening and reading; other stores are read and written, and names found."""
    path = remote.cold("slow")
    others = [remote.cold(store) for store in ("s3", "swift", "mirror")]
    # Open before it hangs, and with nothing read yet; half of them without the page cache.
    opened = [os.open(path, os.O_RDONLY | (os.O_DIRECT, 0)[i % 2]) for i in range(100)]
    remote.slow.set_plan(always(HANG))

    def read_opened(number: int) -> bool:
        at, block = number // 2 % 10 * CHUNK, mmap.mmap(-1, 4096)
        os.preadv(opened[number], [block], at)
        return block[:] == DATA[at : at + 4096]

    with ThreadPoolExecutor(200) as threads:
        waiting: list[Future[bool]] = [threads.submit(read_opened, i) for i in range(100)]
        waiting += [threads.submit(lambda: failure(path) is None) for _ in range(100)]
        wait_until(lambda: remote.slow.requests, "the hung server is asked")
        try:
            for other in others:
                run("timeout", DEADLINE, "cmp", remote.source, other)
            for store in ("file", "s3", "swift"):
                new = remote.path(store, "beside.img")
                run("timeout", DEADLINE, "cp", remote.source, new)
                run("timeout", DEADLINE, "rm", new)
            run("timeout", DEADLINE, "ls", "-lR", remote.daemon.path)
            run("timeout", DEADLINE, "df", remote.daemon.path)
            run("timeout", DEADLINE, "getfattr", "-d", path)
            assert not any(reader.done() for reader in waiting)
        finally:
            remote.behave()
        assert all(reader.result() for reader in waiting)
    for fd in opened:
        os.close(fd)


def test_ctrl_c_ends_a_waiting_reader(remote: Remote) -> None:
    """Nobody has to wait for the time-out of a server that hangs."""
    path = remote.cold("slow")
    with path.open("rb"):
        remote.slow.set_plan(always(HANG))
        with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as reader:
            wait_until(lambda: remote.slow.requests, "the hung server is asked")
            reader.send_signal(signal.SIGINT)
            assert reader.wait(DEADLINE) == -signal.SIGINT
        remote.behave()


@pytest.mark.parametrize("fault", [HANG, Fault(cut=-1, reset=True)], ids=["hang", "reset"])
def test_stores_that_are_down(remote: Remote, fault: Fault) -> None:
    """Opening and reading fail with EIO, names and attributes do not; they back, so is the data."""
    paths = [remote.cold(store) for store in STORES]
    opened = [os.open(path, os.O_RDONLY) for path in paths]
    for store in STORES:
        remote.proxy(store).set_plan(always(fault))
    with ThreadPoolExecutor(6) as threads:
        reads = [threads.submit(os.pread, fd, 4096, 5 * CHUNK) for fd in opened]
        reads += [threads.submit(path.read_bytes) for path in paths]
        for path in paths:
            assert (settled(path), path.stat().st_size) == ("active", len(DATA))
        for read in reads:
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                # And what two busy cores may add to it.
                read.result(STATED + 10)
    for fd in opened:
        os.close(fd)
    remote.behave()
    for path in paths:
        run("cmp", remote.source, path)


@pytest.mark.parametrize("store", ["s3", "swift", "mirror"])
def test_data_that_is_damaged_for_good(remote: Remote, store: str) -> None:
    """EIO and no wrong byte; the guest gets what is right in the same image."""
    path = remote.cold(store)
    remote.proxy(store).set_plan(always(Fault(corrupt=70_000), "GET"))
    said = attempt("qemu-io", "-t", "none", "-r", "-f", "raw", "-c", "read 4M 64k", path)
    assert said.returncode == 1
    assert b"read failed: Input/output error" in said.stdout
    remote.behave()
    run("cmp", remote.source, path)


def test_object_that_was_replaced(remote: Remote) -> None:
    """What is another object's now is not mixed with what was read before."""
    path = remote.cold("mirror")
    served = remote.folder / "nginx" / "www" / IMAGE
    with path.open("rb") as file:
        assert os.pread(file.fileno(), 4096, 0) == DATA[:4096]
        served.write_bytes(bytes(len(DATA)))
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.pread(file.fileno(), 4096, 8 * CHUNK)
    served.write_bytes(DATA)
    remote.behave()
    run("cmp", remote.source, path)


def test_tokens_that_end(remote: Remote) -> None:
    """A reader and a writer of Swift go on when every token is revoked in the midst."""
    path = remote.cold("swift")
    with path.open("rb") as file:
        for at in range(0, len(DATA), 3 * CHUNK):
            remote.server.expire_tokens()
            assert os.pread(file.fileno(), 4096, at) == DATA[at : at + 4096]
    remote.server.expire_tokens()
    run("cp", remote.source, remote.path("swift", "new.img"))
    run("cmp", remote.source, remote.cold("swift", "new.img"))
    run("rm", remote.path("swift", "new.img"))


def test_keys_that_are_changed(remote: Remote) -> None:
    """S3 keys that are revoked cost EIO until the new ones are in their files, and no longer."""
    path = remote.cold("s3")

    def revoked(request: object) -> Fault | None:
        headers = getattr(request, "headers")  # noqa: B009
        is_old = f"Credential={remote.server.user}/" in headers.get("authorization", "")
        return Fault(status=403) if is_old else None

    with path.open("rb") as file:
        assert os.pread(file.fileno(), 4096, 0) == DATA[:4096]
        remote.between.set_plan(revoked)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.pread(file.fileno(), 4096, 5 * CHUNK)
        (remote.folder / "user").write_text("test:second")
        wait_until(lambda: failure(path, 5 * CHUNK) is None, "the new key is used")
        assert os.pread(file.fileno(), 4096, 8 * CHUNK) == DATA[8 * CHUNK :][:4096]
    run("cp", remote.source, remote.path("s3", "new.img"))
    run("rm", remote.path("s3", "new.img"))
    (remote.folder / "user").write_text(remote.server.user)
    remote.behave()
    assert field(path, "message") == ""
