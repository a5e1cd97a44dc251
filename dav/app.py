"""The WSGI application: one request in, one response and one log line out.

GET, HEAD, PUT, PROPFIND and POST are implemented here, because wsgidav's are too slow or wrong for
images (docs/facts.md#wsgidav).  wsgidav answers the other methods.  Threading: one thread per
request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from io import BytesIO
from urllib.parse import unquote
from uuid import uuid4
from xml.etree.ElementTree import SubElement

from wsgidav.dav_error import DAVError, DAVErrorCondition
from wsgidav.xml_tools import xml_to_bytes

from catalog import cause
from catalog.errors import CatalogError, NotAFolder, NotFound
from catalog.model.access import check_create
from catalog.model.tree import Folder
from catalog.rules import entries
from catalog.tree.namespace import Node
from catalog.tree.vfs import Vfs
from dav import browse, put, xml
from dav.propfind import answer
from dav.propfind.kept_pages import Pages
from dav.provider import destination, view
from dav.provider.locks import LockManager
from dav.provider.resources import IF_MATCH, MADE
from dav.provider.tree import MAKING, CatalogProvider
from dav.provider.view import View, view_of
from web.exchange import conditions, download, representation
from web.exchange.environ import (
    CAUSE,
    REASON,
    REQUEST_ID,
    SEND,
    Environ,
    StartResponse,
    principal_of,
    reason_of,
    request_id_of,
)
from web.exchange.errors import HttpError, to_status, told
from web.exchange.response import Response, empty

log = logging.getLogger(__name__)
access_log = logging.getLogger("dav.access")

_WSGIDAVS = ("COPY", "DELETE", "LOCK", "MKCOL", "MOVE", "OPTIONS", "PROPPATCH", "UNLOCK")
"""The methods that wsgidav answers."""

_CONDITIONS = tuple(
    f"HTTP_IF_{name}" for name in ("MATCH", "NONE_MATCH", "MODIFIED_SINCE", "UNMODIFIED_SINCE")
)
"""Headers that are removed before wsgidav sees the request, as they were checked already."""

_FOR_PEOPLE = ("text/html", "text/plain", "application/json")


class App:
    """The tree of one catalog over HTTP."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self._pages = Pages(vfs)
        vfs.catalog.keeps_locks = True
        self._provider = CatalogProvider(vfs, LockManager(vfs.catalog))
        self._methods: dict[str, Callable[[str, Environ], Response]] = {
            "GET": self._get,
            "HEAD": self._get,
            "POST": self._post,
            "PUT": self._put,
            "PROPFIND": self._propfind,
            **dict.fromkeys(_WSGIDAVS, self._wsgidav),
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        started = time.monotonic()
        request_id = environ[REQUEST_ID] = uuid4().hex[:12]
        cause.begin("dav", request_id, principal_of(environ).name)
        self._provider.prepare(environ)
        path = environ["PATH_INFO"].encode("latin-1").decode(errors="surrogateescape")
        environ["PATH_INFO"] = path

        try:
            handler = self._methods.get(environ["REQUEST_METHOD"])
            if handler is None:
                allowed = ("Allow", ", ".join(sorted(self._methods)))
                raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, headers=(allowed,))
            view.keep(environ, self._view(path, environ))
            self._provider.check_if(path, environ)
            response = handler(path, environ)
        except Exception as error:  # noqa: BLE001 - every failure is answered, once
            response = self._failed(environ, error)
        # A response with an Upload-Offset is no failure: the upload goes on from there.
        if (
            response.status >= HTTPStatus.BAD_REQUEST
            and "Upload-Offset" not in dict(response.headers)
            and not _asked_about_locks(response.status, environ)
        ):
            self._note_failed_replacement(path, environ)
        if response.status >= HTTPStatus.BAD_REQUEST and MADE in environ:
            # The request made a new image and failed: remove it again.  If anybody has begun
            # to use the image meanwhile, `take_back` leaves it.
            with suppress(CatalogError):
                entries.take_back(self._vfs.catalog, environ[MADE])
        if response.send is not None:
            environ[SEND] = response.send
        status = f"{int(response.status)} {response.status.phrase}"
        _log(environ, path, status, started)
        headers = [header for header in response.headers if header[0] != "Date"]
        date = ("Date", representation.http_date_now())
        start_response(status, [*headers, date, ("X-Request-Id", request_id)])
        return response.body

    # -- methods -----------------------------------------------------------------------

    def _view(self, path: str, environ: Environ) -> View:
        """A view of the paths that the request will need."""
        method = environ["REQUEST_METHOD"]
        data = method in conditions.READING and not browse.is_asked_for(environ)
        paths, deep = [path], [path] if method in ("COPY", "MOVE") else []
        if method not in (*conditions.READING, "PROPFIND"):
            paths.append(destination.above(path))
        named = environ.get("HTTP_DESTINATION") if method in ("COPY", "MOVE") else None
        if named and (target := destination.path_of(named)):
            paths += [target, destination.above(target)]
            deep.append(target)
        return View(self._vfs, principal_of(environ), paths, data=data, deep=deep)

    def _get(self, path: str, environ: Environ) -> Response:
        spot = view_of(environ).spot(path)
        page = self._page(path, environ, spot.node)
        if page is not None:
            return page
        if spot.found is None:
            raise NotFound(path)
        if isinstance(spot.found, Folder):
            raise HttpError(HTTPStatus.NOT_ACCEPTABLE, "a folder is HTML, JSON or PROPFIND")
        return download.serve(self._vfs, spot, spot.found.image, principal_of(environ), environ)

    def _post(self, path: str, environ: Environ) -> Response:
        spot = view_of(environ).spot(path)
        if spot.found is not None:
            conditions.check(environ, representation.validators(spot.found))
        page = self._page(path, environ, spot.node)
        if page is None:
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED)
        return page

    def _page(self, path: str, environ: Environ, node: Node | None) -> Response | None:
        """The answer of `browse`, the pages for people and programs, if it has one."""
        page = browse.respond(browse.request_of(environ, path, self._vfs), node)
        if page is None:
            return None
        body = [page.body] if isinstance(page.body, bytes) else page.body
        return Response(HTTPStatus(page.status), list(page.headers), body)

    def _put(self, path: str, environ: Environ) -> Response:
        if path.endswith("/"):
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "MKCOL makes a folder")
        principal = principal_of(environ)
        check_create(principal)
        spot = view_of(environ).spot(path)
        if isinstance(spot.error, NotFound | NotAFolder):
            raise HttpError(HTTPStatus.CONFLICT, f"the folder is missing: {spot.error}")
        if spot.error is not None:
            raise spot.error
        # Not for a hidden image: the error 423 would show that it exists.
        if not spot.is_hidden:
            self._provider.check_locks(path, environ)
        return put.receive(self._vfs, spot, principal, environ)

    def _propfind(self, path: str, environ: Environ) -> Response:
        node = view_of(environ).spot(path).found
        if node is None:
            raise NotFound(path)
        conditions.check(environ, representation.validators(node))
        return answer.respond(self._vfs, node, principal_of(environ), environ, self._pages)

    def _wsgidav(self, path: str, environ: Environ) -> Response:
        self._check_conditions(path, environ)
        if _make_safe(environ):
            view_of(environ).forget()
        given: list[tuple[str, list[tuple[str, str]]]] = []
        body = self._provider.handle(environ, lambda *started: given.append(started[:2]))
        ((line, headers),) = given
        status = HTTPStatus(int(line[:3]))
        if not dict(headers).get("Content-Type", "").startswith("text/html"):
            return Response(status, headers, body)
        # wsgidav's error pages show its version; ours show the reason and the request's id.
        if status < HTTPStatus.BAD_REQUEST:
            kept = (header for header in headers if not header[0].startswith("Content-"))
            return empty(status, *kept)
        return _error(environ, status, reason_of(environ))

    def _check_conditions(self, path: str, environ: Environ) -> None:
        """As `conditions.check`, unless the request is refused anyway (RFC 9110 §13.2.1).

        wsgidav would also apply the conditions to a Destination, and never to a path where
        nothing exists.  So its environment gets the request without these headers.
        """
        method = environ["REQUEST_METHOD"]
        found = view_of(environ).spot(path).found
        is_refused = method == "MKCOL" if found else method not in MAKING
        if method != "OPTIONS" and not is_refused:
            conditions.check(environ, representation.validators(found))
        environ[IF_MATCH] = environ.get("HTTP_IF_MATCH", "")
        for name in _CONDITIONS:
            environ.pop(name, None)

    # -- failures ----------------------------------------------------------------------

    def _note_failed_replacement(self, path: str, environ: Environ) -> None:
        """Protect a good image for a while after a request failed to replace it.

        The client may send DELETE for the name next, to clean up.
        """
        target = _replaced_by(path, environ)
        if target is None:
            return
        with suppress(CatalogError):
            place = self._vfs.place(target)
            self._vfs.note_failed_replacement(place, principal_of(environ), reason_of(environ))

    def _failed(self, environ: Environ, error: Exception) -> Response:
        headers: list[tuple[str, str]] = []
        match error:
            case HttpError():
                status, headers = error.status, list(error.headers)
            case CatalogError():
                status = to_status(error)
            case DAVError():
                status = HTTPStatus(error.value)
            case _:
                log.error("%s: failed unexpectedly", request_id_of(environ), exc_info=error)
                status = HTTPStatus.INTERNAL_SERVER_ERROR
        message = str(error) if status is not HTTPStatus.INTERNAL_SERVER_ERROR else ""
        cause = error if isinstance(error, CatalogError) else error.__cause__
        if isinstance(error, DAVError):
            if error.err_condition is not None:
                self._provider.hide(error, environ)
            message = error.context_info or status.phrase
        # Errors below 500 are for the client; `provider.hide` may have worded them already.
        if (
            message
            and status >= HTTPStatus.INTERNAL_SERVER_ERROR
            and isinstance(cause, CatalogError)
        ):
            message = told(cause, principal_of(environ))
            environ[CAUSE] = str(cause)
        if status in (HTTPStatus.NOT_MODIFIED, HTTPStatus.NO_CONTENT):
            return empty(status, *headers)
        if isinstance(error, DAVError) and error.err_condition is not None:
            return _condition(environ, status, error.err_condition, message)
        return _error(environ, status, message, *headers)


