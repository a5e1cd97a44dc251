"""Where imagefs is mounted on this host, and whether a mount answers.

A mount whose process is stopped, or hangs, answers nobody: whoever asks it waits, and cannot
even be killed once the process has taken the request.  So only a process of its own asks, and
is left behind when it takes too long; and the mount table is the kernel's, which waits for no
mount.  Threading: any thread but trio's, as the mount that is asked may be this process' own.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

FILE_SYSTEM = "fuse.imagefs"
"""Our type in the mount table."""
BIN = os.pathsep.join(("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"))
"""Where tools are looked for: a folder of $PATH may lie in a mount that hangs."""
PATIENCE = 5.0
"""Seconds a mount has to answer."""

_MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
_FOUND = 150
"""An exit code of `_FIRST_ON` for its first path; it goes on from there."""
_FIRST_ON = f"""
import os, sys
for code, path in enumerate(sys.argv[2:], {_FOUND}):
    path = os.path.realpath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    if os.stat(path).st_dev == int(sys.argv[1]):
        sys.exit(code)
"""
_DEAD = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV})


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount of ours."""

    path: str
    connection: int
    """The kernel's number of it: /sys/fs/fuse/connections/NUMBER."""


class State(Enum):
    """What becomes of a request."""

    ANSWERS = auto()
    DEAD = auto()
    """Its process has ended: every request fails at once."""
    HANGS = auto()
    """No answer in time: its process is stopped, or waits for something itself."""


def parse(mountinfo: str) -> list[Mounted]:
    """Our mounts in the text of /proc/PID/mountinfo (proc(5)), the topmost of a place last."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[:1] != [FILE_SYSTEM]:
            continue
        fields = before.split()
        path = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        found.append(Mounted(path, int(fields[2].partition(":")[2])))
    return found


def mounted() -> list[Mounted]:
    """Our mounts, as far as this process can see."""
    return parse(_MOUNTINFO.read_text(errors="surrogateescape"))


def state(path: str) -> State:
    """Whether what is mounted there answers."""
    # Not stat(2): the kernel goes on answering that from its cache for a second.
    code = ask("os.statvfs(sys.argv[1])", path)
    if code is None:
        return State.HANGS
    return State.DEAD if code in _DEAD else State.ANSWERS


def first_on(device: int, paths: Sequence[Path]) -> Path | None:
    """The first path that leads onto that device, whether it is there or would be.

    None also when what one of them is on does not answer.
    """
    code = _run(_FIRST_ON, str(device), *map(str, paths))
    return paths[code - _FOUND] if code is not None and code >= _FOUND else None


def ask(expression: str, path: str, seconds: float = PATIENCE) -> int | None:
    """Evaluate a Python expression on `path` (`sys.argv[1]`) in a process of its own.

    Returns 0, the errno of an OSError, or None if it was not done after so many seconds.
    """
    script = f"import ctypes, os, sys\ntry:\n {expression}\nexcept OSError as e: sys.exit(e.errno)"
    return _run(script, path, seconds=seconds)


def _run(script: str, *arguments: str, seconds: float = PATIENCE) -> int | None:
    asking = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Not the folder of whoever calls: that may lie in a mount that hangs.
        cwd="/",
        start_new_session=True,
    )
    try:
        return asking.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if asking.returncode is None:
            # It may not end before the mount does: nobody waits for that.
            asking.kill()
            asking.returncode = -1
