"""`imagefs mount` and `imagefs umount`."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catalog import cause
from catalog.cli.session import Session, pass_session
from catalog.errors import InvalidSettings, InvalidValue, StoreUnavailable
from catalog.process import raise_file_limit
from imagefs import mountpoint

if TYPE_CHECKING:
    from imagefs.settings import MountSettings

# Options of the kernel and libfuse; any other is refused with a clear message.
_OPTIONS = frozenset(
    "ro rw nosuid suid nodev dev noexec exec noatime atime sync dirsync "
    "allow_other allow_root debug".split()
)
_STARTING = 90.0
"""Seconds in which a mount in the background has to answer: as many as systemd allows."""
_ENDING = 5.0
"""Seconds in which it then has to end by itself."""
_FUSE_CONF = Path("/etc/fuse.conf")


@click.command()
@click.argument("mountpoint_", metavar="MOUNTPOINT", type=Path)  # not click.Path: it asks the mount
@click.option("-o", "options", multiple=True, metavar="OPTION,…", help="Mount options.")
@click.option("--foreground", is_flag=True, help="Stay, and log to stderr.")
@click.option("--ready-fd", type=int, hidden=True)
@pass_session
def mount(
    session: Session,
    mountpoint_: Path,
    options: tuple[str, ...],
    foreground: bool,
    ready_fd: int | None,
) -> int | None:
    """Mount the catalog at MOUNTPOINT; returns when the mount answers.

    A mount that a dead process has left there is removed first.
    """
    from catalog.service.configuration import folders_of

    place = mountpoint_.absolute()
    mountpoint.check_outside(place, folders_of(session.settings))
    if ready_fd is None and not foreground:
        # Checked here, too: the error is the same, and no process is started in vain.
        session.settings.section("mount")
        mountpoint.prepare(place)
        return _in_background(session, place, options)
    section: MountSettings = session.settings.section("mount")
    chosen = _options(options, section)
    mountpoint.prepare(place)
    _serve(session, place, chosen, section, ready_fd)
    return None


def _options(given: tuple[str, ...], section: MountSettings) -> set[str]:
    chosen = {"fsname=imagefs", "subtype=imagefs", "default_permissions"}
    for option in ",".join(given).split(","):
        if option and option not in _OPTIONS:
            raise InvalidValue("-o", f"unknown option {option!r}: {', '.join(sorted(_OPTIONS))}")
        if option not in ("", "rw", "suid", "dev", "exec", "atime"):
            chosen.add(option)
    if section.allow_other and not _may_allow_other():
        raise InvalidSettings("mount.allow_other", f"needs user_allow_other in {_FUSE_CONF}")
    if section.allow_other or (section.allow_other is None and _may_allow_other()):
        chosen.add("allow_other")
    return chosen


def _may_allow_other() -> bool:
    if os.geteuid() == 0:
        return True
    try:
        lines = _FUSE_CONF.read_text().splitlines()
    except OSError:
        return False
    return "user_allow_other" in (line.strip() for line in lines)


def _serve(
    session: Session,
    place: Path,
    options: set[str],
    section: MountSettings,
    ready_fd: int | None,
) -> None:
    # Imported here: pyfuse3 and trio take longer to load than other commands run.
    from catalog.service import stacks
    from catalog.service.configuration import folders_of
    from catalog.service.endpoint import monitored
    from catalog.service.logs.handlers import of_host
    from catalog.service.logs.service import ServiceLog
    from catalog.settings import state_folder
    from imagefs.mount import Mount

    stacks.hold()
    raise_file_limit()
    fields = {"service": "mount", "mount": str(place)}
    log = ServiceLog(session.reread, fields)
    session.reads_only = "ro" in options
    vfs = session.vfs
    cause.begin("mount")
    log.open(session.settings)
    later = None
    if ready_fd is not None and session.settings.log.file is None:
        later = of_host(state_folder(), fields)

    def ready() -> None:
        if ready_fd is not None:
            os.write(ready_fd, b"1")
            os.close(ready_fd)
            _detach()
            if later is not None:
                log.open(session.settings, later)

    folders = folders_of(session.settings)
    mount = Mount(
        vfs, place, options, folders=folders, drain_timeout=section.drain_timeout, reload=log.reload
    )
    stacks.answer(mount.tasks)
    try:
        with monitored(section.metrics, vfs, mount.pulse, fields):
            mount.run(ready)
    finally:
        log.close()


def _detach() -> None:
    """Leave the terminal: standard input, output and error become /dev/null."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _in_background(session: Session, place: Path, options: tuple[str, ...]) -> int:
    """Start the mount as a process of its own and wait until it answers or has failed.

    Raises StoreUnavailable when it does neither.
    """
    from catalog.settings import DEFAULTS

    read_end, write_end = os.pipe()
    source, state = session.settings.source, os.environ.get("IMAGEFS_STATE")
    config = [] if source == DEFAULTS else ["--config", os.path.abspath(source)]
    command = [sys.executable, "-m", "catalog.cli", *config, "mount"]
    for option in options:
        command += ["-o", option]
    process = subprocess.Popen(
        [*command, "--ready-fd", str(write_end), "--", str(place)],
        pass_fds=[write_end],
        stdin=subprocess.DEVNULL,
        # The mount runs for long.  It must not keep another mount busy, in which the caller's
        # working folder may be.
        cwd="/",
        env=os.environ | ({"IMAGEFS_STATE": os.path.abspath(state)} if state else {}),
        start_new_session=True,
    )
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        if not select.select([pipe], [], [], _STARTING)[0]:
            _end(process)
            raise StoreUnavailable(str(place), f"not mounted after {_STARTING:.0f} s, and given up")
        answered = pipe.read(1) == b"1"
    if not answered:
        # It has written the reason to our standard error.
        return process.wait()
    process.returncode = 0  # the mount goes on, and nobody waits for it
    mountpoint.check_answers(place)
    return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.returncode = -1  # nobody waits for it


@click.command()
@click.argument("mountpoint_", metavar="MOUNTPOINT", type=Path)
@click.option("-l", "--lazy", is_flag=True, help="Also when files are open there.")
@click.option(
    "-f", "--force", is_flag=True, help="Also when it hangs: what waits for it gets an error."
)
def umount(mountpoint_: Path, lazy: bool, force: bool) -> None:
    """Unmount the catalog at MOUNTPOINT.

    An upload that is being written keeps the mount busy: close it first.
    """
    mountpoint.unmount(mountpoint_.absolute(), lazy=lazy, force=force)


commands = (mount, umount)
"""The commands that this package adds to `imagefs`."""
