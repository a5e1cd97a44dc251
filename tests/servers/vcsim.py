"""vcsim on loopback, govmomi's simulator of a vCenter Server; built once a checkout.

It speaks plain HTTP and lets anybody at its files: tests put a TLS proxy in front.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.programs import free_ports, program, running, wait_for_port

USER, PASSWORD = "glance", "pa/ss+=w"
DATACENTER, DATASTORE = "DC0", "LocalDS_0"

_SOURCE = Path(__file__).with_name("vcsim") / "main.go"
_BUILT = Path(__file__).parents[2] / ".servers" / "vcsim"
_GOPATH = Path("/usr/share/gocode")
"""Where Debian has the sources of Go packages."""


@contextmanager
def vcsim(folder: Path) -> Iterator[int]:
    """Run it; its port."""
    command = [str(_program()), "-user", USER, "-password", PASSWORD]
    (port,) = free_ports(1)
    log = folder / "vcsim.log"
    with running([*command, "-l", f"127.0.0.1:{port}"], log) as process:
        wait_for_port(port, process, log)
        yield port


def _program() -> Path:
    """The program, built of its source (half a minute) if that is newer."""
    go = program("go", "golang-go")
    if not (_GOPATH / "src/github.com/vmware/govmomi").exists():
        raise RuntimeError("needs the package golang-github-vmware-govmomi-dev")
    _BUILT.mkdir(parents=True, exist_ok=True)
    built = _BUILT / "vcsim"
    with (_BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists() or built.stat().st_mtime < _SOURCE.stat().st_mtime:
            cache = {"GOCACHE": str(_BUILT / "cache"), "GOPATH": str(_GOPATH)}
            environ = os.environ | cache | {"GO111MODULE": "off"}
            build = [go, "build", "-o", str(built), str(_SOURCE)]
            subprocess.run(build, env=environ, check=True)
    return built
