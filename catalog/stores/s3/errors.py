"""What an S3 server or the way to it does wrong, as one of `catalog.errors`.

Pure functions.  The answer of a server that refuses a signature quotes the request: only its
code and message are ever shown, and foreign exceptions are not chained.
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
"""What a request does with its subject."""
_NO_SUCH_NAME = ("Name or service not known", "No address associated with hostname")
"""What the C library calls EAI_NONAME and EAI_NODATA (gai_strerror(3))."""
_KINDS = {
    "TimedOut": "timed out",
    "IncompleteBody": "the connection ended in the middle",
    "IncompleteMessage": "the connection ended without an answer",
    "UnexpectedEof": "the connection ended in the middle",
}
"""What the HTTP library calls a failure: what a person reads."""


def refusal(
    subject: str,
    status: int,
    body: str,
    retry_after: float | None = None,
    method: str = "GET",
) -> CatalogError:
    """The error of an answer that is none of success (S3 API Reference, "Error responses")."""
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
    """Whether a bucket takes no body without a checksum: one with Object Lock (S3 User Guide)."""
    is_invalid = status == 400 and _found(_CODE, body) in ("InvalidRequest", "MissingContentMD5")
    return is_invalid and _CHECKSUM.search(body) is not None


def _refused(status: int, code: str, body: str, method: str) -> str:
    """Who or what the server refuses: our credentials, or this request of theirs; or nothing."""
    if code in _CREDENTIALS or status == 401 or (status == 400 and not code):
        # The last: AWS's answer to HEAD with a session token that has expired.
        told = f": {_found(_MESSAGE, body)}" if code == "RequestTimeTooSkewed" else ""
        return f"the server refuses our credentials ({code or status}{told})"
    if status != 403 and code != "AccessDenied":
        return ""
    doing = f"the server forbids us to {_DOING.get(method, 'use')} this"
    message = _found(_MESSAGE, body)
    if not message:
        # An answer to HEAD has no body, and radosgw says the same of a wrong key.
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
    """The error of an exception of obstore, whose text alone tells what happened."""
    text = str(error)
    if found := _STATUS.search(text):
        return refusal(subject, int(found[1]), text)
    summary, _, details = text.partition("\n\nDebug source:")
    if "HTTP error" not in summary:
        return StoreUnavailable(subject, summary.removeprefix("Generic S3 error: ")[:_MESSAGE_MAX])
    return _network_error(subject, details)


def _network_error(subject: str, details: str) -> StoreUnavailable:
    """The error that the inmost of nested Rust errors is."""
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
