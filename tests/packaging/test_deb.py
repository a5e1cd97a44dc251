"""The Debian package on a minimal Debian 12: installed, mounted by fstab, upgraded, removed."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.packaging.conftest import NEW, OLD, ROOT, Packages
from tests.servers.debian import Debian, debian
from tests.servers.programs import free_ports

# With the build of the package, and the first time of a Debian.
pytestmark = [pytest.mark.stress, pytest.mark.timeout(1200)]

PLACE = "/srv/images"
MIB = 1 << 20
DATA = random.Random(5).randbytes(8 * MIB)
DIGEST = hashlib.sha256(DATA).hexdigest()

# Reads a MiB past the page cache for each number that it is sent, and says its digest.
READER = """
import hashlib, mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
part = mmap.mmap(-1, 1 << 20)
for line in sys.stdin:
    os.preadv(file, [part], int(line) << 20)
    print(hashlib.sha256(part).hexdigest(), flush=True)
"""


# Uploads what it reads, as a user; says the status of the answer.
UPLOADER = """
import base64, sys, urllib.request
login = base64.b64encode(b"alice:wonderland").decode()
request = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read(), method="PUT")
request.add_header("Authorization", f"Basic {login}")
print(urllib.request.urlopen(request).status)
"""

MOUNT_UNIT = "imagefs-mount@srv-images.service"


@contextmanager
def opened(host: Debian, path: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the file open, and reads what it is told to."""
    command = host.command("python3", "-c", READER, path)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as reader:
        yield reader
        assert reader.stdin is not None
        reader.stdin.close()


def read_part(reader: subprocess.Popen[str], number: int) -> bool:
    """Whether the reader gets the right bytes of that MiB."""
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write(f"{number}\n")
    reader.stdin.flush()
    wanted = hashlib.sha256(DATA[number * MIB : (number + 1) * MIB]).hexdigest()
    return reader.stdout.readline().strip() == wanted


def copy_in(host: Debian, name: str) -> None:
    """Copy the image into the mount, as `cp` does."""
    copy = host.command("cp", "/dev/stdin", f"{PLACE}/file/{name}")
    subprocess.run(copy, input=DATA, check=True)


def digest(host: Debian, path: str) -> str:
    """The SHA-256 of a file there."""
    return host.run("sha256sum", path).split()[0]


def test_package_verifies(host: Debian) -> None:
    """Every file is as it was packed after the program has run: it writes nothing below /opt."""
    host.run("imagefs", "list")
    assert host.run("dpkg", "--verify", "imagefs") == ""
    caches = host.run("find", "/opt/imagefs/package", "-newer", "/srv/images")
    assert caches == ""


def test_everything_is_there(host: Debian) -> None:
    """Drivers, manual pages, completions, a user, folders; and who may read the passwords."""
    python = "/opt/imagefs/current/bin/python3"
    host.run(python, "-c", "import psycopg, pyVmomi, pyfuse3, pymysql")
    owner = ("stat", "--format=%U:%G %a")
    assert host.run(*owner, "/var/lib/imagefs") == "imagefs:imagefs 750\n"
    assert host.run(*owner, "/var/log/imagefs") == "imagefs:imagefs 750\n"
    assert host.run(*owner, "/etc/imagefs/imagefs.toml") == "root:imagefs 640\n"
    files = host.run("dpkg", "--listfiles", "imagefs").splitlines()
    for name in (
        "man/man1/imagefs.1.gz",
        "man/man5/imagefs.toml.5.gz",
        "man/man8/mount.imagefs.8.gz",
        "bash-completion/completions/imagefs",
        "zsh/vendor-completions/_imagefs",
        "fish/vendor_completions.d/imagefs.fish",
    ):
        assert f"/usr/share/{name}" in files


def test_scripts_are_clean_sh() -> None:
    """Those that build the package, and those that dpkg runs."""
    folder = ROOT / "packaging"
    scripts = [*folder.glob("*.sh"), *folder.glob("debian/p*")]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert (len(scripts), done.stdout) == (6, "")


