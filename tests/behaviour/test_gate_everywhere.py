"""The format gate at every way in: cp, PUT, `imagefs add`, `ln -s URL`, `imagefs adopt`."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.kit.daemon import COMMAND, Daemon
from tests.kit.images.damaged import corpus
from tests.kit.images.packed import ova
from tests.kit.service import Service, service
from tests.kit.tools import attempt, field
from tests.servers.scripted import WebServer, nginx

# What is refused, and a word of the reason that everybody is told.
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "overlay": (lambda: corpus()["overlay.qcow2"], "backing file"),
    "short overlay": (lambda: corpus()["overlay.qcow2"][:222], "backing file"),
    "data file": (lambda: corpus()["data-file.qcow2"], "another file"),
    "child": (lambda: corpus()["child.vmdk"], "parent"),
    "descriptor": (lambda: corpus()["descriptor.vmdk"], "names the files"),
    "old qcow": (lambda: corpus()["qcow"], "qemu-img convert"),
    "cut qcow2": (lambda: corpus()["qcow2"][:2_000_000], "cut off"),
    "cut vmdk": (lambda: corpus()["sparse.vmdk"][:2_000_000], "cut off"),
    "cut vhd": (lambda: corpus()["dynamic.vhd"][:2_000_000], "cut off"),
    "cut vhdx": (lambda: corpus()["vhdx"][:6_000_000], "cut off"),
    "cut vdi": (lambda: corpus()["vdi"][:2_000_000], "cut off"),
    "parallels": (lambda: corpus()["parallels"], "qemu-img convert"),
    "page": (lambda: b"<!DOCTYPE html>\n<title>404</title>\nZ\xc3\xbcrich\n" * 30, "page"),
    "xml": (lambda: b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>', "XML"),
    "json": (lambda: b'{"message": "not found"}', "JSON"),
    "script": (lambda: b"#!/bin/sh\n# text\n" + bytes(range(128, 256)) * 64, "script"),
}
# What `imagefs add` takes apart, and all others refuse.
PACKED: dict[str, tuple[Callable[[], bytes], str]] = {
    "gzip": (lambda: gzip.compress(corpus()["qcow2"]), "gzip-compressed"),
    "ova": (lambda: ova({"disk.vmdk": corpus()["stream.vmdk"]}), "OVA"),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A mount, a server, and a catalog of both."""
    with service(Daemon(tmp_path_factory.mktemp("gate"))) as running, running.catalog.mounted():
        yield running


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A web server with images on it."""
    with nginx(tmp_path_factory.mktemp("web")) as server:
        yield server


def imagefs(running: Service, *arguments: object) -> tuple[int, str]:
    """Run the command; its exit code and what it says on stderr."""
    done = attempt(*COMMAND, "--config", running.catalog.config, *arguments)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("name", [*REFUSED, *PACKED])
def test_cp_is_refused_with_a_message(running: Service, tmp_path: Path, name: str) -> None:
    """EINVAL at close, the image killed, and the reason in its message."""
    make, word = {**REFUSED, **PACKED}[name]
    source, target = tmp_path / "image", running.catalog.path / "file" / f"cp {name}"
    source.write_bytes(make())
    done = attempt("cp", source, target)
    assert (done.returncode, b"Invalid argument" in done.stderr) == (1, True)
    assert field(target, "status") == "killed"
    assert word in field(target, "message")


@pytest.mark.parametrize("name", [*REFUSED, *PACKED])
def test_put_is_refused_with_the_reason(running: Service, name: str) -> None:
    """415, and the words that help in the answer."""
    make, word = {**REFUSED, **PACKED}[name]
    answer = running.ask(f"PUT /file/put-{name.replace(' ', '-')}", body=make())
    assert answer.status == 415
    assert word in answer.body.decode()


@pytest.mark.parametrize("name", REFUSED)
def test_add_is_refused_in_one_line(running: Service, tmp_path: Path, name: str) -> None:
    """Exit code 1, one line, and nothing is left."""
    make, word = REFUSED[name]
    source = tmp_path / "image"
    source.write_bytes(make())
    code, told = imagefs(running, "add", source, "--name", f"add {name}")
    assert (code, len(told.splitlines())) == (1, 1)
    assert word in told
    assert not (running.catalog.path / "file" / f"add {name}").exists()


@pytest.mark.parametrize("name", [*REFUSED, *PACKED])
def test_a_link_is_refused(running: Service, web: WebServer, name: str) -> None:
    """What lies at a URL is judged as the whole that it is."""
    make, word = {**REFUSED, **PACKED}[name]
    key = name.replace(" ", "-")
    (web.root / key).write_bytes(make())
    target = running.catalog.path / "web" / key
    done = attempt("ln", "-s", f"{web.url}/{key}", target)
    assert (done.returncode, b"Invalid argument" in done.stderr) == (1, True)
    assert not target.exists()
    log = running.catalog.log.read_text()
    assert word in log


@pytest.mark.parametrize("name", [*REFUSED, *PACKED])
def test_adoption_is_refused(running: Service, name: str) -> None:
    """What a Glance has left stays what it is."""
    make, word = {**REFUSED, **PACKED}[name]
    key = str(uuid4())
    (running.catalog.state / "file" / key).write_bytes(make())
    code, told = imagefs(running, "adopt", "file", key)
    assert code == 1
    assert word in told
    (running.catalog.state / "file" / key).unlink()


@pytest.mark.parametrize(
    "name", ["qcow2", "subclusters.qcow2", "footed.vmdk", "fixed.vhd", "fixed.vhdx", "luks", "iso"]
)
def test_a_good_image_is_taken_everywhere(
    running: Service, web: WebServer, tmp_path: Path, name: str
) -> None:
    """All five ways record the same."""
    data, key = corpus()[name], str(uuid4())
    tree = running.catalog.path
    source = tmp_path / "image"
    source.write_bytes(data)
    (web.root / name).write_bytes(data)
    (running.catalog.state / "file" / key).write_bytes(data)
    assert attempt("cp", source, tree / "file" / f"good cp {name}").returncode == 0
    assert running.ask(f"PUT /file/good-put-{name}", body=data).status == 201
    assert imagefs(running, "add", source, "--name", f"good add {name}") == (0, "")
    assert attempt("ln", "-s", f"{web.url}/{name}", tree / "web" / name).returncode == 0
    assert imagefs(running, "adopt", "file", key, "--name", f"good adopt {name}")[0] == 0
    paths = [
        *(tree / "file" / f"good {way} {name}" for way in ("cp", "add", "adopt")),
        tree / "file" / f"good-put-{name}",
        tree / "web" / name,
    ]
    kinds = {(field(path, "disk_format"), field(path, "virtual_size")) for path in paths}
    assert len(kinds) == 1
    assert all(path.read_bytes() == data for path in paths)
