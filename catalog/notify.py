"""Telling systemd how the service is (sd_notify(3)).

Does nothing when there is no $NOTIFY_SOCKET.  Threading: any thread but trio's: systemd may be
slow to listen, as it may be waiting for one of our mounts itself.
"""

from __future__ import annotations

import os
import socket

_PATIENCE = 2.0
"""Seconds systemd has to take a message; one that it does not take is lost."""


def notify(state: str) -> None:
    """Send one state, such as `READY=1`; a service manager that is gone is no error."""
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
    """Seconds between two signs of life: half of what systemd waits for; None without."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC")
    return int(microseconds) / 2_000_000 if microseconds else None
