"""A Ceph cluster on loopback: a monitor, a manager and one OSD that keeps all in memory.

    with ceph(folder) as cluster, radosgw(cluster) as s3: ...

No systemd, no fixed ports, nothing outside of `folder`.  Authentication is on, so that
what a client may do is what its capabilities say.  Everything ends with the process
that started it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from catalog.stores.rbd import bindings
from tests.servers.programs import free_ports, program

_PROGRAMS = {
    "ceph-mgr": "ceph-mgr",
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "radosgw": "radosgw",
    # And with it, python3-rados and python3-rbd.
    "rbd": "ceph-common",
}
"""Each with its Debian package."""

POOL = "images"
USER = "imagefs"

WATCH_TIMEOUT = 6
"""Seconds until the cluster forgets a client that died with an image open; Ceph's own is 30."""

_START_TIMEOUT = 60

_CONF = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{port}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
keyring = {folder}/keyring
run dir = {folder}
# A path of a socket has at most 107 bytes, and a test's folder may have more.
admin socket =
log file = {folder}/log/$name.log
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon data avail warn = 1
mon data avail crit = 0
# Changes of the cluster's maps wait a second each otherwise.
paxos propose interval = 0.02
paxos min wait = 0.01
[mon]
mon data = {folder}/mon
mon cluster log file = {folder}/log/cluster.log
mon initial members = a
[mgr]
mgr data = {folder}/mgr
mgr initial modules =
[osd]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = {size}
osd op num shards = 2
osd client watch timeout = {watch_timeout}
# A test stops the OSD for longer than a lease on a busy machine; one alone then never answers
# again, as nobody renews its lease.
osd pool default read lease ratio = 1000
[client]
keyring = {folder}/keyring
objecter tick interval = 1
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{s3_port}
rgw data = {folder}/rgw
# Gives out session tokens.
rgw s3 auth use sts = true
rgw sts key = 0123456789abcdef
rgw thread pool size = 32
# Deleted objects fill the memory otherwise.
rgw gc obj min wait = 1
rgw gc processor period = 5
rgw gc processor max time = 5
client mount timeout = 20
"""

_CAPS = {
    "mon.": {"mon": "allow *"},
    "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"},
    "mgr.x": {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"},
    "client.admin": {"mon": "allow *", "mgr": "allow *", "osd": "allow *", "mds": "allow *"},
    "client.rgw": {"mon": "allow rw", "mgr": "allow rw", "osd": "allow rwx"},
    # What docs/ tells an operator to give, and no more.
    f"client.{USER}": {
        "mon": "profile rbd",
        "mgr": f"profile rbd pool={POOL}",
        "osd": f"profile rbd pool={POOL}",
    },
}
"""Who there is, with what they may do."""


@dataclass(frozen=True, slots=True)
class Ceph:
    """A running cluster with one empty pool for images."""

    folder: Path
    """Configuration, keyring and logs."""
    conf: Path
    fsid: str
    pool: str
    """Where `user` may work."""
    user: str
    """Without `client.`; its key is in the keyring that `conf` names."""
    osd_pid: int
    mon_pid: int
    s3_port: int
    """Kept for `radosgw`."""

    def run(self, *command: str) -> str:
        """Run a client program of Ceph's as the administrator; return what it prints."""
        full = [command[0], "-c", str(self.conf), *command[1:]]
        done = subprocess.run(full, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def empty(self) -> None:
        """Make the pool a new one: also what is in use is gone."""
        self.run("rados", "purge", self.pool, "--yes-i-really-really-mean-it")


@dataclass(frozen=True, slots=True)
class S3:
    """A running radosgw."""

    url: str
    access_key: str
    secret_key: str
    pid: int


@contextmanager
def ceph(folder: Path, size: int = 4 << 30) -> Iterator[Ceph]:
    """Run a cluster that has room for `size` bytes, of the memory they take.

    It answers, and its pool can be written to, when this returns.
    """
    for name, package in _PROGRAMS.items():
        program(name, package)
    cluster_id, osd_id = str(uuid.uuid4()), str(uuid.uuid4())
    port, s3_port = free_ports(2)
    for name in "log mon mgr osd rgw".split():
        (folder / name).mkdir(parents=True)
    conf = folder / "ceph.conf"
    conf.write_text(
        _CONF.format(
            folder=folder,
            fsid=cluster_id,
            port=port,
            s3_port=s3_port,
            size=size,
            watch_timeout=WATCH_TIMEOUT,
        )
    )
    _make_keyring(folder / "keyring")
    _make_monitor(folder, cluster_id, port)
    with ExitStack() as daemons:
        mon = daemons.enter_context(_daemon(folder, "ceph-mon", "-i", "a"))
        _run(folder, "ceph", "osd", "new", osd_id)
        _run(folder, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_id)
        osd = daemons.enter_context(_daemon(folder, "ceph-osd", "-i", "0"))
        daemons.enter_context(_daemon(folder, "ceph-mgr", "-i", "x"))
        _run(folder, "ceph", "osd", "pool", "create", POOL, "4")
        _run(folder, "rbd", "pool", "init", POOL)
        yield Ceph(folder, conf, cluster_id, POOL, USER, osd, mon, s3_port)


@contextmanager
def radosgw(cluster: Ceph) -> Iterator[S3]:
    """Run the S3 and Swift server of a cluster, with one user; it answers when this returns.

    Over Swift the user is `test:tester` with the same secret.
    """
    with _daemon(cluster.folder, "radosgw", "-n", "client.rgw") as pid:
        url = f"http://127.0.0.1:{cluster.s3_port}"
        _wait_for(cluster.s3_port, pid)
        s3 = S3(url, "tester-access", "tester-secret", pid)
        keys = f"--access-key={s3.access_key} --secret-key={s3.secret_key}".split()
        cluster.run("radosgw-admin", "user", "create", "--uid=test", "--display-name=test", *keys)
        swift = f"--subuser=test:tester --access=full --key-type=swift --secret={s3.secret_key}"
        cluster.run("radosgw-admin", "subuser", "create", "--uid=test", *swift.split())
        yield s3


def link_bindings(programs: Path) -> None:
    """Give Ceph's own Python modules, which no package index has, to an environment."""
    (modules,) = programs.parent.glob("lib/python3*/site-packages")
    for module in (bindings.rados(), bindings.rbd()):
        link = modules / Path(module.__file__).name
        if not link.exists():
            link.symlink_to(module.__file__)


@contextmanager
def paused(*pids: int) -> Iterator[None]:
    """Stop servers as a hung machine does: connections stay open, and nothing is answered."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:
            _wait_until_stopped(pid)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _wait_until_stopped(pid: int) -> None:
    """A thread that runs meanwhile could still answer."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)


def _wait_for(port: int, pid: int) -> None:
    """Wait until somebody listens.  Raises TimeoutError, ProcessLookupError."""
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        os.kill(pid, 0)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port}")


