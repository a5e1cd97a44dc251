"""Who this host is to Swift: a token and the account's URL, renewed when needed.

Users: `client`.  Scope: Swift's v1 authentication (`GET` of the auth URL) and
Keystone's v3 (`POST /v3/auth/tokens`), by password or by application credential.  Safe
from several threads: one of them authenticates, the others wait for it.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, FilePath, PositiveFloat, model_validator
from urllib3 import BaseHTTPResponse, PoolManager, Timeout

from catalog.errors import StoreBusy, StoreRefused, StoreUnavailable
from catalog.stores.network import http_errors
from catalog.stores.policy.settings import RemoteStoreSettings
from catalog.stores.secret import SecretReference
from catalog.stores.swift.errors import retry_after

_LIFE_USED = 0.9
"""The part of a token's life after which it is renewed: no long upload meets its end."""

_BUSY = {429, 498, 503}


class SwiftAuthSettings(RemoteStoreSettings):
    """The part of `[stores.NAME]` that says whose account it is and how to reach it."""

    auth_url: str = Field(pattern=r"^https?://[^@\s]+$")
    """`https://HOST:5000/v3` of Keystone, or `https://HOST/auth/v1.0`."""
    auth_version: Literal[1, 3] = 3
    user: str | None = None
    """Of v1 `account:user`; of v3 a user's name."""
    key: SecretReference
    """The user's password or key, or the application credential's secret."""
    application_credential: str | None = None
    """Its id, instead of a user (v3)."""
    project: str | None = None
    """By name (v3); an application credential brings its own."""
    user_domain: str = "Default"
    project_domain: str = "Default"
    region: str | None = None
    """Of the object-store in Keystone's catalog; None for the first."""
    interface: Literal["public", "internal", "admin"] = "public"
    storage_url: str | None = Field(default=None, pattern=r"^https?://[^@\s]+$")
    """The account's URL, if not the one the authentication tells."""
    allow_http: bool = False
    """Plain http also beyond loopback: whoever is on the way reads the key and the data."""
    ca_bundle: FilePath | None = None
    """PEM file of the authorities to trust instead of the system's."""
    connect_timeout: PositiveFloat = 10
    """Seconds."""
    timeout: PositiveFloat = 60
    """Seconds without an answer, or without further data, before a server is given up."""

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        by_credential = self.application_credential is not None
        if self.auth_version == 1 and (by_credential or not self.user):
            raise ValueError("auth_version = 1 needs user, and no application_credential")
        if by_credential == (self.user is not None):
            raise ValueError("needs either user or application_credential")
        if self.auth_version == 3 and self.user is not None and self.project is None:
            raise ValueError("user needs project")
        return self

    @model_validator(mode="after")
    def _is_private(self) -> Self:
        for url in (self.auth_url, self.storage_url):
            if url is not None and not self.permits(url):
                raise ValueError(
                    f"{url} is not https: anybody on the way could read the key and the data;"
                    " allow_http = true permits it"
                )
        return self

    def permits(self, url: str) -> bool:
        """Whether a token may be sent there."""
        parts = urlsplit(url)
        return parts.scheme == "https" or self.allow_http or _is_loopback(parts.hostname or "")


@dataclass(frozen=True, slots=True)
class Session:
    """What an authentication gave."""

    token: str = field(repr=False)
    storage_url: str
    """Of the account, without a slash at its end."""
    renew_at: float
    """By `time.monotonic`."""


def make_pool(settings: SwiftAuthSettings, connections: int) -> PoolManager:
    """Connections to any server; redirects and retries are left to the caller."""
    return PoolManager(
        maxsize=connections,
        retries=False,
        timeout=Timeout(connect=settings.connect_timeout, read=settings.timeout),
        ca_certs=str(settings.ca_bundle) if settings.ca_bundle else None,
        headers={"User-Agent": "imagefs"},
    )


class SwiftAuth:
    """The session of one store."""

    def __init__(self, store: str, settings: SwiftAuthSettings, pool: PoolManager) -> None:
        """`store` names it in errors."""
        self._store = store
        self._settings = settings
        self._pool = pool
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._failed: tuple[float, StoreUnavailable] | None = None
        """When the last attempt failed, and how."""

    def session(self, refused: Session | None = None) -> Session:
        """A session that holds; never `refused`, which the server no longer takes.

        Raises StoreUnavailable, StoreBusy.
        """
        asked_at = time.monotonic()
        if (current := self._holding(refused)) is not None:
            return current
        with self._lock:
            if (current := self._holding(refused)) is not None:
                return current
            if self._failed is not None and self._failed[0] > asked_at:
                # Who waited for an attempt shares its failure: no queue of time-outs.
                failure = self._failed[1]
                raise type(failure)(failure.subject, failure.reason)
            try:
                self._session = self._authenticate()
            except StoreUnavailable as error:
                self._failed = time.monotonic(), error
                raise
            return self._session

    def _holding(self, refused: Session | None) -> Session | None:
        current = self._session
        if current is None or current is refused or time.monotonic() >= current.renew_at:
            return None
        return current

    def _authenticate(self) -> Session:
        session = self._by_v1() if self._settings.auth_version == 1 else self._by_keystone()
        if not self._settings.permits(session.storage_url):
            reason = f"{session.storage_url}, which it was told to use, is not https"
            raise StoreRefused(self._store, reason)
        return session

    def _by_v1(self) -> Session:
        url = self._settings.auth_url
        headers = {"X-Auth-User": str(self._settings.user), "X-Auth-Key": self._secret()}
        with http_errors(self._store):
            response = self._pool.request("GET", url, headers=headers, redirect=False)
        self._refuse_unless(response, 200, 204)
        try:
            life = float(response.headers.get("X-Auth-Token-Expires", "inf"))
            token, told = response.headers["X-Auth-Token"], response.headers["X-Storage-Url"]
        except (KeyError, ValueError):
            raise StoreUnavailable(self._store, f"{url} gave no token") from None
        storage_url = (self._settings.storage_url or told).rstrip("/")
        return Session(token, storage_url, time.monotonic() + life * _LIFE_USED)

    def _by_keystone(self) -> Session:
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
        renew_at = time.monotonic() + life * _LIFE_USED
        return Session(subject, self._endpoint(token), renew_at)

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
        if settings.storage_url is not None:
            return settings.storage_url.rstrip("/")
        for service in token.get("catalog", ()):
            for endpoint in service["endpoints"] if service["type"] == "object-store" else ():
                in_region = settings.region in (None, endpoint.get("region_id"))
                if in_region and endpoint["interface"] == settings.interface:
                    return str(endpoint["url"]).rstrip("/")
        where = f" in region {settings.region}" if settings.region else ""
        reason = f"Keystone's catalog has no {settings.interface} object-store{where}"
        raise StoreRefused(self._store, reason)

    def _secret(self) -> str:
        return self._settings.key.read()

    def _refuse_unless(self, response: BaseHTTPResponse, *statuses: int) -> None:
        if response.status in statuses:
            return
        url = self._settings.auth_url
        if response.status in _BUSY:
            raise StoreBusy(self._store, f"{url} is busy", retry_after(response))
        if response.status in (401, 403):
            raise StoreRefused(self._store, f"{url} refuses the user or the key")
        raise StoreUnavailable(self._store, f"{url} answered {response.status} {response.reason}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
