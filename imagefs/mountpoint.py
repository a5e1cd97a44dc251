"""Mount points: whether one is in use, and cleaning up after a dead mount.

Users: `mount`, `cli`.  Threading: none of this may be called from the trio loop, because
it may go through the kernel to the mount itself.
"""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

from catalog.errors import Conflict, Forbidden, NotAFolder, NotFound

_OCTAL = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}
FILE_SYSTEM = "fuse.imagefs"
"""Our type in the mount table."""


def mounted() -> list[Path]:
    """Where imagefs is mounted on this host, as far as this process can see."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == FILE_SYSTEM:
            found.append(Path(_unescape(before.split()[4])))
    return found


def _unescape(text: str) -> str:
    for code, character in _OCTAL.items():
        text = text.replace(code, character)
    return text


def is_mounted(path: Path) -> bool:
    """Whether imagefs is mounted there, alive or dead."""
    return path in mounted()


def is_dead(path: Path) -> bool:
    """Whether what is mounted there has lost its process."""
    try:
        # Not stat(2): the kernel goes on answering that from its cache for a second.
        os.statvfs(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def prepare(path: Path) -> None:
    """Make a mount point ready: a folder, nothing of ours on it, a dead mount removed.

    Raises NotFound, NotAFolder, Conflict when it is mounted already, Forbidden.
    """
    if is_mounted(path):
        if not is_dead(path):
            raise Conflict(str(path), "imagefs is mounted there already")
        unmount(path, lazy=True)
    if not path.exists():
        raise NotFound(str(path), "no such folder to mount on")
    if not path.is_dir():
        raise NotAFolder(str(path))


def unmount(path: Path, *, lazy: bool = False) -> None:
    """Unmount; `lazy` also when it is in use.  Raises Conflict, NotFound, Forbidden."""
    if not is_mounted(path):
        raise NotFound(str(path), "imagefs is not mounted there")
    command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    if lazy:
        command.append("-l" if os.geteuid() == 0 else "-z")
    result = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return
    reason = result.stderr.strip().rpartition(": ")[2] or "umount failed"
    if "busy" in reason:
        raise Conflict(str(path), "is in use: close the files that are open there (fuser -vm)")
    raise Forbidden(str(path), reason)
