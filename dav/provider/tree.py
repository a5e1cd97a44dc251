"""The virtual tree as wsgidav's provider.

Scope: finding resources, and checking locks and `If` headers.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote

from wsgidav.dav_error import DAVError
from wsgidav.dav_provider import DAVProvider
from wsgidav.request_server import RequestServer

from catalog.errors import CatalogError, Locked
from catalog.model.tree import Folder
from catalog.tree.vfs import Vfs
from dav.provider import destination
from dav.provider.if_header import IfHeader, State
from dav.provider.locks import LockManager, locked, writing
from dav.provider.resources import CREATED, Collection, Member
from dav.provider.view import view_of
from web.exchange import representation
from web.exchange.conditions import READING
from web.exchange.environ import principal_of, public_host_of
from web.exchange.errors import HttpError

MAKING = frozenset({"LOCK", "MKCOL", "PUT"})
"""The methods that make a resource at a free name."""


class _Requests(RequestServer):  # type: ignore[misc]
    """wsgidav's methods; they check locks by the request's own view of the tree."""

    def _check_write_permission(self, res: Any, depth: str, environ: dict[str, Any]) -> None:
        if res is not None:
            self._davProvider.check_write(res.path, environ, below=depth == "infinity")


class CatalogProvider(DAVProvider):  # type: ignore[misc]
    """The tree of one catalog, at the root of the server."""

    def __init__(self, vfs: Vfs, locks: LockManager) -> None:
        super().__init__()
        self.vfs = vfs
        self._locks = locks
        self.set_share_path("/")
        self.set_lock_manager(locks)
        self._requests = _Requests(self)

    def handle(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Have wsgidav answer a request; its answers are small.  Raises DAVError."""
        if "HTTP_DESTINATION" in environ:
            environ["HTTP_DESTINATION"] = destination.shield(
                environ["HTTP_DESTINATION"], public_host_of(environ)
            )
        return list(self._requests(environ, start_response))

    def prepare(self, environ: dict[str, Any]) -> None:
        """Set the keys that wsgidav's own application would set for its handlers."""
        environ["wsgidav.user_name"] = environ["wsgidav.auth.user_name"]
        environ["wsgidav.provider"] = self
        # Windows recognises a WebDAV server only by this header.
        environ["wsgidav.config"] = {"add_header_MS_Author_Via": True}
        environ["wsgidav.verbose"] = 0
        environ["wsgidav.app"] = self

    def resolve_provider(self, _path: str) -> tuple[str, CatalogProvider]:
        """The provider for a Destination: there is only this one."""
        return "/", self

    def get_resource_inst(
        self, path: str | None, environ: dict[str, Any]
    ) -> Collection | Member | None:
        """The folder or image at the path; None if there is none."""
        # wsgidav asks for the parent of the root.
        if path is None:
            return None
        path = destination.plain(path)
        node = view_of(environ).spot(path).found
        if node is None:
            return None
        if isinstance(node, Folder):
            return Collection(path, environ, node)
        return Member(path, environ, node)

    def custom_request_handler(
        self, environ: dict[str, Any], start_response: Any, default_handler: Any
    ) -> Any:
        """Have wsgidav handle a request, and correct its status after a COPY or MOVE."""

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if environ.get(CREATED) and status.startswith("204"):
                status = "201 Created"
            return start_response(status, headers, exc_info)

        return default_handler(environ, start)

    def check_if(self, path: str, environ: dict[str, Any]) -> None:
        """Raise HttpError 412 unless the header `If`, if there is one, holds for the request."""
        header = IfHeader(environ.get("HTTP_IF", ""))
        # wsgidav reads these two keys and need not parse the header itself.
        environ["wsgidav.conditions.if"] = {}
        environ["wsgidav.ifLockTokenList"] = header.tokens
        method = environ["REQUEST_METHOD"]
        if "HTTP_IF" not in environ or method == "OPTIONS":
            return
        if method not in MAKING and self.get_resource_inst(path, environ) is None:
            return  # It is refused without the header, too (RFC 9110 §13.2.1).

        def look(path: str) -> State:
            spot = view_of(environ).spot(path)
            etag = representation.validators(spot.found, reading=method in READING).etag
            # The name may belong to a hidden image: then other users' locks must not show.
            whose = environ["wsgidav.user_name"] if spot.found is None else None
            held = (lock for lock in spot.held.over if whose in (None, lock.principal))
            return State(etag, {lock.token for lock in held})

        if not header.holds(path, look):
            raise HttpError(HTTPStatus.PRECONDITION_FAILED, "the condition of 'If' does not hold")

    def check_locks(self, path: str, environ: dict[str, Any]) -> None:
        """Raise DAVError 423 unless the locks allow the request to write there."""
        if view_of(environ).spot(path).found is None:
            # The name itself can be locked although nothing has it.
            self.check_write(path, environ)
            path = destination.above(path)
        self.check_write(path, environ)

    def check_write(self, path: str, environ: dict[str, Any], *, below: bool = False) -> None:
        """Raise DAVError 423 unless the locks allow writing there; with `below`, under it, too."""
        held = view_of(environ).held(path, below=below)
        try:
            writing(environ, path).check(held, below=below)
        except Locked as error:
            raise locked(error) from error

    def hide(self, error: DAVError, environ: dict[str, Any]) -> None:
        """Remove paths from a 423 that the principal may not see."""
        condition = error.err_condition
        shown = []
        for href in condition.hrefs if condition is not None else ():
            try:
                self.vfs.find(unquote(href), principal_of(environ))
                shown.append(href)
            except CatalogError:
                shown.append(quote(environ["PATH_INFO"]))
                error.context_info = f"{environ['PATH_INFO']}: is locked"
        if condition is not None:
            condition.hrefs = list(dict.fromkeys(shown))

    def ref_url(self, path: str) -> str:
        """A path in the form in which wsgidav gives it to its lock manager."""
        return quote(path)

    def drop_locks(self, path: str) -> None:
        """Drop the locks on a path whose resource is gone, and on all below it."""
        try:
            self._locks.drop_tree(path)
        except CatalogError:
            # The deletion itself is done and must not be reported as a failure.  The locks
            # expire.
            return
