"""Signatures of requests to S3: AWS Signature Version 4 in the Authorization header.

Pure functions.  Source: Amazon S3 API Reference, "Authenticating Requests: Using the
Authorization Header".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote

from catalog.stores.s3.settings import Credentials

UNSIGNED = "UNSIGNED-PAYLOAD"
"""Takes the place of the body's digest where TLS protects the body."""

_ALGORITHM = "AWS4-HMAC-SHA256"


def quoted(text: str, safe: str = "") -> str:
    """Percent-encode as S3 does: all but unreserved characters (RFC 3986 §2.3)."""
    return quote(text, safe=f"-_.~{safe}")


def query_string(query: Mapping[str, str]) -> str:
    """The query in the order in which it is signed; it must be sent in exactly this form."""
    return "&".join(f"{quoted(name)}={quoted(query[name])}" for name in sorted(query))


def signed(
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    credentials: Credentials,
    region: str,
    now: datetime,
) -> dict[str, str]:
    """`headers` with the date, the session token if there is one, and the signature added.

    `path` is quoted already.  `headers` has lower-case names, among them `host` and
    `x-amz-content-sha256`: the body's SHA-256 in hex, or UNSIGNED.  `now` is UTC.
    """
    moment = f"{now:%Y%m%dT%H%M%SZ}"
    scope = f"{now:%Y%m%d}/{region}/s3/aws4_request"
    complete = dict(headers) | {"x-amz-date": moment}
    if credentials.session_token is not None:
        complete["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(complete))
    canonical = "\n".join(
        [
            method,
            path,
            query_string(query),
            *(f"{name}:{complete[name].strip()}" for name in sorted(complete)),
            "",
            names,
            complete["x-amz-content-sha256"],
        ]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = _key(credentials.secret_key, scope)
    signature = hmac.digest(key, f"{_ALGORITHM}\n{moment}\n{scope}\n{digest}".encode(), "sha256")
    complete["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{scope},"
        f"SignedHeaders={names},Signature={signature.hex()}"
    )
    return complete


def _key(secret: str, scope: str) -> bytes:
    """The key for a day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
