"""Requests to Cinder's API (v3), authenticated, with its answers judged.

Safe from several threads: they share a pool of connections and one session.  A token the server
no longer takes is renewed once a request; nothing else is repeated.
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
from catalog.stores.network import http_errors
from catalog.stores.openstack.answers import BUSY, retry_after
from catalog.stores.openstack.keystone import KeystoneAuth, Session, make_pool

_CONNECTIONS = 32
"""Kept open per server: about as many threads as use a store at once."""

_VERSION = "volume 3.54"
"""The microversion asked for: attachments with a mode (OpenStack Stein, 2019)."""

_SERVICES = ("block-storage", "volumev3", "block-store")
"""What Keystone's catalog calls Cinder: now, before, and in between."""

_OVER_QUOTA = re.compile("Volume(SizeExceedsAvailableQuota|LimitExceeded)")
"""How the text of a 413 begins, that also means to come again later: too many volumes, or GiB."""


class CinderClient:
    """One project."""

    def __init__(self, store: str, settings: CinderStoreSettings) -> None:
        """`store` names it in errors.  Connects only when it is asked something."""
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

        `subject` is what errors are about; the store if empty.  Raises NotFound, Conflict
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
        session: Session,
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
    """The error an answer is.

    A 404 that is not Cinder's own, of a wrong URL or a proxy, says nothing of a volume.
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
        return StoreBusy(subject, reason, retry_after(response))
    return StoreUnavailable(subject, reason)


def _message(response: BaseHTTPResponse) -> str:
    """What Cinder says, in one line: `{"badRequest": {"code": 400, "message": …}}`."""
    try:
        (fault,) = json.loads(response.data).values()
        return " ".join(str(fault["message"]).split())
    except (ValueError, TypeError, KeyError, AttributeError):
        return "no explanation"
