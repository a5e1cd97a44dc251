"""Two packages, and a minimal Debian on which the older one is installed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.debian import Debian, NoDebian, debian, minimal

ROOT = Path(__file__).parents[2]
LINE = "imagefs /srv/images imagefs noauto,_netdev 0 0"
OLD, NEW = "0.1.0", "0.1.1"


@dataclass(frozen=True, slots=True)
class Packages:
    """The same program as two versions; and the tree of files they are made of."""

    old: Path
    new: Path
    tree: Path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """What `make deb` makes."""
    folder = tmp_path_factory.mktemp("packages")
    # Packed as fast as can be.
    make = [
        "make",
        "-s",
        "deb",
        f"DEB_FOLDER={folder}",
        f"DEB_VERSION={OLD}",
        "DEB_OPTIONS=-Zzstd -z1",
    ]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (old,) = folder.glob("*.deb")
    new = old.with_name(old.name.replace(OLD, NEW))
    pack = [str(ROOT / "packaging/pack.sh"), str(folder / "tree"), NEW, str(new), "-Zzstd", "-z1"]
    subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
    return Packages(old, new, folder / "tree")


@pytest.fixture(scope="module")
def layers(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The layers of a Debian on which the package was installed by apt, and a catalog made."""
    folder = tmp_path_factory.mktemp("installed")
    try:
        base = minimal()
        with debian(folder, [base]) as host:
            package = host.take(packages.old)
            host.run("apt-get", "install", "-y", "-q", "--no-install-recommends", package)
            host.run("runuser", "-u", "imagefs", "--", "imagefs", "init")
            host.run("mkdir", "/srv/images")
            host.run("sh", "-c", f"echo '{LINE}' >> /etc/fstab")
            host.run("rm", package)
    except NoDebian as reason:
        pytest.skip(str(reason))
    return [host.changes, base]


@pytest.fixture
def host(layers: list[Path], tmp_path: Path) -> Iterator[Debian]:
    """A Debian with the older package installed, a catalog, and a line for it in fstab."""
    with debian(tmp_path / "host", layers) as host:
        yield host
