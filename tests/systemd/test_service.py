"""The units' own command lines, run as systemd runs them, with the test as their systemd."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs import mountpoint

FOLDER = Path(__file__).parents[2] / "systemd"
MOUNT_UNIT = FOLDER / "imagefs-mount@.service"
SCRUB_UNIT = FOLDER / "imagefs-scrub.service"
IMAGEFS = Path(sys.executable).with_name("imagefs")
DEADLINE = 30.0
"""Seconds after which something that must happen is taken not to."""
POLL = 0.2
"""Seconds between two looks at whether the service still runs."""

CONFIG = """
[catalog]
url = "sqlite:///{folder}/catalog.db"
staging = "{folder}/staging"
scrub_time = 0
[stores.file]
type = "filesystem"
path = "{folder}/file"
[mount]
drain_timeout = 20
"""

# Says when it has written, and ends when it is told to.
WRITER = """
import sys
with open(sys.argv[1], "wb") as file:
    file.write(b"first half, ")
    file.flush()
    print("written", flush=True)
    sys.stdin.readline()
    file.write(b"second half")
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to drop")


def setting(unit: Path, name: str) -> str:
    """The value of a setting that stands once in a unit."""
    (found,) = re.findall(rf"^{name}=(.*)$", unit.read_text(), re.M)
    return str(found)


def command_line(unit: Path, place: Path) -> list[str]:
    """A unit's ExecStart for the instance of that mount point."""
    line = setting(unit, "ExecStart").replace("%f", shlex.quote(str(place)))
    program, *arguments = shlex.split(line)
    assert program == "/usr/bin/imagefs"
    return [str(IMAGEFS), *arguments]


class Service:
    """A catalog, its mount unit's command line, and the socket where that reports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = folder / "mount point"
        self.log = folder / "journal"
        self.process: subprocess.Popen[bytes] | None = None
        self.place.mkdir()
        config = folder / "imagefs.toml"
        config.write_text(CONFIG.format(folder=folder))
        self.environ = {**os.environ, "IMAGEFS_CONFIG": str(config)}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(POLL)

    def command(self, *arguments: str) -> str:
        """Run `imagefs`; return what it prints."""
        done = subprocess.run(
            [IMAGEFS, *arguments], env=self.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *wrapper: str, watchdog: float | None = None) -> None:
        """Start the service as systemd does; `watchdog` is WatchdogSec in seconds."""
        environ = {**self.environ, "NOTIFY_SOCKET": str(self.folder / "notify")}
        program = [*wrapper, *command_line(MOUNT_UNIT, self.place)]
        if watchdog is not None:
            environ["WATCHDOG_USEC"] = str(int(watchdog * 1_000_000))
            program = ["sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh", *program]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                program, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def told(self, wanted: str) -> str:
        """Wait for a message with a line that begins so; return that line."""
        assert self.process is not None
        give_up_at = time.monotonic() + DEADLINE
        while time.monotonic() < give_up_at:
            has_ended = self.process.poll() is not None
            for line in self._next_message():
                if line.startswith(wanted):
                    return line
            if has_ended:
                break
        pytest.fail(f"{wanted} was not told; the journal: {self.log.read_text()}")

    def _next_message(self) -> list[str]:
        try:
            return self._socket.recv(4096).decode().splitlines()
        except TimeoutError:
            return []

    def unread(self) -> list[str]:
        """The messages that have come and were not waited for."""
        messages = []
        self._socket.setblocking(False)
        try:
            while True:
                messages.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return messages
        finally:
            self._socket.settimeout(POLL)

    def send(self, number: signal.Signals) -> None:
        """Send the main process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait until the main process has ended; return its status."""
        assert self.process is not None
        return self.process.wait(DEADLINE)

    def status_of(self, path: str) -> str:
        """An image's status, as another process sees it."""
        return str(json.loads(self.command("show", path, "--json"))["status"])

    def clean_up(self) -> None:
        """End what still runs and unmount what is still mounted."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if mountpoint.is_mounted(self.place):
            mountpoint.unmount(self.place, lazy=True)
        self._socket.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with a catalog, not yet started."""
    service = Service(tmp_path)
    try:
        service.command("init")
        yield service
    finally:
        service.clean_up()


