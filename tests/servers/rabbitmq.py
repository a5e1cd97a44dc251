"""RabbitMQ on loopback: what the parts of an OpenStack service talk over.

    with rabbitmq(folder) as url: ...

A node of its own, with a name server (epmd) of its own; both end by their process ids.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers.programs import free_ports, program, running, wait_for_port

# Not /usr/sbin/rabbitmq-server, which as root becomes the user rabbitmq.
_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_READY_SECONDS = 60


@contextmanager
def rabbitmq(folder: Path) -> Iterator[str]:
    """Run a broker in `folder`; yields its URL for `transport_url`."""
    program("rabbitmq-server", "rabbitmq-server")
    port, distribution, names = free_ports(3)
    for name in ("mnesia", "log"):
        (folder / name).mkdir()
    (folder / "plugins").write_text("[].")
    variables = {
        "HOME": str(folder),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(names),
        "RABBITMQ_NODENAME": "tests@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    with ExitStack() as servers:
        epmd = [program("epmd", "erlang-base"), "-address", "127.0.0.1", "-port", str(names)]
        log = folder / "epmd.log"
        wait_for_port(names, servers.enter_context(running(epmd, log)), log)
        servers.enter_context(_broker(folder, port, os.environ | variables))
        yield f"rabbit://guest:guest@127.0.0.1:{port}/"


@contextmanager
def _broker(folder: Path, port: int, variables: dict[str, str]) -> Iterator[None]:
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [_SERVER], stdout=output, stderr=output, env=variables, start_new_session=True
        )
    try:
        wait_for_port(port, process, log, seconds=_READY_SECONDS)
        yield
    finally:
        # A shell script and the node: nothing of it need outlive the tests.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
