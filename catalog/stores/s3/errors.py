"""Failures of an S3 server and on the way to it, as errors of the catalog.

Pure functions.  A server that refuses a signature quotes the request in its answer.  So errors
show only the code and the message, and do not chain foreign exceptions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from catalog.errors import (
    CatalogError,
    DataChanged,
    ImageTooLarge,
    NotFound,
    StoreBusy,
    StoreFull,
    StoreLacks,
    StoreRefused,
    StoreUnavailable,
)

_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>")
_MESSAGE = re.compile(r"<Message>\s*([^<]*?)\s*</Message>")
_MESSAGE_MAX = 200
_CHECKSUM = re.compile("Content-MD5|x-amz-checksum", re.IGNORECASE)
_STATUS = re.compile(r"\bstatus: (\d{3})\b")
_QUOTED = re.compile(r'(?:error|message): "([^"]*)"')
_KIND = re.compile(r"\b[A-Z][A-Za-z]+\b")

_BUSY = {"SlowDown", "ServiceUnavailable", "TooManyRequests", "RequestLimitExceeded"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"}
_CREDENTIALS = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "RequestTimeTooSkewed"),
    *("ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed"),
}
_DOING = {"GET": "read", "HEAD": "read", "PUT": "write", "POST": "write", "DELETE": "delete"}
"""The method of a request -> what it does."""
_NO_SUCH_NAME = ("Name or service not known", "No address associated with hostname")
"""The C library's texts for EAI_NONAME and EAI_NODATA (gai_strerror(3))."""
_KINDS = {
    "TimedOut": "timed out",
    "IncompleteBody": "the connection ended in the middle",
    "IncompleteMessage": "the connection ended without an answer",
    "UnexpectedEof": "the connection ended in the middle",
}
"""The HTTP library's name of a failure -> a text for people."""


def refusal(
    subject: str,
    status: int,
    body: str,
    retry_after: float | None = None,
    method: str = "GET",
) -> CatalogError:
    """The error for an answer that reports a failure (S3 API Reference, "Error responses")."""
    code = _found(_CODE, body)
    if code == "NoSuchBucket":
        return StoreRefused(subject, "the bucket does not exist")
    if code in _FULL or status == 507:
        return StoreFull(subject, _said(status, body))
    if refused := _refused(status, code, body, method):
        return StoreRefused(subject, refused)
    if status == 501 or code in ("NotImplemented", "MethodNotAllowed"):
        return StoreLacks(subject, _said(status, body))
    if status == 404 or code in ("NoSuchKey", "NoSuchUpload"):
        return NotFound(subject)
    if status == 412 or code == "PreconditionFailed":
        return DataChanged(subject)
    if code == "EntityTooLarge":
        return ImageTooLarge(subject, _said(status, body))
    if code in _BUSY or status in (429, 503):
        return StoreBusy(subject, _said(status, body), retry_after)
    return StoreUnavailable(subject, _said(status, body))


def wants_checksum(status: int, body: str) -> bool:
    """Whether the bucket demands a checksum with each body, as with Object Lock (S3 User Guide)."""
    is_invalid = status == 400 and _found(_CODE, body) in ("InvalidRequest", "MissingContentMD5")
    return is_invalid and _CHECKSUM.search(body) is not None


def _refused(status: int, code: str, body: str, method: str) -> str:
    """Why the server refuses: our credentials, or this request of theirs; empty if it does not."""
    if code in _CREDENTIALS or status == 401 or (status == 400 and not code):
        # AWS answers 400 without a code to HEAD when the session token has expired.
        told = f": {_found(_MESSAGE, body)}" if code == "RequestTimeTooSkewed" else ""
        return f"the server refuses our credentials ({code or status}{told})"
    if status != 403 and code != "AccessDenied":
        return ""
    doing = f"the server forbids us to {_DOING.get(method, 'use')} this"
    message = _found(_MESSAGE, body)
    if not message:
        # An answer to HEAD has no body, and radosgw answers the same for a wrong key.
        return f"{doing}, or refuses our credentials ({code or status})"
    return f"{doing} ({code}: {message})"


@contextmanager
def obstore_errors(subject: str) -> Iterator[None]:
    """Turn what obstore raises into the catalog's errors."""
    try:
        yield
    except (BaseError, FileNotFoundError, ValueError) as error:
        raise of_obstore(subject, error) from None


def of_obstore(subject: str, error: Exception) -> CatalogError:
    """The error for an exception of obstore.  Only its text says what happened."""
    text = str(error)
    if found := _STATUS.search(text):
        return refusal(subject, int(found[1]), text)
    summary, _, details = text.partition("\n\nDebug source:")
    if "HTTP error" not in summary:
        return StoreUnavailable(subject, summary.removeprefix("Generic S3 error: ")[:_MESSAGE_MAX])
    return _network_error(subject, details)


def _network_error(subject: str, details: str) -> StoreUnavailable:
    """The error for the innermost of nested Rust errors."""
    kind = str((["no answer"] + _KIND.findall(details))[-1])
    if "InvalidCertificate" in details:
        return StoreRefused(subject, f"its certificate is not accepted ({kind})")
    quoted = _QUOTED.findall(details)
    if quoted and quoted[-1].endswith(_NO_SUCH_NAME):
        return StoreRefused(subject, quoted[-1])
    return StoreUnavailable(subject, quoted[-1] if quoted else _KINDS.get(kind, kind))


def _said(status: int, body: str) -> str:
    parts = [f"the server answered {status}", _found(_CODE, body), _found(_MESSAGE, body)]
    return ": ".join(part for part in parts if part)


def _found(pattern: re.Pattern[str], body: str) -> str:
    found = pattern.search(body)
    return " ".join(found[1].split())[:_MESSAGE_MAX] if found else ""
