"""Failures that Swift answers with, as errors of the catalog."""

from __future__ import annotations

from urllib3 import BaseHTTPResponse

from catalog.errors import (
    CatalogError,
    DataChanged,
    ImageTooLarge,
    NotFound,
    StoreBusy,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from catalog.stores.http_client.answers import retry_after
from catalog.stores.http_client.errors import http_errors
from catalog.stores.openstack.answers import BUSY, TEXT_MAX, discard

_REASONS = {
    401: "the server refuses a new token: is the user allowed to use this account?",
    403: "the server forbids it to this user",
    409: "the server reports a conflict: a segment is missing or damaged, or it is being changed",
    422: "the server received other bytes than were sent",
}


def failure(response: BaseHTTPResponse, subject: str) -> CatalogError:
    """The error for an answer; reads the answer and releases its connection."""
    status = response.status
    with http_errors(subject):
        text = response.read(TEXT_MAX).decode(errors="replace")
    discard(response)
    if status in (404, 410):
        return NotFound(subject)
    if status in (412, 416):
        return DataChanged(subject)
    if status == 413 and "quota" not in text.lower():
        return ImageTooLarge(subject, "is larger than the server takes")
    if status in (413, 507):
        return StoreFull(subject, "the server has no room left, or a quota is used up")
    transaction = response.headers.get("X-Trans-Id", "no transaction")
    reason = _REASONS.get(status, f"the server answered {status} {response.reason}")
    if status in BUSY:
        return StoreBusy(subject, f"{reason} ({transaction})", retry_after(response.headers))
    kind = StoreRefused if status in (401, 403) else StoreUnavailable
    return kind(subject, f"{reason} ({transaction})")
