"""Authentication at a service of OpenStack: a token and an endpoint, renewed when needed.

Scope: Keystone's v3 (`POST /v3/auth/tokens`), by password or by application credential.  Safe
from several threads: one of them authenticates, and the others wait for it.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from urllib3 import BaseHTTPResponse, PoolManager, Timeout

from catalog.errors import StoreBusy, StoreRefused, StoreUnavailable
from catalog.stores.http_client.answers import retry_after
from catalog.stores.http_client.errors import http_errors
from catalog.stores.openstack.account import AccountSettings
from catalog.stores.openstack.answers import BUSY

LIFE_USED = 0.9
"""The part of a token's life after which it is renewed, so that it does not end in the middle of
a long upload."""


@dataclass(frozen=True, slots=True)
class KeystoneSession:
    """The result of an authentication."""

    token: str = field(repr=False)
    endpoint: str
    """The service's URL for the account, without a slash at the end."""
    renew_at: float
    """By `time.monotonic`."""


def make_pool(settings: AccountSettings, connections: int) -> PoolManager:
    """Connections to any server; redirects and retries are left to the caller."""
    return PoolManager(
        maxsize=connections,
        retries=False,
        timeout=Timeout(connect=settings.connect_timeout, read=settings.timeout),
        ca_certs=str(settings.ca_bundle) if settings.ca_bundle else None,
        headers={"User-Agent": "imagefs"},
    )


class KeystoneAuth:
    """The session of one store."""

    def __init__(
        self, store: str, settings: AccountSettings, pool: PoolManager, services: tuple[str, ...]
    ) -> None:
        """`store` names it in errors; `services` are the types that Keystone may list it as."""
        self._store = store
        self._settings = settings
        self._pool = pool
        self._services = services
        self._lock = threading.Lock()
        self._session: KeystoneSession | None = None
        self._failed: tuple[float, StoreUnavailable] | None = None
        """When the last attempt failed, and how."""

    def session(self, refused: KeystoneSession | None = None) -> KeystoneSession:
        """A valid session; never `refused`, which the server does not accept any more.

        Raises StoreUnavailable, StoreBusy.
        """
        asked_at = time.monotonic()
        if (current := self._holding(refused)) is not None:
            return current
        with self._lock:
            if (current := self._holding(refused)) is not None:
                return current
            if self._failed is not None and self._failed[0] > asked_at:
                # Threads that waited here for another one's attempt share its failure.  If each
                # made its own attempt, the last would wait for all their time-outs.
                failure = self._failed[1]
                raise type(failure)(failure.subject, failure.reason)
            try:
                self._session = self._authenticate()
            except StoreUnavailable as error:
                self._failed = time.monotonic(), error
                raise
            return self._session

    def _holding(self, refused: KeystoneSession | None) -> KeystoneSession | None:
        current = self._session
        if current is None or current is refused or time.monotonic() >= current.renew_at:
            return None
        return current

    def _authenticate(self) -> KeystoneSession:
        session = self._log_in()
        if not self._settings.permits(session.endpoint):
            reason = f"{session.endpoint}, which it was told to use, is not https"
            raise StoreRefused(self._store, reason)
        return session

    def _log_in(self) -> KeystoneSession:
        """Ask for a token.  Raises StoreUnavailable, StoreBusy."""
        base = self._settings.auth_url.rstrip("/")
        url = f"{base}/auth/tokens" if base.endswith("/v3") else f"{base}/v3/auth/tokens"
        headers = {"Content-Type": "application/json"}
        body = json.dumps({"auth": self._identity()})
        with http_errors(self._store):
            response = self._pool.request("POST", url, body=body, headers=headers, redirect=False)
        self._refuse_unless(response, 201)
        try:
            token = response.json()["token"]
            expires = datetime.fromisoformat(token["expires_at"])
            subject = response.headers["X-Subject-Token"]
        except (KeyError, TypeError, ValueError):
            raise StoreUnavailable(self._store, f"{url} gave no token") from None
        life = (expires - datetime.now(UTC)).total_seconds()
        renew_at = time.monotonic() + life * LIFE_USED
        return KeystoneSession(subject, self._endpoint(token), renew_at)

    def _identity(self) -> dict[str, Any]:
        """The `auth` of a request for a token (Identity API v3)."""
        settings, secret = self._settings, self._secret()
        if settings.application_credential is not None:
            credential = {"id": settings.application_credential, "secret": secret}
            return {
                "identity": {
                    "methods": ["application_credential"],
                    "application_credential": credential,
                }
            }
        domain = {"name": settings.user_domain}
        user = {"name": settings.user, "domain": domain, "password": secret}
        project = {"name": settings.project, "domain": {"name": settings.project_domain}}
        return {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }

    def _endpoint(self, token: dict[str, Any]) -> str:
        """The account's URL in the catalog of a token."""
        settings = self._settings
        if settings.endpoint is not None:
            return settings.endpoint.rstrip("/")
        for service in token.get("catalog", ()):
            for endpoint in service["endpoints"] if service["type"] in self._services else ():
                in_region = settings.region in (None, endpoint.get("region_id"))
                if in_region and endpoint["interface"] == settings.interface:
                    return str(endpoint["url"]).rstrip("/")
        where = f" in region {settings.region}" if settings.region else ""
        reason = f"Keystone's catalog has no {settings.interface} {self._services[0]}{where}"
        raise StoreRefused(self._store, reason)

    def _secret(self) -> str:
        return self._settings.key.read()

    def _refuse_unless(self, response: BaseHTTPResponse, *statuses: int) -> None:
        """Raise StoreBusy or StoreUnavailable for an answer of any other status."""
        if response.status in statuses:
            return
        url = self._settings.auth_url
        if response.status in BUSY:
            raise StoreBusy(self._store, f"{url} is busy", retry_after(response.headers))
        if response.status in (401, 403):
            raise StoreRefused(self._store, f"{url} refuses the user or the key")
        raise StoreUnavailable(self._store, f"{url} answered {response.status} {response.reason}")
