"""Signed requests to one bucket: those that send data, and those that obstore cannot make.

Safe from several threads: they share one pool of connections.  Scope: HTTP, signature, retries.
Bodies are sent in blocks.  So the memory does not grow with the size of a part, and the time-out
is for one block, not for a whole part on a slow line.  Retries are made here because nobody above
can send a part again after the writer has passed it on.
"""

from __future__ import annotations

import hashlib
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Timeout

from catalog.errors import StoreRefused, StoreUnavailable
from catalog.stores.base import Stat
from catalog.stores.http_client.answers import retry_after
from catalog.stores.http_client.errors import http_errors
from catalog.stores.policy.retry import Retry
from catalog.stores.s3.account import S3Account
from catalog.stores.s3.errors import refusal, wants_checksum
from catalog.stores.s3.settings import Credentials, S3StoreSettings
from catalog.stores.s3.signing import UNSIGNED, query_string, quoted, signed

_CONNECTIONS = 8
"""Connections that are kept open: for two writers with four parts each."""
_MAY_PASS = (429, 500, 502, 503, 504)
BLOCK = 1 << 20
"""Bytes that are sent at once; the time-out is for one such block."""
_ANSWER_MAX = 8 << 20
"""Bytes of an answer.  None of them is data; a list of 1000 uploads has less than 1 MiB."""

Block = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes to send; `blocks` returns them from the beginning for each attempt."""

    size: int
    blocks: Callable[[], Iterator[Block]]

    def __iter__(self) -> Iterator[Block]:
        return self.blocks()

    @classmethod
    def of(cls, data: Block) -> Body:
        """Bytes in memory."""
        view = memoryview(data)
        starts = range(0, len(view), BLOCK)
        return cls(len(view), lambda: (view[start : start + BLOCK] for start in starts))


EMPTY = Body.of(b"")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class _Request:
    """The part of a request that is the same in each attempt."""

    method: str
    key: str
    query: Mapping[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    body: Body
    subject: str
    """The subject of errors."""
    timeout: Timeout
    is_retried: bool


class S3Requests:
    """Sends requests to one bucket; every answer that is no success becomes an error."""

    def __init__(self, settings: S3StoreSettings, account: S3Account | None = None) -> None:
        self._settings = settings
        self._account = account or S3Account(settings.credentials)
        self._url = urlsplit(settings.bucket_url)
        self._lock = threading.Lock()
        self._pool: PoolManager | None = None
        self._retry = Retry(settings.policy.attempts, settings.policy.deadline)
        self._has_checksums = False
        """Whether bodies are sent with their MD5.  SHA-256 or TLS protects them in any case."""

    def send(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = EMPTY,
        *,
        subject: str,
        patience: float = 0,
        is_retried: bool = True,
    ) -> Answer:
        """Ask for something of the bucket, or of the object `key`, and return the answer.

        `subject` is the subject of errors.  `patience` is the number of additional seconds
        that the server may take to answer.  With `is_retried` failures that may pass are
        tried again as the store's policy sets it.  If the server refuses the credentials and
        there are newer ones, the request is made once more.  Raises NotFound, DataChanged,
        StoreFull, ImageTooLarge, StoreBusy, StoreUnavailable.
        """
        usual = self._settings.timeout
        complete = {name.lower(): value for name, value in (headers or {}).items()}
        complete["host"] = self._url.netloc
        complete["x-amz-content-sha256"] = self._digest(body)
        if method in ("PUT", "POST"):
            complete["content-length"] = str(body.size)
            if self._has_checksums:
                complete["content-md5"] = _md5(body)
        request = _Request(
            method,
            key,
            query or {},
            complete,
            body,
            subject,
            Timeout(connect=usual, read=usual + patience),
            is_retried,
        )
        credentials = self._account.current()
        try:
            return self._answered(request, credentials)
        except StoreRefused:
            if not self._account.renew(credentials):
                raise
        return self._answered(request, self._account.current())

    def head(self, key: str, *, subject: str) -> Stat:
        """Size and ETag of an object.  Raises as `send`."""
        headers = self.send("HEAD", key, subject=subject).headers
        try:
            return Stat(int(headers["Content-Length"]), headers["ETag"])
        except (KeyError, ValueError) as error:
            raise StoreUnavailable(subject, "the server does not tell its size") from error

    def copy_source(self, key: str) -> str:
        """An object of the bucket as a value of `x-amz-copy-source`."""
        return quoted(f"/{self._settings.bucket}/{key}", safe="/")

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.clear()

    def _connected(self) -> PoolManager:
        # Made when first needed: to read the system's certificate authorities takes a while.
        with self._lock:
            if self._pool is None:
                self._pool = _pool(self._settings)
            return self._pool

    def _answered(self, request: _Request, credentials: Credentials) -> Answer:
        """The answer, if it is a success.  Raises as `send`."""

        def ask() -> Answer:
            return self._ask(request, credentials)

        answer = self._retry.repeat(ask) if request.is_retried else ask()
        if wants_checksum(answer.status, answer.text) and "content-md5" not in request.headers:
            # From now on every body is sent with its MD5: this bucket demands it (Object Lock).
            self._has_checksums = True
            request.headers["content-md5"] = _md5(request.body)
            return self._answered(request, credentials)
        if not 200 <= answer.status < 300:
            raise refusal(request.subject, answer.status, answer.text, method=request.method)
        return answer

    def _ask(self, request: _Request, credentials: Credentials) -> Answer:
        """Send the request once.

        Raises StoreUnavailable and others for answers that may be different the next time.
        """
        path = self._url.path + (f"/{quoted(request.key, safe='/')}" if request.key else "")
        path = path or "/"
        headers = signed(
            request.method,
            path,
            request.query,
            request.headers,
            credentials=credentials,
            region=self._settings.region,
            now=datetime.now(UTC),
        )
        query = query_string(request.query)
        with http_errors(request.subject):
            response = self._connected().urlopen(
                request.method,
                urlunsplit((self._url.scheme, self._url.netloc, path, query, "")),
                body=request.body if request.body.size else None,
                headers=headers,
                redirect=False,
                preload_content=False,
                retries=False,
                timeout=request.timeout,
            )
            return _answer(request, response)

    def _digest(self, body: Body) -> str:
        if self._settings.is_tls and body.size:
            return UNSIGNED
        digest = hashlib.sha256()
        for block in body:
            digest.update(block)
        return digest.hexdigest()


def _pool(settings: S3StoreSettings) -> PoolManager:
    """The pool of connections, through the environment's proxy, which obstore uses, too."""
    context = ssl.create_default_context()
    if settings.ca_bundle is not None:
        context.load_verify_locations(settings.ca_bundle)
    parts = urlsplit(settings.bucket_url)
    proxy = getproxies().get(parts.scheme)
    if proxy is None or proxy_bypass(parts.netloc):
        return PoolManager(maxsize=_CONNECTIONS, ssl_context=context)
    return ProxyManager(proxy, maxsize=_CONNECTIONS, ssl_context=context)


def _md5(body: Body) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for block in body:
        digest.update(block)
    return b64encode(digest.digest()).decode()


def _answer(request: _Request, response: BaseHTTPResponse) -> Answer:
    with response:
        text = response.read(_ANSWER_MAX).decode("utf-8", "replace")
        response.drain_conn()
    # S3 may begin an answer with 200 and fail afterwards: then the error is in the body.
    is_late = response.status == 200 and "<Error>" in text[:500]
    if is_late or response.status in _MAY_PASS:
        status = 500 if is_late else response.status
        raise refusal(request.subject, status, text, retry_after(response.headers), request.method)
    return Answer(response.status, response.headers, text)
