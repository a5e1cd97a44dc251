"""One mount, from start to stop.

Scope: the trio nursery, the only one; signals, draining, what runs beside the requests.
Threading: `serve` owns the process' trio loop.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVarTuple

import pyfuse3
import trio

from catalog.errors import CatalogError
from catalog.model.activity import ServiceKind
from catalog.rules.uploads import ABANDONED_AFTER
from catalog.service.health import Pulse
from catalog.service.life import BEAT, Life
from catalog.service.systemd import notify, watchdog_interval
from catalog.tree.vfs import Vfs
from imagefs import metrics, tasks
from imagefs.feed import Feed
from imagefs.files.handles import Handles
from imagefs.mountpoint import check_apart, is_mounted
from imagefs.operations import Operations
from imagefs.processes.writers import sees_all
from imagefs.threads import Threads

Arguments = TypeVarTuple("Arguments")

log = logging.getLogger(__name__)

READ_AHEAD = 4096
"""KiB that the kernel reads ahead; its default of 128 halves the speed (docs/facts.md#fuse)."""
# A request that waits for a slow store keeps its task.  There are enough for all others.
_MAX_TASKS = 1000
_MAX_READ_AHEAD = 500
"""Requests of read-ahead, of all files, that may wait at the same time.  The kernel's default is
12: three readers of a store that hangs use them up, and then nothing is read ahead from any store.
"""
_BLIND = (
    "without CAP_SYS_PTRACE the mount cannot look into other users' programs: when several share "
    "a file, an image may be published of which one was killed (docker: --cap-add SYS_PTRACE)"
)
_PULSE = 0.25
"""Seconds between two looks at how late the loop is."""
# Less urgent than the heartbeat.
_HOUSEKEEPING = 5.0


class Mount:
    """A catalog mounted at one place."""

    def __init__(
        self,
        vfs: Vfs,
        mountpoint: Path,
        options: set[str],
        *,
        folders: Mapping[str, Path],
        drain_timeout: int,
        reload: Callable[[], None] = lambda: None,
    ) -> None:
        """`folders` are the catalog's own folders, by their keys in the configuration.

        `reload` is called in a thread at SIGHUP.
        """
        self._vfs = vfs
        self._mountpoint = mountpoint
        self._options = options
        self._folders = folders
        self._drain_timeout = drain_timeout
        self._reload = reload
        self._refusal: CatalogError | None = None
        self._threads = Threads()
        self._root: trio.lowlevel.Task | None = None
        self._life = Life(vfs, ServiceKind.MOUNT, str(mountpoint))
        self.pulse = Pulse()
        """Beats while the loop turns."""

    def run(self, ready: Callable[[], None]) -> None:
        """Mount, serve until it is unmounted or stopped, and clean up.

        Calls `ready` when the mount answers.  Raises Conflict if a folder of the catalog itself
        is in the mount.
        """
        self._life.recover()
        operations = Operations(self._vfs, self._threads)
        pyfuse3.init(operations, str(self._mountpoint), self._options)
        self._life.start()
        try:
            trio.run(self._serve, operations, ready)
        finally:
            # Unmounted lazily: a program with an open file must not keep a dead mount in its place.
            pyfuse3.close(unmount=is_mounted(self._mountpoint))
            self._life.stop()
            self._report(operations.handles)
        if self._refusal is not None:
            raise self._refusal

    def tasks(self) -> list[str]:
        """What each task of the loop does now; from any thread."""
        return tasks.describe(self._root)

    async def _serve(self, operations: Operations, ready: Callable[[], None]) -> None:
        self._root = trio.lowlevel.current_root_task()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._on_signal, operations.handles)
            nursery.start_soon(self._begin, operations, ready, nursery)
            await pyfuse3.main(max_tasks=_MAX_TASKS)
            nursery.cancel_scope.cancel()

    async def _begin(
        self, operations: Operations, ready: Callable[[], None], nursery: trio.Nursery
    ) -> None:
        """Start the tasks beside the requests, after a check that no folder is in the mount."""
        # In threads: these calls go through the kernel to this loop, which must not wait for them.
        device = (await trio.to_thread.run_sync(os.stat, self._mountpoint)).st_dev
        try:
            await trio.to_thread.run_sync(check_apart, self._mountpoint, device, self._folders)
        except CatalogError as error:
            self._refusal = error
            pyfuse3.terminate()
            return
        feed = Feed(self._vfs, operations.inodes, self._threads)
        nursery.start_soon(_guarded, feed.run)
        nursery.start_soon(_guarded, self._beat)
        nursery.start_soon(_guarded, self._keep_house, operations.handles)
        nursery.start_soon(self._watchdog)
        nursery.start_soon(self._feel_pulse)
        operations.handles.device = f"{os.major(device)}:{os.minor(device)}"
        await trio.to_thread.run_sync(_tune, device)
        await trio.to_thread.run_sync(self._life.ready, f"mounted at {self._mountpoint}")
        log.info("mounted at %s", self._mountpoint)
        if "allow_other" in self._options and not sees_all():
            log.warning(_BLIND)
        ready()

    async def _on_signal(self, handles: Handles) -> None:
        # A terminal that hangs up takes with it who was started in it; nobody would stop it later.
        hangup_stops = os.isatty(2)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP and not hangup_stops:
                    await trio.to_thread.run_sync(self._reload)
                    continue
                log.info("stopping: %s", signal.Signals(number).name)
                await trio.to_thread.run_sync(self._life.stopping)
                await self._drain(handles)
                pyfuse3.terminate()
                return

    async def _drain(self, handles: Handles) -> None:
        """Wait for the uploads that are being written, and let no new one begin."""
        handles.draining = True
        with trio.move_on_after(self._drain_timeout):
            while names := [upload.image.name for upload in handles.written()]:
                await _notify(f"STATUS=waiting for {len(names)} uploads: {', '.join(names[:5])}")
                await trio.sleep(0.1)

    def _report(self, handles: Handles) -> None:
        for upload in self._vfs.uploads:
            log.warning(
                "%s (%s): the upload was not finished when the mount was stopped",
                upload.image.name,
                upload.image.id,
            )

    async def _beat(self) -> None:
        """Let the other processes know that this one is alive, and what it uses."""
        while True:
            await trio.sleep(BEAT)
            for upload in await self._threads.names(self._life.beat):
                log.warning("%s: the upload was aborted", upload.image.name)

    async def _feel_pulse(self) -> None:
        """Measure how late the loop wakes up: as late answers any request that has just come."""
        while True:
            due = trio.current_time() + _PULSE
            await trio.sleep_until(due)
            metrics.LOOP_LATE.observe(max(0.0, trio.current_time() - due))
            self.pulse.beat()

    async def _watchdog(self) -> None:
        # From the loop: a watchdog in a thread would not notice that the loop hangs.
        interval = watchdog_interval()
        while interval is not None:
            await trio.to_thread.run_sync(self._life.show_life)
            await trio.sleep(interval)

    async def _keep_house(self, handles: Handles) -> None:
        """Give up abandoned uploads, and rights to reopen that nobody can use."""
        while True:
            try:
                await self._threads.names(handles.forget_committers)
                await self._threads.commits("", self._vfs.uploads.settle)
                idle = ABANDONED_AFTER.total_seconds()
                for upload in await self._threads.names(handles.give_up_idle, idle):
                    log.warning("%s: the upload was abandoned", upload.image.name)
            except CatalogError as error:
                log.warning("housekeeping: %s", error)
            await trio.sleep(_HOUSEKEEPING)


async def _guarded(work: Callable[[*Arguments], Awaitable[None]], *arguments: *Arguments) -> None:
    """Run a task beside the requests for ever: its failure must not end the mount."""
    while True:
        try:
            await work(*arguments)
        except Exception:
            log.exception("%s failed unexpectedly; starting it again", work.__qualname__)
            await trio.sleep(_HOUSEKEEPING)


async def _notify(state: str) -> None:
    """Notify systemd from a thread, as systemd may be waiting for this mount."""
    await trio.to_thread.run_sync(notify, state)


def _tune(device: int) -> None:
    """Raise the mount's read-ahead, if the host permits it."""
    bdi = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}")
    connection = Path(f"/sys/fs/fuse/connections/{os.minor(device)}")
    try:
        (bdi / "read_ahead_kb").write_text(str(READ_AHEAD))
    except OSError as error:
        log.info("read-ahead stays at the kernel's default: %s", error)
    try:
        for name in ("max_background", "congestion_threshold"):
            (connection / name).write_text(str(_MAX_READ_AHEAD))
    except OSError as error:
        # On a host systemd mounts these files; in a container they are often missing.
        log.debug("the limit of read-ahead stays at the kernel's default: %s", error)
