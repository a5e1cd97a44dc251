"""Authentication at Swift: a token and the account's URL, renewed when needed.

Scope: Swift's v1 authentication (`GET` of the auth URL) in addition to Keystone's.  Safe from
several threads: one of them authenticates, and the others wait for it.
"""

from __future__ import annotations

import time
from typing import Literal, Self

from pydantic import Field, model_validator
from urllib3 import PoolManager

from catalog.errors import StoreUnavailable
from catalog.stores.http_client.errors import http_errors
from catalog.stores.openstack.account import AccountSettings
from catalog.stores.openstack.keystone import LIFE_USED, KeystoneAuth, KeystoneSession


class SwiftAuthSettings(AccountSettings):
    """The part of `[stores.NAME]` that names the account and how to reach it.

    With v1, `auth_url` is `https://HOST/auth/v1.0` and `user` is `account:user`.
    """

    auth_version: Literal[1, 3] = 3
    storage_url: str | None = Field(default=None, pattern=r"^https?://[^@\s]+$")
    """The account's URL; None for the one in the answer to the authentication."""

    @property
    def endpoint(self) -> str | None:
        """The account's URL, if it is set."""
        return self.storage_url

    @model_validator(mode="after")
    def _fits_its_version(self) -> Self:
        if self.auth_version == 1 and not self.user:
            raise ValueError("auth_version = 1 needs user, and no application_credential")
        if self.auth_version == 3 and self.user is not None and self.project is None:
            raise ValueError("user needs project")
        return self


class SwiftAuth(KeystoneAuth):
    """The session of one store."""

    def __init__(self, store: str, settings: SwiftAuthSettings, pool: PoolManager) -> None:
        """`store` names it in errors."""
        super().__init__(store, settings, pool, ("object-store",))
        self._version = settings.auth_version

    def _log_in(self) -> KeystoneSession:
        return self._by_v1() if self._version == 1 else super()._log_in()

    def _by_v1(self) -> KeystoneSession:
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
        endpoint = (self._settings.endpoint or told).rstrip("/")
        return KeystoneSession(token, endpoint, time.monotonic() + life * LIFE_USED)
