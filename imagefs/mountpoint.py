"""Mount points: prepares one, and removes a mount, whether it is alive, dead or hangs.

Nothing here waits for a mount (see `catalog.service.mounts`).  Threading: any thread but trio's.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from catalog.errors import Conflict, Forbidden, NotAFolder, NotFound, StoreUnavailable
from catalog.service import mounts
from catalog.service.mounts import Mounted, State

_UNMOUNTING = 20.0
"""Seconds that an unmount may take; it waits for nobody but the kernel."""
_CONNECTIONS = Path("/sys/fs/fuse/connections")


def located(path: Path) -> Path:
    """The absolute path as in the mount table; the mount itself is not asked."""
    return Path(os.path.realpath(path.parent)) / path.name if path.name else path


def find(path: Path) -> Mounted | None:
    """Our mount at that place, the topmost one if there are several."""
    present = {each.path: each for each in mounts.mounted()}
    # First the path as it was given: `located` looks at folders above, which may be in a mount that
    # hangs.
    return present.get(str(path)) or present.get(str(located(path)))


def is_mounted(path: Path) -> bool:
    """Whether imagefs is mounted there, alive or dead."""
    return find(path) is not None


def is_dead(path: Path) -> bool:
    """Whether the process of the mount there is dead."""
    return mounts.state(str(path)) is State.DEAD


def prepare(path: Path) -> None:
    """Prepare a mount point: check that it is a folder without our mount; remove a dead mount.

    Raises NotFound, NotAFolder, Conflict if it is mounted already, StoreUnavailable if it does
    not answer, Forbidden.
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

    The mount would then wait for itself, and everybody who looks at it would wait, too.  Only
    names are compared: a folder may be on a file server that does not answer.  See also
    `check_apart`.
    """
    for key, folder in folders.items():
        for place in (path, located(path)):
            if Path(os.path.normpath(folder)).is_relative_to(os.path.normpath(place)):
                raise _below(path, key, folder)


def check_apart(path: Path, device: int, folders: Mapping[str, Path]) -> None:
    """Raise Conflict if one of the folders is on `device`, the mount itself, which answers now.

    This finds folders that lead into the mount by symbolic links or bind mounts.
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
    """Unmount; with `lazy` also if it is in use, with `force` also if it hangs.

    With `force` every request that waits for the mount gets an error, and so does every later
    one.  Raises Conflict, NotFound, Forbidden, and StoreUnavailable for a mount that hangs.
    """
    mount = find(path)
    if mount is None:
        raise NotFound(str(path), "imagefs is not mounted there")
    if force:
        _abort(mount)
    elif not lazy and mounts.state(mount.path) is State.HANGS:
        raise _hangs(path)
    # After an abort the mount is unmounted even if files are open, as they cannot be used any more.
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
    """Cut the mount off from its process: everything that waits for it gets an error."""
    control = _CONNECTIONS / str(mount.connection) / "abort"
    try:
        # The file is opened first, and then the mount is looked for again.  The kernel gives the
        # number of a mount that is gone to the next mount; but a file that was opened before does
        # nothing to the new one.
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
    """Unmount; return 0, an errno, or None if it takes too long."""
    if os.geteuid() == 0:
        # Not umount(8), which asks the mount itself.  2 is MNT_DETACH, 8 is UMOUNT_NOFOLLOW.
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
