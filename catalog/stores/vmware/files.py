"""The files of one vSphere datastore, by the API.  Their bytes go by HTTP (`store`).

Safe from several threads, which share one session.  Scope: pyvmomi, its session and its faults;
needs the extra `vmware`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from importlib import import_module
from ssl import SSLContext
from typing import Any, TypeVar
from urllib.parse import SplitResult

from catalog.errors import (
    CatalogError,
    Conflict,
    InvalidSettings,
    NotFound,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from catalog.stores.base import Usage

_POLL = 0.05, 2.0
"""Seconds between two looks at a task: the first and the longest."""

_VERSION = "vim.version.version10"
"""vSphere 6.0."""

_SLOWEST = 4 << 20
"""Bytes a second: a server that copies more slowly is given up."""


_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class VmwareAccount:
    """User and password.  The representation does not show them."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "Account(…)"


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the folder."""

    name: str
    modified: float
    """Seconds since the epoch."""


class VmwareFiles:
    """One folder of one datastore.  Logs in when first used, and again when the session ended."""

    def __init__(
        self,
        name: str,
        server: SplitResult,
        account: Callable[[], VmwareAccount],
        place: tuple[str, str],
        tls: SSLContext,
        timeout: float,
    ) -> None:
        """`place` is the path of the datacenter and the datastore; `name` is the store's."""
        self._name = name
        self._server = server
        self._account = account
        self._datacenter, self._datastore = place
        self._tls = tls
        self._timeout = timeout
        self._lock = threading.Lock()
        self._session: Any = None

    def usage(self) -> Usage:
        """The datastore's room.  Raises StoreUnavailable, also if there is no such datastore."""

        def ask(content: Any) -> Usage:
            store = self._found(content)[1]
            summary = _properties(content, store, "summary")["summary"]
            if not summary.accessible:
                raise StoreUnavailable(self._name, f"the datastore {self._datastore} is down")
            return Usage(summary.capacity, summary.freeSpace)

        return self._ask(self._name, ask)

    def make_folder(self, folder: str) -> None:
        """Make a folder, `[DATASTORE] PATH`, and the folders above it.  Idempotent."""
        exists = _module("pyVmomi").vim.fault.FileAlreadyExists

        def ask(content: Any) -> None:
            with suppress(exists):
                content.fileManager.MakeDirectory(folder, self._found(content)[0], True)

        self._ask(folder, ask)

    def move(self, source: str, target: str) -> None:
        """Rename a file, perhaps onto another one.  Raises NotFound, Conflict, StoreUnavailable."""
        self._do(
            source,
            lambda files, center: files.MoveDatastoreFile_Task(
                source, center, target, center, True
            ),
        )

    def copy(self, source: str, target: str, size: int) -> None:
        """Duplicate a file of `size` bytes.  Raises as `move`, and StoreFull."""
        self._do(
            source,
            lambda files, center: files.CopyDatastoreFile_Task(
                source, center, target, center, True
            ),
            size,
        )

    def delete(self, file: str) -> None:
        """Remove a file.  Idempotent.  Raises Conflict if it is in use, StoreUnavailable."""
        with suppress(NotFound):
            self._do(file, lambda files, center: files.DeleteDatastoreFile_Task(file, center))

    def names(self, folder: str, pattern: str = "*") -> list[Found]:
        """The files of a folder that match; none if there is no such folder."""
        browser = _module("pyVmomi").vim.host.DatastoreBrowser
        details = browser.FileInfo.Details(
            modification=True, fileSize=False, fileType=False, fileOwner=False
        )
        search = browser.SearchSpec(matchPattern=[pattern], details=details)

        def ask(content: Any) -> list[Found]:
            found = _properties(content, self._found(content)[1], "browser")["browser"]
            result = self._wait(content, found.SearchDatastore_Task(folder, search))
            return [Found(file.path, file.modification.timestamp()) for file in result.file]

        try:
            return self._ask(folder, ask)
        except NotFound:
            return []

    def close(self) -> None:
        """Log out."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            with suppress(CatalogError), self._errors(self._name):
                session.content.sessionManager.Logout()
            session._stub.DropConnections()

    def _do(self, subject: str, begin: Callable[[Any, Any], Any], size: int = 0) -> None:
        def ask(content: Any) -> None:
            center = self._found(content)[0]
            self._wait(content, begin(content.fileManager, center), size)

        self._ask(subject, ask)

    def _ask(self, subject: str, ask: Callable[[Any], _Result]) -> _Result:
        """Call the API, after a new login if the session has ended."""
        fault = _module("pyVmomi").vim.fault
        with self._errors(subject):
            session = self._logged_in(None)
            with suppress(fault.NotAuthenticated):
                return ask(session.content)
            return ask(self._logged_in(session).content)

    def _logged_in(self, ended: Any) -> Any:
        """A session other than the one that has ended."""
        with self._lock:
            if self._session is ended:
                if ended is not None:
                    ended._stub.DropConnections()
                self._session = self._log_in()
            return self._session

    def _log_in(self) -> Any:
        """A session of the API's oldest version in use, which has all that is needed here."""
        account = self._account()
        pyvmomi = _module("pyVmomi")
        stub = pyvmomi.SoapStubAdapter(
            host=self._server.hostname,
            port=self._server.port or 443,
            version=_VERSION,
            sslContext=self._tls,
            httpConnectionTimeout=self._timeout,
        )
        session = pyvmomi.vim.ServiceInstance("ServiceInstance", stub)
        try:
            session.content.sessionManager.Login(account.user, account.password)
        except BaseException:
            stub.DropConnections()
            raise
        return session

    def _found(self, content: Any) -> tuple[Any, Any]:
        """Datacenter and datastore."""
        center = content.searchIndex.FindByInventoryPath(self._datacenter)
        if center is None:
            raise StoreRefused(self._name, f"there is no datacenter {self._datacenter}")
        for store in _properties(content, center, "datastore")["datastore"]:
            if _properties(content, store, "name")["name"] == self._datastore:
                return center, store
        raise StoreRefused(self._name, f"there is no datastore {self._datastore}")

    def _wait(self, content: Any, task: Any, size: int = 0) -> Any:
        """The result of a task that moves `size` bytes.  Raises its fault."""
        end = time.monotonic() + self._timeout + size / _SLOWEST
        pause, longest = _POLL
        while time.monotonic() < end:
            # Not `task.info` as a whole: other fields in it do not always have their declared type.
            info = _properties(content, task, "info.state", "info.error", "info.result")
            if info["info.state"] == "success":
                return info.get("info.result")
            if info["info.state"] == "error":
                raise info["info.error"]
            time.sleep(pause)
            pause = min(pause * 2, longest)
        raise StoreUnavailable(self._name, "a task of the server does not come to its end")

    @contextmanager
    def _errors(self, subject: str) -> Iterator[None]:
        """Turn what pyvmomi raises into the catalog's errors."""
        pyvmomi = _module("pyVmomi")
        fault = pyvmomi.vim.fault
        try:
            yield
        except fault.FileNotFound as error:
            raise NotFound(subject) from error
        except fault.FileLocked as error:
            raise Conflict(subject, "is in use on the server") from error
        except fault.NoDiskSpace as error:
            raise StoreFull(subject) from error
        except fault.InvalidLogin as error:
            reason = "the server refuses the user's name or password"
            raise StoreRefused(self._name, reason) from error
        except fault.NoPermission as error:
            raise StoreRefused(subject, "the server forbids it to this user") from error
        except (fault.CannotDeleteFile, fault.RestrictedVersion) as error:
            # The file is in use by something else, or the licence of an ESXi host is read-only.
            reason = f"the server refuses it: {error.msg or type(error).__name__}"
            raise StoreRefused(subject, reason) from error
        except pyvmomi.vmodl.MethodFault as error:
            reason = f"the server reports {type(error).__name__.rpartition('.')[2]}"
            raise StoreUnavailable(subject, f"{reason}: {error.msg or ''}".rstrip(": ")) from error
        except (OSError, HTTPException) as error:
            raise StoreUnavailable(self._name, str(error) or type(error).__name__) from error


def _module(name: str) -> Any:
    """A module of pyvmomi, which takes a while to import and is not installed on every host."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        reason = "needs pyvmomi: pip install 'imagefs[vmware]'"
        raise InvalidSettings("a store of type vmware", reason) from None


def _properties(content: Any, subject: Any, *names: str) -> dict[str, Any]:
    """These properties of a managed object and no others, by one request."""
    collector = _module("pyVmomi").vmodl.query.PropertyCollector
    wanted = collector.FilterSpec(
        objectSet=[collector.ObjectSpec(obj=subject)],
        propSet=[collector.PropertySpec(type=type(subject), pathSet=list(names))],
    )
    found = content.propertyCollector.RetrievePropertiesEx([wanted], collector.RetrieveOptions())
    return {each.name: each.val for each in found.objects[0].propSet}
