"""The connection of one store to its cluster.

Safe from several threads, which share one connection.  A forked process makes its own
connection: librados has threads, and fork(2) does not copy them.

No call waits for ever for a cluster that hangs: librados itself gives up every request
(`rados_osd_op_timeout`, `rados_mon_op_timeout`, `client_mount_timeout`).
"""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from catalog.errors import CatalogError, InvalidSettings, StoreRefused
from catalog.stores.base import Usage
from catalog.stores.policy.settings import RemoteStoreSettings
from catalog.stores.rbd.bindings import ceph_error, ceph_errors, rados
from catalog.stores.secret import SecretReference

_INHERITED: list[Connection] = []
"""Connections of the parent process, kept for ever.  Closing them here would hang, and so would
letting the garbage collector have them."""


class RbdStoreSettings(RemoteStoreSettings):
    """`[stores.NAME]` with `type = "rbd"`."""

    type: Literal["rbd"] = "rbd"
    pool: str = Field(min_length=1, pattern=r"^[^/@]+$")
    user: str = Field(default="imagefs", min_length=1)
    """Our user in Ceph, without `client.`; it needs `profile rbd` for mon, mgr and osd."""
    conf: Path = Path("/etc/ceph/ceph.conf")
    """Names the monitors, and the keyring unless it is set here."""
    keyring: Path | None = None
    """The file with the user's key.  If unset, it is the one of `conf`, or Ceph's default."""
    key: SecretReference | None = None
    """The key itself, instead of a keyring."""
    timeout: PositiveInt = 30
    """Seconds without an answer before a request is given up."""
    raw_only: bool = True
    """Whether formats other than raw are refused, as Nova and Cinder cannot clone them."""

    @field_validator("conf", "keyring")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("should be an absolute path")
        return path


class Connection:
    """An established connection to one pool.  It ends when nobody refers to it any more."""

    def __init__(self, name: str, settings: RbdStoreSettings) -> None:
        """Connect.  Raises StoreUnavailable, InvalidSettings."""
        self.name = name
        """The store's."""
        self.pool = settings.pool
        self.pid = os.getpid()
        self.renaming = threading.Lock()
        """Held while an image takes the place of another."""
        self.suspect = False
        """Whether opening an image failed.  Ceph may then keep the image open for us as long as
        this connection lasts, and refuse to delete it.  So later calls get a new connection."""
        self.cluster = _connected(name, settings)
        self.ioctx = _pool(name, self.cluster, settings.pool)
        with ceph_errors(name):
            self.fsid = str(self.cluster.get_fsid())
            self.instance = int(self.cluster.get_instance_id())
        # The store's `close` does not do this: its readers and writers may still be in use.
        weakref.finalize(self, _shut_down, self.pid, self.ioctx, self.cluster).atexit = False

    def check(self) -> None:
        """Ask an OSD of the pool for an answer.  Raises StoreUnavailable."""
        with ceph_errors(self.name):
            try:
                self.ioctx.stat("rbd_directory")
            except rados().ObjectNotFound:
                pass  # A pool that never had an image.

    def usage(self) -> Usage:
        """Bytes in the pool, and bytes that it can still take; copies of Ceph are deducted."""
        command = json.dumps({"prefix": "df", "detail": "detail", "format": "json"})
        with ceph_errors(self.name):
            status, answer, text = self.cluster.mon_command(command, b"")
        if status:
            raise ceph_error(self.name, -status, str(text))
        pools = {pool["name"]: pool["stats"] for pool in json.loads(answer)["pools"]}
        stats = pools.get(self.pool, {})
        free, stored = int(stats.get("max_avail", 0)), int(stats.get("stored", 0))
        if not free + stored:
            return Usage(None, None)  # The manager, which counts them, is not running.
        if quota := int(stats.get("quota_bytes", 0)):
            free = min(free, max(0, quota - stored))
        return Usage(stored + free, free)


class Cluster:
    """Makes the connection of one store when it is first needed."""

    def __init__(self, name: str, settings: RbdStoreSettings) -> None:
        self._name = name
        self._settings = settings
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._failure: Callable[[], CatalogError] | None = None
        """Makes an error like that of the last attempt.  The error itself is not kept: its
        traceback would keep the half-made connection alive."""
        self._failed_at = 0.0

    def connection(self) -> Connection:
        """The connection of this process.  Raises StoreUnavailable, InvalidSettings."""
        asked_at = time.monotonic()
        with self._lock:
            self._leave_to_parent()
            if self._connection is None or self._connection.suspect:
                # Threads that waited here for another one's attempt share its failure.  If each
                # made its own attempt, the last of many would wait for all their time-outs.
                if self._failure is not None and self._failed_at > asked_at:
                    raise self._failure()
                self._connection = self._connect()
            return self._connection

    def close(self) -> None:
        """Forget the connection; it ends when its last reader or writer is closed."""
        with self._lock:
            self._leave_to_parent()
            self._connection = None

    def _connect(self) -> Connection:
        try:
            return Connection(self._name, self._settings)
        except CatalogError as error:
            self._failure = partial(type(error), self._name, error.reason)
            self._failed_at = time.monotonic()
            raise

    def _leave_to_parent(self) -> None:
        if self._connection is not None and self._connection.pid != os.getpid():
            _INHERITED.append(self._connection)
            self._connection = None


def _connected(name: str, settings: RbdStoreSettings) -> Any:
    if not os.access(settings.conf, os.R_OK):
        raise InvalidSettings(name, f"cannot read {settings.conf}")
    timeout = str(settings.timeout)
    options = {
        "client_mount_timeout": timeout,
        "rados_mon_op_timeout": timeout,
        "rados_osd_op_timeout": timeout,
        # No cache of librbd: the catalog has a cache for reads, and writes each byte once.
        "rbd_cache": "false",
    }
    if settings.keyring is not None:
        options["keyring"] = str(settings.keyring)
    if settings.key is not None:
        options["key"] = settings.key.read()
    with ceph_errors(name):
        user = f"client.{settings.user}"
        cluster = rados().Rados(conffile=str(settings.conf), name=user, conf=options)
        cluster.connect()
    return cluster


def _pool(name: str, cluster: Any, pool: str) -> Any:
    try:
        with ceph_errors(name):
            try:
                ioctx = cluster.open_ioctx(pool)
            except rados().ObjectNotFound:
                raise StoreRefused(name, f"the cluster has no pool {pool!r}") from None
            # Without this a full pool keeps every change waiting, deletions included.  With it
            # Ceph answers that the pool is full.
            ioctx.set_osdmap_full_try()
            return ioctx
    except CatalogError:
        cluster.shutdown()
        raise


def _shut_down(pid: int, ioctx: Any, cluster: Any) -> None:
    if pid == os.getpid():
        ioctx.close()
        cluster.shutdown()
