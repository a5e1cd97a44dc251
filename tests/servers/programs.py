"""Where the servers of the tests come from: Debian's packages, and virtual environments.

Environments are made once a checkout, in `.servers/`; several test processes may ask
for the same one at once.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from tests.kit.marks import check_marked

SERVERS = Path(__file__).parents[2] / ".servers"
"""What is made once a checkout."""
_READY_SECONDS = 60
_MOUNTED_SECONDS = 10
_TAKEN: list[socket.socket] = []
"""One for each port this process has got."""
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def environment(name: str, requirements: Iterable[str]) -> Path:
    """The `bin` folder of the virtual environment `.servers/NAME`, made if needed."""
    folder = SERVERS / name
    wanted = "\n".join(requirements)
    stamp = folder / "installed"
    with one_at_a_time():
        if not stamp.exists() or stamp.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            pip = [str(folder / "bin" / "pip"), "install", "--quiet", *wanted.split("\n")]
            subprocess.run(pip, check=True)
            stamp.write_text(wanted)
    return folder / "bin"


def program(name: str, package: str) -> str:
    """The path of a program; root installs its Debian package if needed."""
    found = shutil.which(name, path=_PATH)
    if found is None and os.geteuid() == 0:
        with one_at_a_time():
            # RUNLEVEL=1: the package must not start a server of its own.
            install = ["apt-get", "install", "-y", "--no-install-recommends", package]
            subprocess.run(install, env=os.environ | {"RUNLEVEL": "1"}, check=False)
        found = shutil.which(name, path=_PATH)
    if found is None:
        raise RuntimeError(f"{name} is not installed (package {package})")
    return found


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, no two the same, for as long as this process lives.

    None is one that the kernel gives to outgoing connections: such a connection, of any process,
    would keep the server from listening; and a client that connects to its own port, before the
    server listens, is connected with itself.
    """
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = random.sample(range(10_000, first_outgoing), first_outgoing - 10_000)
    return list(islice((port for port in candidates if _is_free(port)), count))


def _is_free(port: int) -> bool:
    """Whether nobody listens there, and no process of any test has got it; it is ours then."""
    taken = socket.socket(socket.AF_UNIX)
    try:
        # An abstract name: it goes with the process, and no file stays.
        taken.bind(f"\0imagefs-test-port-{port}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        taken.close()
        return False
    _TAKEN.append(taken)
    return True


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program whose output goes to `log`; in the end it is terminated, by its id."""
    check_marked(Path(command[0]).name)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_port(
    port: int, process: subprocess.Popen[bytes], log: Path, *, seconds: int = _READY_SECONDS
) -> None:
    """Return when the process answers there.  Raises RuntimeError with its log if it does not."""
    for _ in range(seconds * 50):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} is not up: {log.read_text()}")


def wait_mounted(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when something is mounted there.  Raises RuntimeError with the log of the process."""
    for _ in range(_MOUNTED_SECONDS * 50):
        if os.path.ismount(path):
            return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} has not mounted: {log.read_text()}")


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let no other test process make anything in `.servers/` meanwhile."""
    SERVERS.mkdir(exist_ok=True)
    with (SERVERS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