def _error(
    environ: Environ, status: HTTPStatus, message: str, *headers: tuple[str, str]
) -> Response:
    """The page, JSON or line that reports a failure."""
    environ[REASON] = message or status.phrase
    accept = environ.get("HTTP_ACCEPT", "")
    response = render_error(status, message, request_id_of(environ), accept)
    response.headers[:0] = headers
    return response


def render_error(status: HTTPStatus, message: str, request_id: str, accept: str) -> Response:
    """The page, JSON or line that reports a failure, as `accept` asks for it."""
    page = browse.error_page(status, message, request_id, accept)
    body = page.body if isinstance(page.body, bytes) else b"".join(page.body)
    return Response(status, list(page.headers), [body])


def _asked_about_locks(status: HTTPStatus, environ: Environ) -> bool:
    """Whether a request failed only because of a condition about locks.

    Such a failure does not count as a failed replacement.  A locked image is protected by
    its lock, also from a DELETE of the same client.  A header `If` with an ETag beside a
    token, or with DAV:no-lock, tests a state of locks and data (RFC 4918 §10.4): litmus
    sends one and deletes next.  A header with only a token may be about a lock that has
    expired while the client was writing: that failure counts.
    """
    asked = environ.get("HTTP_IF", "")
    state = "<DAV:no-lock>" in asked or (">" in asked and "[" in asked)
    failed = status == HTTPStatus.PRECONDITION_FAILED
    return status == HTTPStatus.LOCKED or (failed and state)


