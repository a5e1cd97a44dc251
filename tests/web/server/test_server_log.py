"""A server whose log nobody reads."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.kit.daemon import COMMAND, DEADLINE, Daemon, wait_until
from tests.kit.wire import Wire
from tests.servers.programs import free_ports


@pytest.mark.server
def test_nobody_reads_the_log(tmp_path: Path) -> None:
    """Requests are answered, the server stops, and the lines that are lost are counted."""
    daemon, port = Daemon(tmp_path / "dav"), free_ports(1)[0]
    read_end, write_end = os.pipe()
    os.write(write_end, b"x" * fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096))
    arguments = ["--config", str(daemon.config), "dav", "--listen", f"127.0.0.1:{port}"]
    server = subprocess.Popen([*COMMAND, *arguments, "--anonymous", "read"], stderr=write_end)

    def answers() -> bool:
        try:
            with Wire(port) as wire:
                return wire.ask("GET /?list", "Accept: application/json").status == 200
        except ConnectionRefusedError:
            return False

    try:
        wait_until(answers, "it answers")
        assert all(answers() for _ in range(10))
        os.read(read_end, 4096)
        assert answers()
        server.send_signal(signal.SIGTERM)
        assert server.wait(DEADLINE) == 0
        assert b"lines are missing here: nobody took them" in os.read(read_end, 4096)
    finally:
        server.kill()
        server.wait()
        os.close(read_end)
        os.close(write_end)
