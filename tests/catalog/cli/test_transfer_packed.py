"""`imagefs add` of what is packed: files, standard input, the web."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from catalog.cli.program import imagefs as program
from tests.kit.catalog import some_bytes
from tests.kit.configuration import configure
from tests.kit.images.packed import PACK, ova
from tests.kit.images.samples import MIB, SIZE, container
from tests.servers.scripted import nginx

Run = Callable[..., Result]


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command on a catalog."""
    config = configure(tmp_path)

    def run(*arguments: str, stdin: bytes | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(program, ["--config", str(config), *arguments], input=stdin)
        assert result.exit_code == code, (result.output, result.exception)
        return result

    run("init")
    return run


def shown(run: Run, path: str) -> dict[str, Any]:
    """What `show` tells."""
    found: dict[str, Any] = json.loads(run("show", "--json", path).stdout)
    return found


@pytest.mark.parametrize(
    ("kind", "suffix"), list(zip(PACK, ["gz", "xz", "zst", "bz2"], strict=True))
)
def test_a_compressed_file_becomes_the_image_in_it(
    run: Run, tmp_path: Path, kind: str, suffix: str
) -> None:
    """Its name is without the suffix; the digest of what came is kept, and may be expected."""
    whole = container(tmp_path, "qcow2").read_bytes()
    file = tmp_path / f"debian.qcow2.{suffix}"
    file.write_bytes(PACK[kind](whole))
    run("add", str(file), "--sha256", sha256(file.read_bytes()))
    image = shown(run, "/file/debian.qcow2")
    assert (image["status"], image["disk_format"], image["size"]) == ("active", "qcow2", len(whole))
    assert image["os_hash_value"] == sha256(whole)
    assert image["properties"]["source_sha256"] == sha256(file.read_bytes())


def test_it_is_told_by_its_content(run: Run, tmp_path: Path) -> None:
    """A name tells nothing; the digest of the image in it may be expected as well."""
    whole = container(tmp_path, "qcow2").read_bytes()
    packed = lzma.compress(whole, preset=1)
    run("add", "-", "--name", "a", "--sha256", sha256(whole), stdin=packed)
    assert shown(run, "/file/a")["os_hash_value"] == sha256(whole)
    plain = tmp_path / "plain.qcow2.gz"
    plain.write_bytes(whole)
    run("add", str(plain))
    assert shown(run, "/file/plain.qcow2.gz")["disk_format"] == "qcow2"


def test_an_unexpected_digest_is_refused(run: Run) -> None:
    """It is neither of the file nor of the image in it, and nothing is left."""
    data = gzip.compress(bytes(MIB))
    result = run("add", "-", "--name", "a", "--sha256", "0" * 64, stdin=data, code=1)
    assert "was announced" in result.stderr
    assert json.loads(run("list", "--json").stdout) == []


@pytest.mark.server
def test_a_url_is_unpacked(run: Run, tmp_path: Path) -> None:
    """As it comes from the web server."""
    whole = container(tmp_path, "sparse.vmdk").read_bytes()
    (tmp_path / "web").mkdir()
    with nginx(tmp_path / "web") as server:
        (server.root / "appliance.ova").write_bytes(ova({"disk.vmdk": whole}))
        run("add", f"{server.url}/appliance.ova")
    image = shown(run, "/file/appliance.vmdk")
    assert (image["disk_format"], image["virtual_size"]) == ("vmdk", SIZE)
    assert image["os_hash_value"] == sha256(whole)


def test_what_is_packed_on_purpose_stays_so(run: Run, tmp_path: Path) -> None:
    """An initrd, an OVA as Glance has it, and whatever --as-is is said of."""
    initrd = gzip.compress(b"070701" + bytes(MIB))
    run("add", "-", "--name", "initrd", "--disk-format", "ari", stdin=initrd)
    assert shown(run, "/file/initrd")["os_hash_value"] == sha256(initrd)
    appliance = ova({"disk.vmdk": container(tmp_path, "stream.vmdk").read_bytes()})
    options = ("--container-format", "ova", "--disk-format", "vmdk")
    run("add", "-", "--name", "b.ova", *options, stdin=appliance)
    image = shown(run, "/file/b.ova")
    assert (image["disk_format"], image["container_format"]) == ("vmdk", "ova")
    result = run("add", "-", "--name", "c", "--as-is", stdin=initrd, code=1)
    assert "gzip-compressed" in result.stderr
    run("add", "-", "--name", "c", "--as-is", "--disk-format", "raw", stdin=initrd)
    assert shown(run, "/file/c")["disk_format"] == "raw"


@pytest.mark.parametrize("packing", [*PACK, "ova", "gzip in ova", "ova in xz"])
def test_the_gate_judges_what_comes_out(run: Run, tmp_path: Path, packing: str) -> None:
    """A disk with a backing file is refused, whatever it came in, and so is what is no disk."""
    overlay = tmp_path / "overlay.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd"]
    subprocess.run([*create, overlay, "1M"], check=True)
    pack = {
        **PACK,
        "ova": lambda data: ova({"d.qcow2": data}),
        "gzip in ova": lambda data: ova({"d.qcow2.gz": gzip.compress(data)}),
        "ova in xz": lambda data: lzma.compress(ova({"d.qcow2": data}), preset=1),
    }[packing]
    for inside, reason in ((overlay.read_bytes(), "backing file"), (b"<html>" * 99, "web page")):
        result = run("add", "-", "--name", "a", stdin=pack(inside), code=1)
        assert reason in result.stderr
    assert json.loads(run("list", "--json").stdout) == []


def test_a_bomb_ends_at_the_limit(run: Run, tmp_path: Path) -> None:
    """What is unpacked is held to max_image_size, although zeros take no room."""
    configure(tmp_path, catalog=f"max_image_size = {64 * MIB}")
    bomb = gzip.compress(bytes(65 * MIB))
    result = run("add", "-", "--name", "bomb", stdin=bomb, code=1)
    assert "at most" in result.stderr
    assert json.loads(run("list", "--json").stdout) == []


def test_the_manifest_of_an_appliance_is_compared(run: Run, tmp_path: Path) -> None:
    """A disk that is another one leaves nothing; one that is not named is told and taken."""
    disk = container(tmp_path, "stream.vmdk").read_bytes()
    wrong = ova({"d.vmdk": disk, "vm.mf": b"SHA256(d.vmdk)= " + b"0" * 64})
    result = run("add", "-", "--name", "a", stdin=wrong, code=1)
    assert f"-: the sha256 of d.vmdk is {sha256(disk)}, but vm.mf says 000" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert json.loads(run("list", "--json").stdout) == []
    result = run("add", "-", "--name", "a", stdin=ova({"vm.mf": b"", "d.vmdk": disk}))
    assert "a: d.vmdk was not compared: vm.mf does not name it" in result.stderr
    assert shown(run, "/file/a")["status"] == "active"


@pytest.mark.parametrize("end", [10, 1000, -1])
def test_a_cut_download_is_refused(run: Run, end: int) -> None:
    """One line, and nothing is left."""
    data = lzma.compress(some_bytes(MIB), preset=1)
    result = run("add", "-", "--name", "a", stdin=data[:end], code=1)
    assert "cut off" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert json.loads(run("list", "--json").stdout) == []
