"""libvirt's storage driver, in a mount namespace with configuration and state of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DEADLINE = 30.0

# What the daemon finds at fixed places, and must not change on this machine.
_SCRIPT = """
set -e
for folder in /etc/libvirt /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p "$folder"
    mount -t tmpfs none "$folder"
done
# The driver for qemu, which is not asked for anything here, wants its user to exist.
for file in passwd group; do
    { cat "/etc/$file"; echo "$2"; } > "/run/libvirt/$file"
    mount --bind "/run/libvirt/$file" "/etc/$file"
done
printf 'auth_unix_rw = "none"\\nunix_sock_dir = "%s"\\n' "$1" > /etc/libvirt/libvirtd.conf
exec libvirtd --config /etc/libvirt/libvirtd.conf --pid-file /run/libvirt/libvirtd.pid
"""
_USER = "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/bin/false"


class Libvirt:
    """A running libvirtd."""

    def __init__(self, socket: Path) -> None:
        self._uri = f"storage:///system?socket={socket}"

    def virsh(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Ask libvirtd by virsh."""
        return subprocess.run(
            ["virsh", "--quiet", "--connect", self._uri, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
            env={**os.environ, "LC_ALL": "C"},
        )

    def volumes(self, pool: str) -> list[str]:
        """The names of a pool's volumes."""
        listed = self.virsh("vol-list", pool)
        assert listed.returncode == 0, listed.stderr
        return sorted(line.split()[0] for line in listed.stdout.splitlines())


@contextmanager
def libvirtd(folder: Path) -> Iterator[Libvirt]:
    """Run libvirtd; its socket and log are in `folder`."""
    assert shutil.which("libvirtd"), "these tests need libvirt-daemon"
    # A path to a socket is short.
    sockets = Path("/tmp") / f"libvirt-{os.getpid()}"
    sockets.mkdir()
    unshare = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _SCRIPT, "sh"]
    with (folder / "libvirtd.log").open("wb") as log:
        process = subprocess.Popen([*unshare, str(sockets), _USER], stdout=log, stderr=log)
    try:
        socket = sockets / "libvirt-sock"
        give_up_at = time.monotonic() + DEADLINE
        while not socket.exists():
            said = (folder / "libvirtd.log").read_text()
            assert process.poll() is None, said
            assert time.monotonic() < give_up_at, said
            time.sleep(0.05)
        yield Libvirt(socket)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        shutil.rmtree(sockets, ignore_errors=True)
