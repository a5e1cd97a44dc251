"""Mount points: making one ready, and taking a mount away, alive, dead or hung.

Nothing here waits for a mount: see `catalog.mounts`.  Threading: none of this may be called
from the trio loop.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from catalog import mounts
from catalog.errors import Conflict, Forbidden, NotAFolder, NotFound, StoreUnavailable
from catalog.mounts import Mounted, State

_UNMOUNTING = 20.0
"""Seconds an unmount may take: it waits for nobody, but for the kernel."""
_CONNECTIONS = Path("/sys/fs/fuse/connections")


def located(path: Path) -> Path:
    """The absolute path as the mount table has it; the mount itself is not asked."""
    return Path(os.path.realpath(path.parent)) / path.name if path.name else path


def find(path: Path) -> Mounted | None:
    """The mount of ours at that place, the topmost if there are several."""
    present = {each.path: each for each in mounts.mounted()}
    # As it was given first: a folder above may be in a mount that hangs.
    return present.get(str(path)) or present.get(str(located(path)))


def is_mounted(path: Path) -> bool:
    """Whether imagefs is mounted there, alive or dead."""
    return find(path) is not None


def is_dead(path: Path) -> bool:
    """Whether what is mounted there has lost its process."""
    return mounts.state(str(path)) is State.DEAD


def prepare(path: Path) -> None:
    """Make a mount point ready: a folder, nothing of ours on it, a dead mount removed.

    Raises NotFound, NotAFolder, Conflict when it is mounted already, StoreUnavailable when it
    does not answer, Forbidden.
    """
    if is_mounted(path):
        match mounts.state(str(path)):
            case State.ANSWERS:
                raise Conflict(str(path), "imagefs is mounted there already")
            case State.HANGS:
                raise _hangs(path)
            case State.DEAD:
                unmount(path, lazy=True)
    match mounts.ask("os.scandir(sys.argv[1]).close()", str(path)):
        case None:
            raise StoreUnavailable(str(path), "what is there does not answer")
        case errno.ENOENT:
            raise NotFound(str(path), "no such folder to mount on")
        case errno.ENOTDIR:
            raise NotAFolder(str(path))


def check_outside(path: Path, folders: Mapping[str, Path]) -> None:
    """Raise Conflict if one of the catalog's own folders lies at or below the mount point.

    The mount would then wait for itself, and with it whatever looks at it.  By names alone: a
    folder may be on a file server that does not answer.  See also `check_apart`.
    """
    for key, folder in folders.items():
        for place in (path, located(path)):
            if Path(os.path.normpath(folder)).is_relative_to(os.path.normpath(place)):
                raise _below(path, key, folder)


def check_apart(path: Path, device: int, folders: Mapping[str, Path]) -> None:
    """Raise Conflict if one of the folders is on `device`, the mount itself, now that it answers.

    Links and binds lead there under other names.
    """
    found = mounts.first_on(device, list(folders.values()))
    for key, folder in folders.items():
        if folder == found:
            raise _below(path, key, folder)


def _below(path: Path, key: str, folder: Path) -> Conflict:
    return Conflict(str(path), f"{key}, {folder}, lies below it: mount elsewhere, or move that")


def check_answers(path: Path) -> None:
    """Raise StoreUnavailable unless the mount there answers."""
    match mounts.state(str(path)):
        case State.HANGS:
            raise _hangs(path)
        case State.DEAD:
            raise StoreUnavailable(str(path), "mounted, but its process has ended")


def unmount(path: Path, *, lazy: bool = False, force: bool = False) -> None:
    """Unmount; `lazy` also when it is in use, `force` also when it hangs.

    `force` ends every request that waits for the mount with an error, and those that come.
    Raises Conflict, NotFound, Forbidden, and StoreUnavailable for a mount that hangs.
    """
    mount = find(path)
    if mount is None:
        raise NotFound(str(path), "imagefs is not mounted there")
    if force:
        _abort(mount)
    elif not lazy and mounts.state(mount.path) is State.HANGS:
        raise _hangs(path)
    # Of a mount that was aborted the open files are no reason to keep it.
    code = _unmount(mount.path, lazy=lazy or force)
    match code:
        case 0:
            return
        case None:
            raise _hangs(path)
        case errno.EBUSY:
            raise Conflict(str(path), "is in use: close the files that are open there (fuser -vm)")
    raise Forbidden(str(path), os.strerror(code))


def _hangs(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        str(path),
        "the mount does not answer: its process is stopped or waits for something;"
        f" 'imagefs umount --force {path}' takes it away",
    )


def _abort(mount: Mounted) -> None:
    """Cut the mount off from its process: whatever waits for it goes on, with an error."""
    control = _CONNECTIONS / str(mount.connection) / "abort"
    try:
        # Opened before the mount is looked for again: the kernel gives the number of a mount that
        # has gone to the next mount, and a file that was opened before does nothing to that one.
        with control.open("w") as file:
            if find(Path(mount.path)) != mount:
                raise NotFound(mount.path, "imagefs is not mounted there any more")
            file.write("1")
    except FileNotFoundError:
        reason = f"{control} is not there: mount -t fusectl none {_CONNECTIONS}"
        raise Forbidden(mount.path, reason) from None
    except OSError as error:
        raise Forbidden(mount.path, f"cannot be aborted: {error.strerror}") from error


def _unmount(path: str, *, lazy: bool) -> int | None:
    """Take it out of the tree; returns 0, an errno, or None if that takes too long."""
    if os.geteuid() == 0:
        # Not umount(8), which asks the mount itself.  2 is MNT_DETACH, 8 UMOUNT_NOFOLLOW.
        flags = 8 | (2 if lazy else 0)
        call = f"ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(sys.argv[1]), {flags})"
        failed = "(_ for _ in ()).throw(OSError(ctypes.get_errno(), ''))"
        return mounts.ask(f"{call} and {failed}", path, _UNMOUNTING)
    tool = shutil.which("fusermount3", path=mounts.BIN)
    if tool is None:
        return errno.ENOENT
    command = [tool, "-u", *(["-z"] if lazy else []), path]
    unmounting = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
    )
    try:
        _out, said = unmounting.communicate(timeout=_UNMOUNTING)
    except subprocess.TimeoutExpired:
        unmounting.kill()
        unmounting.returncode = -1  # nobody waits for it
        return None
    if unmounting.returncode == 0:
        return 0
    return errno.EBUSY if b"busy" in said else errno.EPERM
