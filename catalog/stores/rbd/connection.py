"""The connection of one store to its cluster.

Safe from several threads, which share one connection.  A process that was forked makes one of
its own: librados keeps threads, which no fork takes along.

A cluster that hangs never hangs its caller: librados gives every request up by itself
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
"""A parent's connections: to end them, or even to forget them, would hang."""


class RbdStoreSettings(RemoteStoreSettings):
    """`[stores.NAME]` with `type = "rbd"`."""

    type: Literal["rbd"] = "rbd"
    pool: str = Field(min_length=1, pattern=r"^[^/@]+$")
    user: str = Field(default="imagefs", min_length=1)
    """Who we are to Ceph, without `client.`; needs `profile rbd` for mon, mgr and osd."""
    conf: Path = Path("/etc/ceph/ceph.conf")
    """Names the monitors, and the keyring if nothing else does."""
    keyring: Path | None = None
    """The file with the user's key; unset: where `conf` says, or where Ceph looks."""
    key: SecretReference | None = None
    """The key itself, instead of a keyring."""
    timeout: PositiveInt = 30
    """Seconds without an answer before a request is given up."""
    raw_only: bool = True
    """Whether other formats than raw are refused, as Nova and Cinder cannot clone them."""

    @field_validator("conf", "keyring")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("should be an absolute path")
        return path


class Connection:
    """A connection that works, to one pool.  It ends when nobody refers to it any more."""

    def __init__(self, name: str, settings: RbdStoreSettings) -> None:
        """Connect.  Raises StoreUnavailable, InvalidSettings."""
        self.name = name
        """The store's."""
        self.pool = settings.pool
        self.pid = os.getpid()
        self.renaming = threading.Lock()
        """Held while an image is put into the place of another."""
        self.suspect = False
        """Whether opening an image failed: Ceph may then hold it open for us, as long as this
        connection lasts, and refuse to delete it.  A new one is made for what follows."""
        self.cluster = _connected(name, settings)
        self.ioctx = _pool(name, self.cluster, settings.pool)
        with ceph_errors(name):
            self.fsid = str(self.cluster.get_fsid())
            self.instance = int(self.cluster.get_instance_id())
        # Not by its owner: readers and writers may outlive the store's `close`.
        weakref.finalize(self, _shut_down, self.pid, self.ioctx, self.cluster).atexit = False

    def check(self) -> None:
        """Ask an OSD of the pool for an answer.  Raises StoreUnavailable."""
        with ceph_errors(self.name):
            try:
                self.ioctx.stat("rbd_directory")
            except rados().ObjectNotFound:
                pass  # A pool that never had an image.

    def usage(self) -> Usage:
        """What the pool holds and what it takes yet, replication allowed for."""
        command = json.dumps({"prefix": "df", "detail": "detail", "format": "json"})
        with ceph_errors(self.name):
            status, answer, text = self.cluster.mon_command(command, b"")
        if status:
            raise ceph_error(self.name, -status, str(text))
        pools = {pool["name"]: pool["stats"] for pool in json.loads(answer)["pools"]}
        stats = pools.get(self.pool, {})
        free, stored = int(stats.get("max_avail", 0)), int(stats.get("stored", 0))
        if not free + stored:
            return Usage(None, None)  # The manager, which counts, is not there.
        if quota := int(stats.get("quota_bytes", 0)):
            free = min(free, max(0, quota - stored))
        return Usage(stored + free, free)


class Cluster:
    """Makes the connection of one store when it is needed."""

    def __init__(self, name: str, settings: RbdStoreSettings) -> None:
        self._name = name
        self._settings = settings
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._failure: Callable[[], CatalogError] | None = None
        """Makes the error that the last attempt ended with: to keep that one itself would
        keep the half-made connection alive, by its traceback."""
        self._failed_at = 0.0

    def connection(self) -> Connection:
        """The connection of this process.  Raises StoreUnavailable, InvalidSettings."""
        asked_at = time.monotonic()
        with self._lock:
            self._leave_to_parent()
            if self._connection is None or self._connection.suspect:
                # Who waited for another's attempt shares how it ended: each with a
                # time-out of its own, the last of many would wait for hours.
                if self._failure is not None and self._failed_at > asked_at:
                    raise self._failure()
                self._connection = self._connect()
            return self._connection

    def close(self) -> None:
        """Forget the connection; it ends when nothing is open any more."""
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
        # The catalog has a cache of its own, and what is written is written once.
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
            # A full pool answers so, instead of keeping every change waiting, deletions too.
            ioctx.set_osdmap_full_try()
            return ioctx
    except CatalogError:
        cluster.shutdown()
        raise


def _shut_down(pid: int, ioctx: Any, cluster: Any) -> None:
    if pid == os.getpid():
        ioctx.close()
        cluster.shutdown()