def _replaced_by(path: str, environ: Environ) -> str | None:
    """The path of the image that a request would replace; None if it is not such a request."""
    match environ["REQUEST_METHOD"]:
        case "PUT":
            return path
        case "COPY" | "MOVE" if environ.get("HTTP_OVERWRITE") != "F":
            target = destination.plain(unquote(environ.get("HTTP_DESTINATION", "")))
            # A COPY or MOVE of an image onto itself replaces nothing.
            return target if target and target != path else None
    return None


def _make_safe(environ: Environ) -> bool:
    """Change a request so that wsgidav handles it correctly; return whether its body was read."""
    if environ["REQUEST_METHOD"] not in ("LOCK", "PROPPATCH"):
        return False
    # wsgidav takes a chunked body for an empty one, and its parser may resolve entities.
    # So read the body and check it with our own parser first.
    body = environ["wsgi.input"].read()
    if body:
        xml.parse(body)
    environ["wsgi.input"] = BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return True


def _condition(
    environ: Environ, status: HTTPStatus, condition: DAVErrorCondition, message: str
) -> Response:
    """The answer to a failed precondition: XML that names it (RFC 4918 §16); a page for people."""
    if any(kind in environ.get("HTTP_ACCEPT", "") for kind in _FOR_PEOPLE):
        return _error(environ, status, message)
    environ[REASON] = message
    element = condition.as_xml()
    SubElement(element, "{urn:imagefs:error}message").text = message
    body: bytes = xml_to_bytes(element)
    kind = ("Content-Type", "application/xml; charset=utf-8")
    return Response(status, [kind, ("Content-Length", str(len(body)))], [body])


def _log(environ: Environ, path: str, status: str, started: float) -> None:
    access_log.info(
        "%s %s %s %s %s %s %.0fms%s",
        request_id_of(environ),
        environ.get("REMOTE_ADDR", "-"),
        principal_of(environ).name,
        environ["REQUEST_METHOD"],
        ascii(path)[1:-1],
        status[:3],
        (time.monotonic() - started) * 1000,
        # The cause that the client does not get to see.
        f" {ascii(environ[CAUSE])[1:-1]}" if status >= "5" and CAUSE in environ else "",
    )
