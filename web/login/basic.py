"""HTTP Basic authentication (RFC 7617), before anything else looks at a request.

Scope: turns a request's `Authorization` into a principal, or refuses the request without reading
its body.  The authenticator of the catalog checks passwords and limits the pace of guesses.  Digest
authentication is not offered, as it needs the passwords themselves.  Threading: one thread per
request.
"""

from __future__ import annotations

import logging
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable
from http import HTTPStatus
from typing import Protocol
from uuid import uuid4

from catalog import cause
from catalog.catalog import Catalog
from catalog.errors import CatalogError, NotAuthenticated, TooManyAttempts
from catalog.model.access import ANONYMOUS, Principal, Role
from catalog.rules.authentication import Authenticator
from web.exchange.environ import PRINCIPAL, Application, Environ, StartResponse
from web.exchange.errors import to_status, told
from web.exchange.forwarded import share_of
from web.exchange.response import Response
from web.settings import DavSettings

access_log = logging.getLogger("dav.access")


CHALLENGE = 'Basic realm="imagefs", charset="UTF-8"'

LOGIN = "login"
"""The query of a page that asks for a login even where anonymous access is permitted."""

_OURS = HTTPStatus.INTERNAL_SERVER_ERROR
"""Statuses from here on are not the client's fault."""

_READING = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
_ANONYMOUS = {
    "read": Principal(ANONYMOUS, Role.READER),
    "write": Principal(ANONYMOUS, Role.MEMBER),
}


class Render(Protocol):
    """Makes the answer to a refused request, in the form that `accept` asks for."""

    def __call__(
        self, status: HTTPStatus, message: str, request_id: str, accept: str
    ) -> Response: ...


class Authentication:
    """A WSGI application that passes on requests of known users, with `environ.PRINCIPAL` set."""

    def __init__(
        self, app: Application, catalog: Catalog, settings: DavSettings, render: Render
    ) -> None:
        """`render` makes the answer to a request that is refused."""
        self._app = app
        self._render = render
        self._anonymous = _ANONYMOUS.get(settings.anonymous)
        self._authenticator = Authenticator(catalog)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        try:
            principal = self._principal(environ)
        except CatalogError as error:
            return self._refuse(environ, start_response, error)
        environ[PRINCIPAL] = principal
        environ["wsgidav.auth.user_name"] = principal.name
        return self._app(environ, start_response)

    def _principal(self, environ: Environ) -> Principal:
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        if authorization:
            name, password = _credentials(authorization)
            address = share_of(environ["REMOTE_ADDR"])
            return self._authenticator.authenticate(name, password, address)
        principal = self._anonymous
        # Where anonymous clients may only read, a request that changes something is answered
        # with 401, as most clients send a name only after that.  A browser gets 401 when its
        # user follows the link to log in.
        if (
            principal is None
            or environ.get("QUERY_STRING") == LOGIN
            or (principal.role is Role.READER and environ["REQUEST_METHOD"] not in _READING)
        ):
            raise NotAuthenticated("", "a name and a password are needed")
        return principal

    def _refuse(
        self, environ: Environ, start_response: StartResponse, error: CatalogError
    ) -> Iterable[bytes]:
        status, request_id = to_status(error), uuid4().hex[:12]
        cause.begin("dav", request_id)
        headers = [("X-Request-Id", request_id)]
        if status is HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", CHALLENGE))
        if isinstance(error, TooManyAttempts):
            headers.append(("Retry-After", str(error.retry_after)))
        access_log.info(
            "%s %s - %s %s %d %s",
            request_id,
            environ["REMOTE_ADDR"],
            environ["REQUEST_METHOD"],
            ascii(environ["PATH_INFO"])[1:-1],
            status,
            ascii(str(error))[1:-1],
        )
        message = (error.reason or error.summary) if status < _OURS else told(error, None)
        answer = self._render(status, message, request_id, environ.get("HTTP_ACCEPT", ""))
        start_response(f"{int(status)} {status.phrase}", [*answer.headers, *headers])
        return answer.body


def _credentials(authorization: str) -> tuple[str, str]:
    """Name and password (RFC 7617 §2).  Raises NotAuthenticated."""
    scheme, _, token = authorization.partition(" ")
    try:
        text = b64decode(token.strip(), validate=True).decode()
    except (Base64Error, ValueError):
        text = ""
    name, colon, password = text.partition(":")
    if scheme.lower() != "basic" or not colon or not name.isprintable():
        raise NotAuthenticated("", "this is not Basic authentication in UTF-8")
    return name, password
