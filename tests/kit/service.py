"""`imagefs dav` in a process of its own, as users run it, for clients that are real programs.

The catalog is a `Daemon`'s, so that it can be mounted as well.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.dav.server import xml
from tests.kit.daemon import COMMAND, DEADLINE, Daemon, memory, wait_until
from tests.kit.marks import check_marked
from tests.kit.wire import Answer, Wire, basic
from web.server.listening import TlsFiles

USER, PASSWORD = "alice", "pass wörd"

# What a server tells in its everyday life: a 5xx is not that.
_EVERYDAY = re.compile(
    r"imagefs: (serving at \S+$|[0-9a-f]{12} 127\.0\.0\.1 \S+ [A-Z]+ .+ [2-4]\d\d )"
)


class Service:
    """A running server of a catalog; `anonymous` is what anybody may do."""

    def __init__(
        self,
        catalog: Daemon,
        anonymous: str,
        tls: TlsFiles | None = None,
        port: int = 0,
        program: Sequence[str] = COMMAND,
    ) -> None:
        """`program` runs in place of the command."""
        check_marked("a WebDAV server")
        self.catalog = catalog
        self.tls = tls
        self.log = catalog.state / "dav.log"
        if tls:
            files = f'tls_certificate = "{tls.certificate}"\ntls_key = "{tls.key}"\n'
            with catalog.config.open("a") as config:
                config.write(f"[dav]\n{files}")
        arguments = ["--config", str(catalog.config), "dav", "--listen", f"127.0.0.1:{port}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, *arguments, "--anonymous", anonymous],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        wait_until(self._serves, "the server answers")
        found = re.search(r"serving at (\S+:(\d+))/", self.log.read_text())
        assert found
        self.url = found[1]
        self.port = int(found[2])

    def stop(self) -> int:
        """Ask the process to stop, as systemd does; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)

    def unusual(self) -> list[str]:
        """The lines of the log that tell of anything but everyday life."""
        return [line for line in self.log.read_text().splitlines() if not _EVERYDAY.match(line)]

    def connect(self) -> Wire:
        """A connection for raw HTTP."""
        return Wire(self.port, self.tls.certificate if self.tls else None)

    def peak_memory(self) -> int:
        """The most memory the server's process has had so far, in bytes."""
        return memory(self.process.pid)["VmHWM"]

    def ask(self, request: str, *headers: str, body: bytes = b"") -> Answer:
        """Send a request, `METHOD TARGET`, on a connection of its own; over TLS as the user."""
        if self.tls:
            headers = (basic(USER, PASSWORD), *headers)
        with self.connect() as wire:
            return wire.ask(request, *headers, body=body)

    def fields(self, path: str) -> dict[str, str]:
        """An image's fields, by name, from PROPFIND; empty when there is no such image."""
        body = b'<propfind xmlns="DAV:"><allprop/><include>%s</include></propfind>' % b"".join(
            b'<%s xmlns="urn:imagefs:image"/>' % name
            for name in (b"id", b"status", b"size", b"message", b"os_hash_value")
        )
        answer = self.ask(f"PROPFIND {path}", "Depth: 0", body=body)
        if answer.status == 404:
            return {}
        assert answer.status == 207, answer
        return {
            found.tag.rpartition("}")[2]: found.text or ""
            for found in xml(answer).iterfind("{*}response/{*}propstat/{*}prop/*")
        }

    def status(self, path: str) -> str:
        """An image's status; empty when there is no such image."""
        return self.fields(path).get("status", "")

    def _serves(self) -> bool:
        said = self.log.read_text()
        assert self.process.poll() is None, f"the server has not come up: {said}"
        return "serving at " in said


@contextmanager
def service(
    catalog: Daemon, anonymous: str = "write", tls: TlsFiles | None = None
) -> Iterator[Service]:
    """Serve a catalog; in the end the server must stop as it should."""
    running = Service(catalog, anonymous, tls)
    try:
        yield running
        assert running.stop() == 0, running.log.read_text()
        assert running.unusual() == []
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
