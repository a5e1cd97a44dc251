"""The socket that a server listens on: its own or systemd's, with or without TLS.

Raises InvalidSettings for mistakes in the configuration.  Threading: none of this is shared.
"""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from cheroot.ssl.builtin import BuiltinSSLAdapter

from catalog.errors import InvalidSettings

_BACKLOG = 1024
_SYSTEMD_FD = 3


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: the certificate, with its chain, and its private key."""

    certificate: Path
    key: Path


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address; port 0 means any free one.  Raises InvalidSettings."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(
            address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=both
        )
    except OSError as error:
        # Not Python's text: after a failed bind it repeats the address.
        code = error.errno or 0
        reason = os.strerror(code) if code > 0 else error.strerror
        raise InvalidSettings(f"{host}:{port}", f"cannot listen: {reason}") from error


def systemd_socket() -> socket.socket | None:
    """Take the socket that systemd has opened for this process, if any (sd_listen_fds(3))."""
    mine = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
    count = os.environ.pop("LISTEN_FDS", "0")
    if not mine or count == "0":
        return None
    if count != "1":
        raise InvalidSettings("LISTEN_FDS", "only one socket is served")
    os.set_inheritable(_SYSTEMD_FD, False)
    return socket.socket(fileno=_SYSTEMD_FD)


def tls_adapter(files: TlsFiles) -> BuiltinSSLAdapter:
    """An adapter that adds TLS to connections.  Raises InvalidSettings for unusable files."""
    try:
        adapter = BuiltinSSLAdapter(str(files.certificate), str(files.key))
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidSettings(
            str(files.certificate), f"cannot be used for TLS: {reason}"
        ) from error
    adapter.context.minimum_version = ssl.TLSVersion.TLSv1_2
    return adapter
