"""The HTTP server: listens, watches waiting connections, gives those with work to workers.

In its one process, one thread accepts connections and watches all that wait for their client;
`workers` serve requests.  So a client that is slow with its handshake, its headers or its next
request costs only a socket.  A client that stalls in the middle of a body costs a thread.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import threading
import time
from http import HTTPStatus
from typing import Any
from wsgiref.types import WSGIApplication

from cheroot.connections import ConnectionManager
from cheroot.server import HTTPServer

from catalog.service.health import Pulse
from web.exchange.forwarded import NO_PROXIES, Proxies, share_of
from web.exchange.limits import DEFAULT_LIMITS, Limits
from web.exchange.paths import BadRequest
from web.server.connection import Connection
from web.server.gateway import Gateway
from web.server.head import Head
from web.server.listening import TlsFiles, listen, systemd_socket, tls_adapter
from web.server.request import Ending, Request, Wire, plain_response
from web.server.shares import Shares
from web.server.workers import Workers

log = logging.getLogger(__name__)

_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_ABORT_SECONDS = 5.0
_TOO_MANY = "too many requests at once from this address: try again later"


class Server(HTTPServer):
    """Serves one WSGI application on one address."""

    expiration_interval = 0.25
    software = "imagefs"

    def __init__(
        self,
        app: WSGIApplication,
        listen: tuple[str, int],
        *,
        tls: TlsFiles | None = None,
        limits: Limits = DEFAULT_LIMITS,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        """`listen` is host and port, 0 for any port; a socket from systemd takes its place.

        Each client that comes through one of `proxies` has a share of its own.
        """
        super().__init__(listen, Gateway, server_name=listen[0])
        self.wsgi_app = app
        self.limits = limits
        self.ssl_adapter = tls_adapter(tls) if tls else None
        self.requests: Workers[Connection] = Workers(self._serve_connection, limits.workers)
        self.open_connections: dict[Connection, str | None] = {}
        """Each connection with the key of the share that it uses; None for a trusted proxy."""
        self.proxies = proxies
        self.connection_shares = Shares(limits.connections_of_one, limits.connections)
        self.worker_shares = Shares(limits.workers_of_one, limits.workers)
        self.pulse = Pulse()
        """Beats while connections are watched."""
        self._ended = threading.Event()

    @property
    def port(self) -> int:
        """The port that the server listens on, once it was started."""
        return int(self.bind_addr[1])

    def start(self) -> None:
        """Listen, and serve in other threads; raises InvalidSettings."""
        self.socket = systemd_socket() or listen(*self.bind_addr)
        self.socket.setblocking(False)
        self.bind_addr = self.socket.getsockname()[:2]
        self._connections = WaitingConnections(self)
        self.ready = True
        threading.Thread(target=self.serve, name="dav-accept", daemon=True).start()

    def serve_forever(self) -> None:
        """Start, and return after another thread has called `stop`."""
        self.start()
        self._ended.wait()

    def serve(self) -> None:
        """Watch all waiting connections until the server is stopped."""
        while self.ready:
            try:
                self._connections.run(self.expiration_interval)
            except Exception:
                log.exception("the server's loop failed; it goes on")

    def stop(self, drain: float = 0) -> None:
        """Stop listening; let running requests end for `drain` seconds, then cut them off."""
        if not self.ready:
            return
        self.ready = False
        self._connections.stop()
        self.socket.close()
        self._connections.close()
        self.requests.stop()
        if not self.requests.join(drain):
            for connection in list(self.open_connections):
                connection.abort()
            self.requests.join(_ABORT_SECONDS)
        self._ended.set()

    def put_conn(self, conn: Connection) -> None:
        """Watch a connection that waits for its client; close it if the server is stopping."""
        if self.ready:
            self._connections.put(conn)
        else:
            conn.close()

    def process_conn(self, conn: Connection) -> None:
        """Give a connection to a worker, as its client has sent something."""
        self.requests.put(conn)

    def _serve_connection(self, conn: Connection) -> None:
        try:
            waits = conn.communicate()
        except Exception:
            log.exception("%s: the connection failed", conn.remote_addr)
            waits = False
        if waits:
            self.put_conn(conn)
        else:
            conn.close()

    def connection(self, sock: socket.socket, address: tuple[str, int]) -> Connection:
        """Make a connection of an accepted socket."""
        return Connection(sock, address, self.limits, self._answer, self._closed)

    def _answer(self, head: Head, wire: Wire) -> Ending:
        """Have the application answer a request.  Raises BadRequest, Disconnected."""
        forwarded = head.headers.get(b"X-Forwarded-For", b"").decode("latin-1")
        client = share_of(self.proxies.address(wire.remote_addr, forwarded))
        with self.worker_shares.one(client) as has_room:
            if not has_room:
                raise BadRequest(_TOO_MANY, HTTPStatus.SERVICE_UNAVAILABLE)
            return Request(self, wire, head, self.limits).answer()

    def _closed(self, conn: Connection) -> None:
        # A worker and `stop` may close a connection at the same time: only the one whose `pop`
        # finds it gives its share back.
        share = self.open_connections.pop(conn, None)
        if share is not None:
            self.connection_shares.give_back(share)


class WaitingConnections(ConnectionManager):
    """The listening socket, and the connections that wait for their client.

    `put` is called by workers, everything else by the accepting thread.
    """

    server: Server
    _selector: Any

    def put(self, conn: Connection) -> None:
        """Watch a connection until its client sends something or its deadline has passed."""
        try:
            self._selector.register(conn.socket.fileno(), selectors.EVENT_READ, data=conn)
        except ValueError:  # The selector was closed meanwhile: the server is stopping.
            conn.close()

    def _expire(self, threshold: float) -> None:
        """Cheroot's hook; `threshold` is not used, as each connection has its own deadline."""
        self.server.pulse.beat()
        now = time.monotonic()
        waiting = [(fd, conn) for fd, conn in self._selector.connections if conn is not self.server]
        for fd, conn in waiting:
            if conn.deadline < now:
                self._selector.unregister(fd)
                conn.expire()

    def _from_server_socket(self, server_socket: socket.socket) -> None:
        """Cheroot's hook: accept all new connections; they wait until their clients send."""
        while True:
            try:
                accepted, address = server_socket.accept()
            except OSError as error:
                if error.errno in _OUT_OF_FILES:
                    log.warning("cannot accept a connection: %s", error.strerror)
                    time.sleep(self.server.expiration_interval)
                return
            try:
                self._admit(accepted, address[:2])
            except OSError as error:
                log.debug("%s: %s", address[0], error)
                accepted.close()

    def _admit(self, sock: socket.socket, address: tuple[str, int]) -> None:
        sock.setblocking(False)
        server = self.server
        share = None if server.proxies.trusts(address[0]) else share_of(address[0])
        if len(server.open_connections) >= server.limits.connections:
            self._turn_away(sock, address, "too many connections: try again later")
        elif share is not None and not server.connection_shares.take(share):
            self._turn_away(sock, address, "too many connections from this address")
        else:
            self._welcome(sock, address, share)

    def _turn_away(self, sock: socket.socket, address: tuple[str, int], reason: str) -> None:
        if self.server.ssl_adapter is None:
            sock.send(plain_response(HTTPStatus.SERVICE_UNAVAILABLE, reason, address[0]))
        sock.close()

    def _welcome(self, sock: socket.socket, address: tuple[str, int], share: str | None) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.server.ssl_adapter is not None:
                # Not the adapter's wrap(), which would wait for the client's handshake here and
                # so stop this thread.
                sock = self.server.ssl_adapter.context.wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                )
            connection = self.server.connection(sock, address)
        except BaseException:
            if share is not None:
                self.server.connection_shares.give_back(share)
            raise
        self.server.open_connections[connection] = share
        self.put(connection)
