"""Hosts on one machine: each with its own network, mounts, processes, name and state folder.

    with fleet(folder, "abc") as made:
        made["a"].mount()
        made["a"].run("cp", source, made["a"].path / "shared")

They reach a PostgreSQL by a bridge, in a network that only they have, and share the store
`shared`, a folder.  Only root may make namespaces.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit.daemon import COMMAND, DEADLINE, wait_until
from tests.kit.marks import check_marked
from tests.kit.tools import attempt, run
from tests.servers.databases import home, postgresql

_ADDRESS = "10.77.0"
_PORT = 5432
_CATALOG = "fleet"
_DAV_PORT = 8080

_CONFIG = """\
[catalog]
url = "postgresql+psycopg://postgres@{address}.1:{port}/{catalog}"
default_store = "shared"
staging = "{state}/staging"
[stores.shared]
type = "filesystem"
path = "{shared}"
[cache]
path = "{state}/cache"
[mount]
drain_timeout = 10
"""


class Host:
    """One host: it runs programs, a mount and a WebDAV server."""

    def __init__(self, name: str, folder: Path, shared: Path) -> None:
        self.name = name
        self.state = folder / name
        self.path = self.state / "mnt"
        self.config = self.state / "imagefs.toml"
        self.log = self.state / "log"
        self.path.mkdir(parents=True)
        # One path on all hosts: an image's location has it.
        place = folder / "pool"
        place.mkdir(exist_ok=True)
        self.config.write_text(
            _CONFIG.format(
                address=_ADDRESS,
                port=_PORT,
                catalog=_CATALOG,
                state=self.state,
                shared=place,
            )
        )
        self._started: list[subprocess.Popen[bytes]] = []
        self.first = _first_process(
            ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"],
            f"mount -t proc proc /proc && hostname {name} && mount --bind $1 $2",
            shared,
            place,
        )
        self.pid = _inner(self.first)

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command line begins with that runs on this host."""
        spaces = ("--net", "--mount", "--uts", "--ipc", "--pid")
        state = f"IMAGEFS_STATE={self.state}"
        return ("nsenter", f"--target={self.pid}", *spaces, "--", "env", state)

    def run(self, *command: object) -> str:
        """Run a program there, which must succeed; return what it prints."""
        return run(*self.inside, *command)

    def attempt(self, *command: object) -> subprocess.CompletedProcess[bytes]:
        """Run a program there, which may fail."""
        return attempt(*self.inside, *command)

    def spawn(self, *command: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program there, which ends with the host at the latest."""
        words = [*self.inside, *map(str, command)]
        process: subprocess.Popen[bytes] = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, **options
        )
        self._started.append(process)
        return process

    def imagefs(self, *arguments: object) -> str:
        """Run `imagefs` there."""
        return self.run(*COMMAND, "--config", self.config, *arguments)

    def field(self, path: Path, name: str) -> str:
        """An image's field, as its mount shows it; empty when it has none."""
        words = ("getfattr", "--only-values", "-n", f"user.image.{name}", path)
        return self.attempt(*words).stdout.decode()

    def sees(self, path: Path) -> bool:
        """Whether there is such a name."""
        return self.attempt("test", "-e", path).returncode == 0

    def mount(self, *program: str) -> None:
        """Mount, and wait until it answers; `program` runs in place of the command."""
        check_marked("a mount")
        self._serve(f"mounted at {self.path}", program, "mount", "--foreground", self.path)

    def serve(self) -> None:
        """Serve WebDAV to this host's own programs; anybody may write."""
        check_marked("a WebDAV server")
        listen = ("--listen", f"127.0.0.1:{_DAV_PORT}", "--anonymous", "write")
        self._serve("serving at ", (), "dav", *listen)

    def dav(self, path: str, *options: str) -> str:
        """What the WebDAV server of this host answers to curl(1)."""
        words = ("curl", "-sS", "--max-time", "20", *options)
        return self.run(*words, f"http://127.0.0.1:{_DAV_PORT}{path}")

    def power_off(self) -> None:
        """End all its processes at once, and its namespaces with them."""
        # With `unshare` goes its child, the first process there, and with that all others.
        _end(self.first)
        for process in self._started:
            process.wait(DEADLINE)

    def _serve(self, ready: str, program: Iterable[str], *arguments: object) -> None:
        before = self.log.stat().st_size if self.log.exists() else 0
        words = (*(program or COMMAND), "--config", self.config, *arguments)
        with self.log.open("ab") as log:
            process = self.spawn(*words, stdout=log, stderr=log)

        def is_ready() -> bool:
            said = self.log.read_text()[before:]
            assert process.poll() is None, f"{self.name} serves nothing: {said}"
            return ready in said

        wait_until(is_ready, f"{self.name} serves")


@dataclass
class Fleet:
    """Hosts that have one catalog."""

    folder: Path
    hub: int
    """A process in the network of the bridge and the database."""
    hosts: dict[str, Host] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def add(self, name: str) -> Host:
        """One more host."""
        host = Host(name, self.folder, self.folder / "shared")
        self.hosts[name] = host
        port, number = f"to-{name}", len(self.hosts) + 1
        _ip(self.hub, "link", "add", port, "type", "veth", "peer", "eth0", "netns", host.pid)
        _ip(self.hub, "link", "set", port, "master", "bridge", "up")
        _ip(host.pid, "addr", "add", f"{_ADDRESS}.{number}/24", "dev", "eth0")
        _ip(host.pid, "link", "set", "eth0", "up")
        _ip(host.pid, "link", "set", "lo", "up")
        return host

    def power_off(self) -> None:
        """End all hosts at once."""
        for host in self.hosts.values():
            host.power_off()


@contextmanager
def fleet(folder: Path, names: Iterable[str]) -> Iterator[Fleet]:
    """Run hosts with a new catalog; in the end all of it is gone."""
    check_marked("a database server")
    (folder / "shared").mkdir()
    hub = _first_process(["--net"], "ip link add bridge type bridge")
    with ExitStack() as stack, home() as data:
        stack.callback(_end, hub)
        _ip(hub.pid, "addr", "add", f"{_ADDRESS}.1/24", "dev", "bridge")
        _ip(hub.pid, "link", "set", "bridge", "up")
        with postgresql(data / "server", _PORT, network=hub.pid) as server:
            server.database(_CATALOG)
            made = Fleet(folder, hub.pid)
            stack.callback(made.power_off)
            for name in names:
                made.add(name)
            next(iter(made.hosts.values())).imagefs("init")
            yield made


def _first_process(spaces: list[str], prepare: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Make namespaces with a process that keeps them; returns when they are prepared."""
    script = f"{prepare} && echo ready && exec sleep infinity"
    process = subprocess.Popen(
        ["unshare", *spaces, "sh", "-ec", script, "sh", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"ready\n", "the namespaces are not there"
    return process


def _inner(process: subprocess.Popen[bytes]) -> int:
    """The child of `unshare --fork`, as this namespace counts."""
    pid = process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _ip(process: int, *words: object) -> None:
    run("nsenter", "--net", f"--target={process}", "--", "ip", *words)