def _make_keyring(path: Path) -> None:
    """Everybody's key in one file, which the monitor takes over when it is made."""
    path.touch(mode=0o600)
    for name, caps in _CAPS.items():
        options = [text for who, what in caps.items() for text in ("--cap", who, what)]
        command = ["ceph-authtool", str(path), "--gen-key", "-n", name, *options]
        subprocess.run(command, check=True, capture_output=True)


def _make_monitor(folder: Path, cluster_id: str, port: int) -> None:
    path = str(folder / "monmap")
    make = ["monmaptool", "--create", "--fsid", cluster_id]
    make += ["--addv", "a", f"[v2:127.0.0.1:{port}]", path]
    subprocess.run(make, check=True, capture_output=True)
    keyring = str(folder / "keyring")
    _run(folder, "ceph-mon", "-i", "a", "--mkfs", "--monmap", path, "--keyring", keyring)


def _run(folder: Path, program: str, *arguments: str) -> None:
    """Run a program to its end; what it says is told if it fails."""
    command = [program, "-c", str(folder / "ceph.conf"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_START_TIMEOUT
    )
    if done.returncode:
        logs = "\n".join(path.read_text()[-2000:] for path in (folder / "log").glob("*.out"))
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}\n{logs}")


@contextmanager
def _daemon(folder: Path, program: str, *arguments: str) -> Iterator[int]:
    """Run a server, which does not outlive us; yields its process id."""
    log = folder / "log" / f"{program}.out"
    command = ["setpriv", "--pdeathsig", "KILL", program, "-c", str(folder / "ceph.conf")]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *arguments, "-f"], stdout=output, stderr=output)
    try:
        yield process.pid
    finally:
        # All is in memory: there is nothing an orderly end would save.
        process.kill()
        process.wait()
