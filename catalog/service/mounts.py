"""Where imagefs is mounted on this host, and whether a mount answers.

A mount whose process is stopped, or hangs, does not answer.  A process that asks it waits, and
cannot even be killed once the mount's process has taken the request.  So a child process asks,
and is left behind when it takes too long.  The mount table is the kernel's and can be read without
asking any mount.  Threading: any thread but trio's, as the mount may be this process' own.
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
"""The type of our mounts in the mount table."""
BIN = os.pathsep.join(("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"))
"""Where tools are looked for.  Not in $PATH: one of its folders may be in a mount that hangs."""
PATIENCE = 5.0
"""Seconds a mount has to answer."""

_MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
_FOUND = 150
"""The exit code of `_FIRST_ON` for the first path; each further path has the next number."""
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
    """The kernel's number of its connection: /sys/fs/fuse/connections/NUMBER."""


class State(Enum):
    """How a mount reacts to a request."""

    ANSWERS = auto()
    DEAD = auto()
    """Its process has ended: every request fails at once."""
    HANGS = auto()
    """No answer in time: its process is stopped, or waits for something itself."""


def parse(mountinfo: str) -> list[Mounted]:
    """Our mounts in the text of /proc/PID/mountinfo (proc(5)).

    If several are at one place, the topmost one is the last.
    """
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
    """Our mounts that this process can see."""
    return parse(_MOUNTINFO.read_text(errors="surrogateescape"))


def state(path: str) -> State:
    """Whether the mount at this path answers."""
    # Not stat(2): for a second the kernel answers that from its cache.
    code = ask("os.statvfs(sys.argv[1])", path)
    if code is None:
        return State.HANGS
    return State.DEAD if code in _DEAD else State.ANSWERS


def first_on(device: int, paths: Sequence[Path]) -> Path | None:
    """The first path that is on that device, or would be if it existed.

    Returns None also if the mount that one of the paths is on does not answer.
    """
    code = _run(_FIRST_ON, str(device), *map(str, paths))
    return paths[code - _FOUND] if code is not None and code >= _FOUND else None


def ask(expression: str, path: str, seconds: float = PATIENCE) -> int | None:
    """Evaluate a Python expression on `path` (`sys.argv[1]`) in a child process.

    Returns 0, the errno of an OSError, or None if it takes longer than `seconds`.
    """
    script = f"import ctypes, os, sys\ntry:\n {expression}\nexcept OSError as e: sys.exit(e.errno)"
    return _run(script, path, seconds=seconds)


def _run(script: str, *arguments: str, seconds: float = PATIENCE) -> int | None:
    asking = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Not the caller's folder: that may be in a mount that hangs.
        cwd="/",
        start_new_session=True,
    )
    try:
        return asking.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if asking.returncode is None:
            # Killed, but not waited for: while the mount hangs, the kernel may not let it end.
            asking.kill()
            asking.returncode = -1
