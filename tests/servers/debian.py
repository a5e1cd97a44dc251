"""Debian 12 as it is after a minimal installation, in namespaces of its own.

Its files are layers: one that all tests share and never change, and what each adds.  The first is
made once a checkout, in `.servers/`, from the mirror that this machine's apt is configured for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from uuid import uuid4

from tests.kit.marks import check_marked
from tests.servers.programs import SERVERS, one_at_a_time, program

SUITE = "bookworm"
_ARCHIVES = SERVERS / "debian-archives"
"""What apt has downloaded for one of them, for the others."""

# The cgroup is its own, so that its systemd finds nothing else there; what is the kernel's it may
# only read.  In a chroot(2) no service could have a user namespace.
_START = """
mkdir "$5" && echo 0 > "$5/cgroup.procs"
exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child sh -e -c '
mount -t overlay -o "lowerdir=$2,upperdir=$3,workdir=$4" debian "$1"
mount -t proc proc "$1/proc"
mount --bind -o ro "$1/proc/sys" "$1/proc/sys"
mount -t sysfs -o ro sys "$1/sys"
mount -t cgroup2 cgroup "$1/sys/fs/cgroup"
mount -t tmpfs run "$1/run"
mount --bind "$6" "$1/var/cache/apt/archives"
test -e "$1/dev/fuse" || mknod -m 666 "$1/dev/fuse" c 10 229
cp /etc/resolv.conf "$1/etc/resolv.conf"
hostname debian
cd "$1"
pivot_root . mnt
umount --lazy /mnt
test -x /lib/systemd/systemd || exec tail -f /dev/null
exec env -i container=test /lib/systemd/systemd
' sh "$@"
"""
_ENTER = ["--mount", "--pid", "--ipc", "--uts", "--cgroup", "--root"]
_SECONDS = 60.0
"""For it to boot."""


class NoDebian(Exception):
    """No Debian can be made here; the reason."""


@dataclass(frozen=True, slots=True)
class Debian:
    """A running one: its first process, as this machine sees it, and the layer it writes."""

    pid: int
    changes: Path

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line that runs a command in it, as root."""
        enter = ["nsenter", f"--target={self.pid}", *_ENTER, "--wdns=/"]
        variables = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"]
        return [*enter, "env", "-i", *variables, *map(str, arguments)]

    def try_(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command in it, whether it fails or not; its errors are in its output."""
        return subprocess.run(
            self.command(*arguments),
            stdin=DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def run(self, *arguments: str | Path) -> str:
        """Run a command in it; return what it prints."""
        done = self.try_(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}"
        return done.stdout

    def take(self, file: Path) -> str:
        """Copy a file into it; return its path there."""
        path = f"/root/{file.name}"
        with file.open("rb") as data:
            subprocess.run(self.command("cp", "/dev/stdin", path), stdin=data, check=True)
        return path


def minimal() -> Path:
    """The layer of a minimal installation, made if needed.  Raises NoDebian."""
    folder = SERVERS / f"debian-{SUITE}"
    stamp = folder / "var/lib/made"
    if os.geteuid() != 0:
        raise NoDebian("debootstrap needs root")
    debootstrap = program("debootstrap", "debootstrap")
    with one_at_a_time():
        if not stamp.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _ARCHIVES.mkdir(parents=True, exist_ok=True)
            make = [debootstrap, "--variant=minbase", SUITE, str(folder), _mirror()]
            done = subprocess.run(make, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise NoDebian(f"debootstrap: {done.stdout[-200:]} {done.stderr[-200:]}")
            # Nothing here outlives a test: dpkg need not wait for the disk after each file.
            (folder / "etc/dpkg/dpkg.cfg.d/test").write_text("force-unsafe-io\n")
            stamp.touch()
    return folder


def _mirror() -> str:
    """The mirror this machine's own Debian comes from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {SUITE}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise NoDebian(f"apt knows no mirror of {SUITE}")
    return done.stdout.split()[0]


@contextmanager
def debian(folder: Path, layers: Sequence[Path]) -> Iterator[Debian]:
    """One that runs on these layers, the topmost first, until the end; its changes are kept.

    It has booted if it has a systemd, and is ready to run commands in any case.  Raises NoDebian.
    """
    check_marked("Debian")
    root, changes, work = folder / "root", folder / "changes", folder / "work"
    for each in (root, changes, work):
        each.mkdir(parents=True)
    lower = ":".join(map(str, layers))
    group = _groups() / f"imagefs-test-{uuid4()}"
    places = [str(root), lower, *map(str, (changes, work, group, _ARCHIVES))]
    command = ["sh", "-e", "-c", _START, "sh", *places]
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(command, stdin=DEVNULL, stdout=console, stderr=console)
    try:
        yield _started(process, changes, folder / "console")
    finally:
        # Its first process takes all others with it, mounts included.
        process.kill()
        process.wait()
        _remove(group)


def _groups() -> Path:
    """Where cgroups (version 2) are.  Raises NoDebian."""
    command = ["findmnt", "--noheadings", "--output", "TARGET", "--types", "cgroup2"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    if not found:
        raise NoDebian("no cgroups of version 2 are mounted")
    return Path(found[0])


def _started(process: subprocess.Popen[bytes], changes: Path, console: Path) -> Debian:
    """The Debian whose first process is this one's child, once it runs commands."""
    give_up_at = time.monotonic() + _SECONDS
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < give_up_at and process.poll() is None:
        pid = int((children.read_text().split() or ["0"])[0])
        name = Path(f"/proc/{pid}/comm").read_text() if pid else ""
        host = Debian(pid, changes)
        # Until then it is a shell of this machine, with all of this machine's files.
        if name == "tail\n" or (
            name == "systemd\n"
            and host.try_("systemctl", "is-system-running", "--wait").stdout == "running\n"
        ):
            return host
        time.sleep(0.05)
    raise RuntimeError(f"it has not booted: {console.read_text()}")


def _remove(group: Path) -> None:
    """Remove a cgroup and those in it, of processes that have been killed."""
    give_up_at = time.monotonic() + _SECONDS
    folders = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
    for folder in [*folders, group]:
        while folder.exists():
            try:
                folder.rmdir()
            except OSError:
                # The kernel has not yet ended the last of them.
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.02)
