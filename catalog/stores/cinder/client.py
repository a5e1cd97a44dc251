"""Authenticated requests to Cinder's API (v3); failures become errors of the catalog.

Safe from several threads: they share a pool of connections and one session.  If the server does
not accept the token any more, it is renewed once for each request; nothing else is repeated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from urllib3 import BaseHTTPResponse

from catalog.errors import (
    CatalogError,
    Conflict,
    ImageTooLarge,
    NotFound,
    StoreBusy,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from catalog.stores.cinder.settings import CinderStoreSettings
from catalog.stores.http_client.answers import retry_after
from catalog.stores.http_client.errors import http_errors
from catalog.stores.openstack.answers import BUSY
from catalog.stores.openstack.keystone import KeystoneAuth, KeystoneSession, make_pool

_CONNECTIONS = 32
"""Connections kept open to one server: about one for each thread that uses a store."""

_VERSION = "volume 3.54"
"""The microversion of requests: attachments have a mode (OpenStack Stein, 2019)."""

_SERVICES = ("block-storage", "volumev3", "block-store")
"""Cinder's names in Keystone's catalog, of different versions."""

_OVER_QUOTA = re.compile("Volume(SizeExceedsAvailableQuota|LimitExceeded)")
"""The text of a 413 begins so when a quota of volumes or GiB is used up.  Every other 413 means
that the server is busy."""


class CinderClient:
    """One project."""

    def __init__(self, store: str, settings: CinderStoreSettings) -> None:
        """`store` is its name, for errors.  It connects with the first request."""
        self.store = store
        self._pool = make_pool(settings, _CONNECTIONS)
        self._auth = KeystoneAuth(store, settings, self._pool, _SERVICES)

    def do(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        subject: str = "",
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request about `path`, `/volumes/ID`; return the answer's JSON.

        `subject` is the subject of errors, by default the store.  Raises NotFound, Conflict
        if the volume's state does not permit it, StoreFull, ImageTooLarge,
        StoreUnavailable, StoreBusy.
        """
        subject = subject or self.store
        target = path + (f"?{urlencode(query)}" if query else "")
        session = self._auth.session()
        response = self._send(session, method, target, body, subject)
        if response.status == 401:
            session = self._auth.session(refused=session)
            response = self._send(session, method, target, body, subject)
        if not 200 <= response.status < 300:
            raise _failure(response, subject)
        try:
            return dict(json.loads(response.data or b"{}"))
        except (ValueError, TypeError):
            raise StoreUnavailable(subject, "the server's answer cannot be read") from None

    def _send(
        self,
        session: KeystoneSession,
        method: str,
        target: str,
        body: Mapping[str, Any] | None,
        subject: str,
    ) -> BaseHTTPResponse:
        headers = {"X-Auth-Token": session.token, "OpenStack-API-Version": _VERSION}
        with http_errors(subject):
            return self._pool.request(
                method, session.endpoint + target, headers=headers, json=body, redirect=False
            )

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def _failure(response: BaseHTTPResponse, subject: str) -> CatalogError:
    """The error for an answer.

    Only a 404 of Cinder itself means that there is no such volume.  A wrong URL or a proxy
    answers 404, too.
    """
    text = _message(response)
    match response.status:
        case 404 if b'"itemNotFound"' in response.data:
            return NotFound(subject, text)
        case 400 | 413 if text.startswith("VolumeSizeExceedsLimit"):
            return ImageTooLarge(subject, text)
        case 413 if _OVER_QUOTA.match(text):
            return StoreFull(subject, text)
        case 400 | 409:
            return Conflict(subject, text)
        case 401 | 403:
            return StoreRefused(subject, f"Cinder forbids it to this user: {text}")
    reason = f"Cinder answered {response.status} {response.reason}: {text}"
    if response.status in BUSY or response.status == 413:
        return StoreBusy(subject, reason, retry_after(response.headers))
    return StoreUnavailable(subject, reason)


def _message(response: BaseHTTPResponse) -> str:
    """The message in an answer, in one line: `{"badRequest": {"code": 400, "message": …}}`."""
    try:
        (fault,) = json.loads(response.data).values()
        return " ".join(str(fault["message"]).split())
    except (ValueError, TypeError, KeyError, AttributeError):
        return "no explanation"
