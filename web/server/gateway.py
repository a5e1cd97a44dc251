"""Connects a request with the WSGI application (PEP 3333).

Threading: one thread; each request has its own gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol

from cheroot.wsgi import Gateway_10

from web.exchange.body import FileRange
from web.exchange.environ import SEND

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class Responder(Protocol):
    """Frames the response and sends it."""

    server: Any
    """cheroot's: it has the application."""
    sent_headers: bool
    status: bytes
    outheaders: list[tuple[bytes, bytes]]

    def write(self, chunk: bytes) -> None: ...

    def write_file(self, file: FileRange) -> None: ...

    def end(self) -> None: ...


class Gateway(Gateway_10):
    """Makes the WSGI environment as cheroot does; the answer is sent through `req`."""

    req: Responder
    env: dict[str, Any]

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # cheroot's stub says None
        """Make the environment; `wsgi.input` is a `web.exchange.body.Body`."""
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        environ["wsgi.input_terminated"] = True
        return environ

    def respond(self) -> None:
        """Call the application and send its answer; raises Disconnected."""
        response: Iterable[bytes] = ()
        try:
            response = self.req.server.wsgi_app(self.env, self.start_response)
            for block in response:
                if block:
                    self.write(block)
            # Only now, as an application that is a generator has run to its end only now.
            if isinstance(file := self.env.get(SEND), FileRange):
                self.req.write_file(file)
            self.req.end()
        finally:
            self._close(response)

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: _ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        """Keep status and headers; they are sent with the body's first block (PEP 3333)."""
        if exc_info and exc_info[1] and self.req.sent_headers:
            raise exc_info[1]
        if self.started_response and not exc_info:
            raise RuntimeError("start_response was called twice")
        if any(set("\r\n\0") & set(text) for text in (status, *sum(headers, ()))):
            raise ValueError("a response header has a line break in it")
        self.started_response = True
        self.req.status = status.encode("latin-1")
        self.req.outheaders = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers
        ]
        return self.write

    def write(self, chunk: bytes) -> None:
        """Send a block of the body."""
        if not self.started_response:
            raise RuntimeError("the body begins before start_response was called")
        self.req.write(chunk)

    def _close(self, response: Iterable[bytes]) -> None:
        file = self.env.pop(SEND, None)
        try:
            if isinstance(file, FileRange):
                file.close()
        finally:
            if close := getattr(response, "close", None):
                close()
