"""What the mount's tests do again and again: run a real tool, look at an image."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.kit.catalog import some_bytes as some_bytes
from tests.kit.daemon import wait_until

MIB = 1024 * 1024
ROOT = os.geteuid() == 0
NOBODY = 65534

CHILD = """
def child(work):
    number = os.fork()
    if number == 0:
        work()
        os._exit(0)
    return number
"""
"""Part of a program: a child process that does some work and ends."""


def run(*command: object, stdin: bytes | None = None, cwd: Path | None = None) -> str:
    """Run a tool that must succeed; return what it prints."""
    result = attempt(*command, stdin=stdin, cwd=cwd)
    assert result.returncode == 0, f"{command}: {result.stderr.decode()}"
    return result.stdout.decode(errors="replace")


def attempt(
    *command: object, stdin: bytes | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a tool that may fail."""
    return subprocess.run(
        [str(word) for word in command],
        input=stdin,
        capture_output=True,
        check=False,
        cwd=cwd,
        timeout=120,
        env={**os.environ, "LC_ALL": "C"},
    )


def shell(script: str, *arguments: object, cwd: Path | None = None) -> str:
    """Run a shell script that must succeed; its arguments are $1, $2, …"""
    return run("sh", "-ec", script, "sh", *arguments, cwd=cwd)


def python(script: str, *arguments: object) -> str:
    """Run a Python program of its own, which must succeed."""
    return run(sys.executable, "-c", script, *arguments)


def as_nobody(
    *command: object, cwd: Path, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a tool as another user, who reaches files only relative to `cwd`."""
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
    return attempt(*user, *command, cwd=cwd, stdin=stdin)


def field(path: Path, name: str) -> str:
    """An image's field, as getfattr(1) shows it; empty when it has none."""
    try:
        return os.getxattr(path, f"user.image.{name}", follow_symlinks=False).decode()
    except OSError:
        return ""


def status(path: Path) -> str:
    """An image's status."""
    return os.getxattr(path, "user.image.status", follow_symlinks=False).decode()


def mode(path: Path) -> int:
    """The permission bits."""
    return path.stat().st_mode & 0o7777


def settled(path: Path) -> str:
    """The status of an image that nobody writes any more.

    close(2) returns with it (`test_close`), unless the machine is too busy to tell in time.
    """
    wait_until(lambda: status(path) != "saving", "nobody has it any more")
    return status(path)


def assert_active(path: Path, data: bytes) -> None:
    """The image is active and is, byte for byte, what its fields and its digest say."""
    assert settled(path) == "active"
    assert path.read_bytes() == data
    assert path.stat().st_size == len(data)
    assert field(path, "size") == str(len(data))
    assert field(path, "os_hash_value") == hashlib.sha256(data).hexdigest()
    assert mode(path) & 0o222 == 0


def trashed(path: Path) -> Path:
    """Where an image of that name is once it is in the trash of the store `file`."""
    store = next(above for above in path.parents if above.name in ("file", "other", "web"))
    return store / ".trash" / path.name