def test_program_is_complete(packages: Packages) -> None:
    """Each file of the packages is installed by the wheel, also what is no module."""
    listed = subprocess.run(
        ["git", "ls-files", "catalog", "dav", "imagefs", "web"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (installed,) = packages.tree.glob("opt/imagefs/package/lib/python3*/site-packages")
    missing = [name for name in listed.stdout.split() if not (installed / name).exists()]
    assert missing == []


def test_nothing_names_the_build(packages: Packages) -> None:
    """No file says in which folder of which machine it was made."""
    command = ["grep", "-rl", "--exclude-dir=DEBIAN", str(packages.tree), str(packages.tree)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_units_verify(host: Debian) -> None:
    """Systemd of a bare system finds nothing to say about the units as they are installed."""
    units = [
        unit.replace("@.", "@srv-images.")
        for unit in host.run("dpkg", "--listfiles", "imagefs").splitlines()
        if unit.startswith("/usr/lib/systemd/system/imagefs-")
    ]
    assert len(units) > 3
    done = host.try_("systemd-analyze", "verify", "--man=no", "--recursive-errors=one", *units)
    assert (done.stdout, done.returncode) == ("", 0)


def test_line_of_fstab_mounts(host: Debian) -> None:
    """`mount /srv/images` mounts what the line says; an image that is copied in is active."""
    host.run("mount", PLACE)
    copy_in(host, "disk.raw")
    assert host.run("imagefs", "list").splitlines()[1].split()[0] == "active"
    host.run("umount", PLACE)
    host.run("mount", PLACE)
    assert digest(host, f"{PLACE}/file/disk.raw") == DIGEST


def test_line_of_fstab_mounts_at_boot(layers: list[Path], tmp_path: Path) -> None:
    """Systemd mounts it as any other file system that needs the network."""
    with debian(tmp_path / "first", layers) as host:
        host.run("mount", PLACE)
        copy_in(host, "disk.raw")
        host.run("umount", PLACE)
        host.run("sed", "-i", "s/noauto,_netdev/defaults,_netdev/", "/etc/fstab")
    with debian(tmp_path / "second", [host.changes, *layers]) as host:
        assert digest(host, f"{PLACE}/file/disk.raw") == DIGEST


def test_services_mount_and_serve(host: Debian) -> None:
    """Under systemd's restrictions the mount and the server read and write each other's images."""
    (port,) = free_ports(1)
    host.run("sed", "-i", f"s/127.0.0.1:8080/127.0.0.1:{port}/", "/etc/imagefs/imagefs.toml")
    host.run("sh", "-c", "echo wonderland | imagefs user add --role admin alice")
    host.run("systemctl", "enable", "--now", MOUNT_UNIT, "imagefs-dav.service")
    url = f"http://127.0.0.1:{port}/file/uploaded.raw"
    upload = host.command("python3", "-c", UPLOADER, url)
    answer = subprocess.run(upload, input=DATA, stdout=subprocess.PIPE, check=True)
    assert answer.stdout == b"201\n"
    assert digest(host, f"{PLACE}/file/uploaded.raw") == DIGEST
    copy_in(host, "disk.raw")
    # Its place is cleaned after a crash, and it is there again.
    host.run("systemctl", "kill", "--signal=KILL", MOUNT_UNIT)
    host.run("systemctl", "restart", MOUNT_UNIT)
    assert digest(host, f"{PLACE}/file/disk.raw") == DIGEST
    # Removing the package ends them, and purging it what was enabled.
    host.run("dpkg", "--purge", "imagefs")
    assert host.run("systemctl", "list-units", "--plain", "--no-legend", "imagefs-*.service") == ""
    assert host.run("find", "/etc/systemd/system", "-name", "imagefs*") == ""
    assert host.try_("findmnt", PLACE).returncode != 0


def test_timers_do_their_work(host: Debian) -> None:
    """Scrub, verify and backup run under systemd's restrictions; the backup is root's alone."""
    timers = [f"imagefs-{name}.timer" for name in ("scrub", "verify", "backup")]
    host.run("systemctl", "enable", "--now", *timers)
    host.run("mount", PLACE)
    copy_in(host, "disk.raw")
    for timer in timers:
        host.run("systemctl", "start", timer.replace(".timer", ".service"))
    assert "intact" in host.run("journalctl", "--unit=imagefs-verify.service", "--output=cat")
    (backup,) = host.run("ls", "/var/backups/imagefs").split()
    path = f"/var/backups/imagefs/{backup}"
    assert host.run("stat", "--format=%U %a", path) == "root 600\n"
    # What was damaged fails the unit, for all to see.
    host.run(
        "sh", "-c", "for file in $(find /var/lib/imagefs/images -size +1M); do echo >> $file; done"
    )
    assert host.try_("systemctl", "start", "imagefs-verify.service").returncode != 0


def test_upgrade_with_an_image_open(host: Debian, packages: Packages) -> None:
    """A mount goes on with the version it was started with; the next one is of the new version."""
    host.run("mount", PLACE)
    copy_in(host, "disk.raw")
    with opened(host, f"{PLACE}/file/disk.raw") as reader:
        assert read_part(reader, 0)
        told = host.run("dpkg", "--install", host.take(packages.new))
        assert f"version {OLD} still runs" in told
        assert read_part(reader, 1)
        copy_in(host, "another.raw")
        assert digest(host, f"{PLACE}/file/another.raw") == DIGEST
        assert read_part(reader, 7)
    assert f"/{NEW}/" in host.run("readlink", "-f", "/usr/bin/imagefs")
    host.run("umount", PLACE)
    host.run("mount", PLACE)
    assert digest(host, f"{PLACE}/file/another.raw") == DIGEST
    # What nobody runs any more goes with the next installation.
    host.run("dpkg", "--install", host.take(packages.new))
    assert OLD not in host.run("ls", "/opt/imagefs/versions")
    assert digest(host, f"{PLACE}/file/disk.raw") == DIGEST


def test_changed_configuration_survives_an_upgrade(host: Debian, packages: Packages) -> None:
    """What an administrator has written stays, and so do its owner and mode."""
    config = "/etc/imagefs/imagefs.toml"
    host.run("sed", "-i", "s/^drain_timeout = 60/drain_timeout = 61/", config)
    host.run("chmod", "600", config)
    host.run("dpkg", "--install", host.take(packages.new))
    assert "drain_timeout = 61" in host.run("cat", config)
    assert host.run("stat", "--format=%a", config) == "600\n"


def test_removal_waits_for_open_images(host: Debian) -> None:
    """While an image is open the package stays, and works; then its mount goes with it."""
    host.run("mount", PLACE)
    copy_in(host, "disk.raw")
    with opened(host, f"{PLACE}/file/disk.raw") as reader:
        assert read_part(reader, 0)
        refused = host.try_("dpkg", "--remove", "imagefs")
        assert refused.returncode != 0
        assert f"{PLACE}: is in use" in refused.stdout
        assert read_part(reader, 1)
        host.run("imagefs", "list")
    host.run("dpkg", "--remove", "imagefs")
    assert host.run("findmnt", "--list", "--output", "TARGET").count(PLACE) == 0
    assert host.try_("ls", "/opt/imagefs").returncode != 0


@pytest.mark.parametrize("how", ["--remove", "--purge"])
def test_images_outlive_the_package(host: Debian, packages: Packages, how: str) -> None:
    """Neither removing nor purging deletes an image; after a new installation it is there."""
    host.run("mount", PLACE)
    copy_in(host, "disk.raw")
    told = host.run("dpkg", how, "imagefs")
    assert ("/var/lib/imagefs stays" in told) == (how == "--purge")
    assert (host.try_("ls", "/etc/imagefs").returncode == 0) == (how == "--remove")
    assert host.try_("ls", "/opt/imagefs").returncode != 0
    host.run("dpkg", "--install", host.take(packages.old))
    host.run("mount", PLACE)
    assert digest(host, f"{PLACE}/file/disk.raw") == DIGEST
