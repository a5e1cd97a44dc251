"""Signed requests to one bucket: all that sends data, and what obstore has no call for.

Safe from several threads: they share one pool of connections.  Scope: HTTP, signature, retries.
Bodies go out in blocks, so that memory does not grow with a part, and the time-out is of each
block, not of a whole part on a slow line.  Retries are here because nobody above could send a
part again that has left the writer.
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
from catalog.stores.network import http_errors
from catalog.stores.policy.retry import Retry
from catalog.stores.s3.account import Account
from catalog.stores.s3.errors import refusal, wants_checksum
from catalog.stores.s3.settings import Credentials, S3StoreSettings
from catalog.stores.s3.signing import UNSIGNED, query_string, quoted, signed

_CONNECTIONS = 8
"""Kept open: two writers with four parts each."""
_MAY_PASS = (429, 500, 502, 503, 504)
BLOCK = 1 << 20
"""Bytes that are sent in one go: each may take as long as the time-out says."""
_ANSWER_MAX = 8 << 20
"""Bytes of an answer, none of which is data: a list of 1000 uploads is below 1 MiB."""

Block = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes to be sent: `blocks` gives them anew for each attempt."""

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
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class _Request:
    """What is the same in each attempt."""

    method: str
    key: str
    query: Mapping[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    body: Body
    subject: str
    """What errors are about."""
    timeout: Timeout
    is_retried: bool


class S3Requests:
    """Sends to one bucket and gives up what is not success."""

    def __init__(self, settings: S3StoreSettings, account: Account | None = None) -> None:
        self._settings = settings
        self._account = account or Account(settings.credentials)
        self._url = urlsplit(settings.bucket_url)
        self._lock = threading.Lock()
        self._pool: PoolManager | None = None
        self._retry = Retry(settings.policy.attempts, settings.policy.deadline)
        self._has_checksums = False
        """Whether bodies go with their MD5: SHA-256 or TLS guards them in any case."""

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

        `subject` is what errors are about.  `patience` is how many seconds more than
        usual the server may work without a sign.  What may pass is tried again as the
        store's policy says, if `is_retried`; with other credentials once, if the server
        refuses these and there are others.  Raises NotFound, DataChanged, StoreFull,
        ImageTooLarge, StoreBusy, StoreUnavailable.
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
        """An object of the bucket as `x-amz-copy-source` names it."""
        return quoted(f"/{self._settings.bucket}/{key}", safe="/")

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.clear()

    def _connected(self) -> PoolManager:
        # Not before it is needed: reading the system's authorities takes a while.
        with self._lock:
            if self._pool is None:
                self._pool = _pool(self._settings)
            return self._pool

    def _answered(self, request: _Request, credentials: Credentials) -> Answer:
        """An answer of success.  Raises as `send`."""

        def ask() -> Answer:
            return self._ask(request, credentials)

        answer = self._retry.repeat(ask) if request.is_retried else ask()
        if wants_checksum(answer.status, answer.text) and "content-md5" not in request.headers:
            # From now on every body has one: this bucket takes none without (Object Lock).
            self._has_checksums = True
            request.headers["content-md5"] = _md5(request.body)
            return self._answered(request, credentials)
        if not 200 <= answer.status < 300:
            raise refusal(request.subject, answer.status, answer.text, method=request.method)
        return answer

    def _ask(self, request: _Request, credentials: Credentials) -> Answer:
        """Raises StoreUnavailable, and others, for what may be answered otherwise next time."""
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
    """The pool, through the proxy of the environment as obstore's is."""
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
    # S3 may begin an answer with 200 and find out later that it failed.
    is_late = response.status == 200 and "<Error>" in text[:500]
    if is_late or response.status in _MAY_PASS:
        status = 500 if is_late else response.status
        raise refusal(request.subject, status, text, _retry_after(response), request.method)
    return Answer(response.status, response.headers, text)


def _retry_after(response: BaseHTTPResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
