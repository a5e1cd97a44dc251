"""Notifies systemd of the service's state (sd_notify(3)).

Does nothing without $NOTIFY_SOCKET.  Threading: any thread but trio's: systemd may answer late, as
it may itself be waiting for one of our mounts.
"""

from __future__ import annotations

import os
import socket

_PATIENCE = 2.0
"""Seconds in which systemd has to take a message; after that the message is lost."""


def notify(state: str) -> None:
    """Send one state, such as `READY=1`; a missing service manager is no error."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(_PATIENCE)
        try:
            channel.connect(address)
            channel.sendall(state.encode())
        except OSError:
            pass


def watchdog_interval() -> float | None:
    """Seconds between two signs of life: half of systemd's time-out; None without a watchdog."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC")
    return int(microseconds) / 2_000_000 if microseconds else None
