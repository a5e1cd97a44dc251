"""Three hosts with one catalog: what one does, the others see.

`pytest --log-cli-level=info` prints how long it took until they did.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.daemon import wait_until
from tests.kit.fleet import Fleet, fleet
from tests.kit.tools import MIB, run, some_bytes

log = logging.getLogger(__name__)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """`a` and `b` have mounts, `c` serves WebDAV."""
    with fleet(tmp_path_factory.mktemp("fleet"), "abc") as made:
        made["a"].mount()
        made["b"].mount()
        made["c"].serve()
        yield made
        made["a"].imagefs("fsck")
        for host in made.hosts.values():
            assert "Traceback" not in host.log.read_text()


@pytest.fixture
def image(hosts: Fleet, tmp_path: Path) -> str:
    """The name of an image that `a` has copied in."""
    source = tmp_path / "image"
    source.write_bytes(some_bytes(MIB))
    name = f"{tmp_path.name}.img"
    hosts["a"].run("cp", source, at(hosts, "a", name))
    return name


def at(hosts: Fleet, host: str, name: str) -> Path:
    """Where a host has an image."""
    return hosts[host].path / "shared" / name


def listed(hosts: Fleet, name: str) -> bool:
    """Whether WebDAV lists it."""
    answer = hosts["c"].dav("/shared/", "-X", "PROPFIND", "-H", "Depth: 1")
    return f"/shared/{name}<" in answer


def seen(what: str, *conditions: Callable[[], object]) -> None:
    """Wait until all of these hold, and log how long that took, asking included."""
    begun = time.monotonic()
    for number, condition in enumerate(conditions):
        wait_until(condition, f"{what} ({number})")
        log.info("%s: %s after %.0f ms", what, "bc"[number], 1000 * (time.monotonic() - begun))


def test_an_image_is_read_and_listed_elsewhere(hosts: Fleet, image: str, tmp_path: Path) -> None:
    """Copied in on one host, it has the same bytes on another, and WebDAV lists it."""
    found = at(hosts, "b", image)
    seen(
        "copied in",
        lambda: hosts["b"].field(found, "status") == "active",
        lambda: listed(hosts, image),
    )
    hosts["b"].run("cmp", tmp_path / "image", found)
    assert hosts["b"].field(found, "os_hash_value") == hosts["a"].field(
        at(hosts, "a", image), "os_hash_value"
    )


def test_a_new_name_is_seen_elsewhere(hosts: Fleet, image: str) -> None:
    """Renamed, it has its new name everywhere, and its old one nowhere."""
    assert hosts["b"].sees(at(hosts, "b", image))
    new = f"new-{image}"
    hosts["a"].run("mv", at(hosts, "a", image), at(hosts, "a", new))
    seen(
        "renamed",
        lambda: hosts["b"].sees(at(hosts, "b", new)) and not hosts["b"].sees(at(hosts, "b", image)),
        lambda: listed(hosts, new) and not listed(hosts, image),
    )


def test_a_deletion_is_seen_elsewhere(hosts: Fleet, image: str) -> None:
    """Deleted, it is nowhere."""
    assert hosts["b"].sees(at(hosts, "b", image))
    hosts["a"].run("rm", at(hosts, "a", image))
    seen(
        "deleted",
        lambda: not hosts["b"].sees(at(hosts, "b", image)),
        lambda: not listed(hosts, image),
    )


def test_a_deactivation_is_seen_elsewhere(hosts: Fleet, image: str) -> None:
    """Deactivated, it is that on every host."""
    found = at(hosts, "b", image)
    assert hosts["b"].field(found, "status") == "active"
    hosts["a"].imagefs("deactivate", f"/shared/{image}")
    seen(
        "deactivated",
        lambda: hosts["b"].field(found, "status") == "deactivated",
        lambda: (
            hosts["c"].dav(f"/shared/{image}", "-o", "/dev/null", "-w", "%{http_code}") == "403"
        ),
    )


def test_a_replacement_is_seen_elsewhere(hosts: Fleet, image: str, tmp_path: Path) -> None:
    """Replaced by `rsync`, the name has the new bytes on every host, although they had read it."""
    found = at(hosts, "b", image)
    hosts["b"].run("cat", found)
    other = tmp_path / image
    other.write_bytes(some_bytes(2 * MIB, seed=1))
    hosts["a"].run("rsync", "--whole-file", other, at(hosts, "a", image))
    seen(
        "replaced",
        lambda: hosts["b"].attempt("cmp", other, found).returncode == 0,
        lambda: f"{2 * MIB}" in hosts["c"].dav(f"/shared/{image}", "-I"),
    )


def test_qemu_img_compares_across_hosts(hosts: Fleet, tmp_path: Path) -> None:
    """A qcow2 that one host has converted is the other's, block for block."""
    raw, name = tmp_path / "raw", f"{tmp_path.name}.qcow2"
    raw.write_bytes(some_bytes(MIB) + bytes(MIB) + some_bytes(MIB, seed=2))
    a, b = at(hosts, "a", name), at(hosts, "b", name)
    hosts["a"].run("qemu-img", "convert", "-O", "qcow2", raw, a)
    wait_until(lambda: hosts["b"].field(b, "status") == "active", "b has it")
    hosts["b"].run("qemu-img", "compare", raw, b)
    # Each host's file system, from a third place.
    both = [f"/proc/{hosts[host].pid}/root{path}" for host, path in (("a", a), ("b", b))]
    run("qemu-img", "compare", *both)