def write(path: Path) -> subprocess.Popen[str]:
    """Start a process that has written half of a file, and wait until it has."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "written\n"
    return writer


def test_ready_means_that_the_mount_answers(service: Service) -> None:
    """At READY=1 the tree is there to be used, and `systemctl status` says where."""
    service.start()
    service.told("READY=1")
    assert [path.name for path in service.place.iterdir() if path.name != ".by-id"] == ["file"]
    service.send(signal.SIGTERM)
    assert service.wait() == 0


def test_no_ready_without_a_mount(service: Service) -> None:
    """A start that fails never says READY=1, but in one line what is wrong."""
    (service.folder / "catalog.db").unlink()
    service.start()
    assert service.wait() == 10
    assert service.unread() == []
    assert "run 'imagefs init'" in service.log.read_text()
    assert service.log.read_text().count("\n") == 1


def test_watchdog_is_kept_content(service: Service) -> None:
    """A service with a watchdog gives signs of life again and again."""
    service.start(watchdog=0.2)
    service.told("READY=1")
    for _ in range(3):
        service.told("WATCHDOG=1")
    service.send(signal.SIGTERM)
    assert service.wait() == 0


def test_no_watchdog_for_another_process(service: Service) -> None:
    """A watchdog that is meant for another process gets no signs of life."""
    service.environ |= {"WATCHDOG_PID": str(os.getpid()), "WATCHDOG_USEC": "1000"}
    service.start()
    service.told("READY=1")
    service.send(signal.SIGTERM)
    assert service.wait() == 0
    assert not any("WATCHDOG=1" in message for message in service.unread())


def test_stop_lets_an_upload_finish(service: Service) -> None:
    """SIGTERM waits for who is writing, says so, refuses others, and ends with status 0."""
    service.start()
    service.told("READY=1")
    writer = write(service.place / "file/slow.raw")
    service.send(signal.SIGTERM)
    service.told("STOPPING=1")
    assert service.told("STATUS=waiting") == "STATUS=waiting for 1 uploads: slow.raw"
    with pytest.raises(OSError, match="busy") as refused:
        (service.place / "file/late.raw").write_bytes(b"late")
    assert refused.value.errno == errno.EBUSY
    writer.communicate("go on\n")
    assert writer.returncode == 0
    assert service.wait() == 0
    assert not mountpoint.is_mounted(service.place)
    assert service.status_of("/file/slow.raw") == "active"
    assert service.command("export", "/file/slow.raw", "-") == "first half, second half"


def test_start_cleans_a_dead_mount(service: Service) -> None:
    """After a crash the next start removes the dead mount, kills its uploads and serves."""
    service.start()
    service.told("READY=1")
    writer = write(service.place / "file/cut.raw")
    service.send(signal.SIGKILL)
    service.wait()
    writer.communicate("go on\n")
    assert writer.returncode != 0
    assert mountpoint.is_dead(service.place)
    service.start()
    service.told("READY=1")
    assert service.status_of("/file/cut.raw") == "killed"
    (service.place / "file/new.raw").write_bytes(b"new")
    service.send(signal.SIGTERM)
    assert service.wait() == 0


@needs_root
def test_capabilities_of_the_unit_suffice(service: Service) -> None:
    """With no capability but the unit's, and no new privileges, the whole job works."""
    names = setting(MOUNT_UNIT, "CapabilityBoundingSet").lower().split()
    kept = ",".join("+" + name.removeprefix("cap_") for name in names)
    service.start("setpriv", f"--bounding-set=-all,{kept}", "--no-new-privs", "--")
    service.told("READY=1")
    assert service.process is not None
    effective = re.search(
        r"^CapEff:\s*(\w+)$", Path(f"/proc/{service.process.pid}/status").read_text(), re.M
    )
    assert effective is not None
    assert int(effective[1], 16).bit_count() == len(names)
    # Who has a file open to write is asked of /proc, also of other users' processes.
    writer = write(service.place / "file/root.raw")
    writer.kill()
    writer.communicate()
    assert service.status_of("/file/root.raw") == "killed"
    # The mount point is entered before root is given up: pytest's folders are root's alone.
    other_user = ["setpriv", "--reuid=65534", "--clear-groups"]
    copy = [*other_user, "sh", "-c", "printf other > file/other.raw"]
    subprocess.run(copy, cwd=service.place, check=True)
    assert service.status_of("/file/other.raw") == "active"
    service.send(signal.SIGTERM)
    assert service.wait() == 0
    assert not mountpoint.is_mounted(service.place)


def test_scrub_unit_empties_the_trash(service: Service) -> None:
    """The scrubber's command line deletes what has been in the trash for long enough."""
    (service.folder / "image.raw").write_bytes(b"some data")
    service.command("add", str(service.folder / "image.raw"))
    service.command("delete", "/file/image.raw")
    assert len(json.loads(service.command("list", "--deleted", "--json"))) == 1
    subprocess.run(command_line(SCRUB_UNIT, service.place), env=service.environ, check=True)
    assert json.loads(service.command("list", "--deleted", "--json")) == []


@pytest.fixture
def mount_helper(service: Service) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run what mount(8) runs, with this test's `imagefs`."""
    del service.environ["IMAGEFS_CONFIG"]
    service.environ |= {
        "PATH": f"{IMAGEFS.parent}:{os.environ['PATH']}",
        "IMAGEFS_STATE": str(service.folder),
    }

    def mount(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(FOLDER / "mount.imagefs"), *arguments]
        return subprocess.run(
            command, env=service.environ, capture_output=True, text=True, check=False
        )

    return mount


def test_line_of_fstab_mounts(
    service: Service, mount_helper: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The options of an fstab line mount the configuration they name; umount(8) takes it away."""
    options = f"rw,nofail,_netdev,x-systemd.automount,config={service.folder}/imagefs.toml,noatime"
    done = mount_helper("none", str(service.place), "-o", options)
    assert done.returncode == 0, done.stderr
    (service.place / "file/image.raw").write_bytes(b"some data")
    assert "noatime" in options_of(service.place)
    subprocess.run(["umount", service.place], check=True)


def test_mount_twice_is_refused(
    service: Service, mount_helper: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """A second mount at the same place fails as mount(8) expects, and disturbs nothing."""
    arguments = (f"{service.folder}/imagefs.toml", str(service.place))
    assert mount_helper(*arguments).returncode == 0
    again = mount_helper(*arguments)
    assert again.returncode == 32
    assert "mounted there already" in again.stderr
    assert list(service.place.iterdir())
    subprocess.run(["umount", service.place], check=True)


def options_of(place: Path) -> list[str]:
    """The options in the mount table."""
    (line,) = [
        line.split()
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if line.split()[1] == str(place).replace(" ", r"\040")
    ]
    return line[3].split(",")
