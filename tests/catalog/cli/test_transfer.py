"""Adding, exporting and replicating."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from catalog.cli.program import imagefs as program
from catalog.model.access import ADMIN
from catalog.tree.vfs import Vfs
from tests.catalog.cli.command import DATA, SHA256, Run, damage, paths, process, shown
from tests.kit.catalog import staged_files
from tests.kit.damage import stored
from tests.servers.scripted import nginx


def test_add_a_file(run: Run, vfs: Vfs, tmp_path: Path) -> None:
    """It gets the file's name, its properties, and is active with the right digest."""
    file = tmp_path / "disk.raw"
    file.write_bytes(DATA)
    line = run("add", str(file), "--property", "os_distro=debian", "--sha256", SHA256).stdout
    found = shown(run, "/file/disk.raw")
    assert line == f"{found['id']}  /file/disk.raw\n"
    assert (found["status"], found["size"]) == ("active", len(DATA))
    assert (found["name"], found["os_hash_value"]) == ("disk.raw", SHA256)
    assert found["properties"] == {"os_distro": "debian"}


def test_add_with_fields(run: Run) -> None:
    """Whose it is, who sees it and what it needs is true from the first moment."""
    options = "--private --protected --tag x86 --tag stable --owner bob --min-disk 5 --min-ram 512"
    run("add", "-", "--name", "a", *options.split(), stdin=DATA)
    found = shown(run, "/file/a")
    assert (found["visibility"], found["protected"], found["owner"]) == ("private", True, "bob")
    assert (found["min_disk"], found["min_ram"]) == (5, 512)
    assert found["tags"] == ["stable", "x86"]
    run("add", "-", "--name", "b", "--visibility", "community", stdin=DATA)
    assert shown(run, "/file/b")["visibility"] == "community"
    both = ("--private", "--visibility", "public")
    run("add", "-", "--name", "c", *both, stdin=DATA, code=2)


def test_add_of_a_protected_image_that_fails(run: Run) -> None:
    """It leaves nothing behind, as any other."""
    digest = "0" * 64
    run("add", "-", "--name", "a", "--protected", "--sha256", digest, stdin=DATA, code=1)
    assert paths(run) == []


@pytest.mark.parametrize("name", ["visibility", "visiblity", "min-disk"])
def test_a_slip_is_not_taken_for_a_property(run: Run, image: str, name: str) -> None:
    """Neither by `add` nor by `set`, and nothing is added or changed."""
    told = run("add", "-", "--name", "b", "--property", f"{name}=1", stdin=DATA, code=2).stderr
    assert "field" in told
    assert paths(run) == ["/file/a"]
    if name != "visibility":
        assert "looks like the field" in run("set", image, f"{name}=1", code=2).stderr
    run("set", image, f"property.{name}=1", code=2)
    assert shown(run, image)["properties"] == {}


def test_added_holes_stay_holes(run: Run, vfs: Vfs, tmp_path: Path) -> None:
    """A sparse file takes no more room in the store, and ends where it ended."""
    file = tmp_path / "sparse.raw"
    with file.open("wb") as out:
        out.seek(32 << 20)
        out.write(b"data")
        out.truncate(64 << 20)
    run("add", str(file))
    image = shown(run, "/file/sparse.raw")
    with file.open("rb") as whole:
        assert image["os_hash_value"] == hashlib.file_digest(whole, "sha256").hexdigest()
    with vfs.catalog.read() as repository:
        inside = stored(vfs.catalog, repository.image_by_id(image["id"]), "file")
    assert inside.stat().st_blocks * 512 < 1 << 20


@pytest.mark.server
def test_add_from_a_web_server(run: Run, tmp_path: Path) -> None:
    """It is downloaded under the last part of its URL, through the store's address filter."""
    with nginx(tmp_path) as web:
        (web.root / "disk one.raw").write_bytes(DATA)
        url = f"{web.url}/disk%20one.raw"
        run("add", url, "--sha256", SHA256)
        assert shown(run, "/file/disk one.raw")["os_hash_value"] == SHA256
        run("add", url.replace("127.0.0.1", "127.0.0.2"), "--name", "x", code=12)
        run("add", f"{web.url}/missing", code=4)
    assert paths(run) == ["/file/disk one.raw"]


@pytest.mark.server
@pytest.mark.expect_log("the chunk at offset 0 is damaged")
def test_data_that_lies_elsewhere_is_verified_later(run: Run, vfs: Vfs, tmp_path: Path) -> None:
    """Exported unverified at first, and that is said; it records what it then is held to."""
    with nginx(tmp_path) as web:
        (web.root / "a").write_bytes(DATA)
        vfs.register(vfs.place("/web/a"), f"{web.url}/a", ADMIN)
        result = run("export", "/web/a", str(tmp_path / "out"))
        assert "not verified" in result.stderr
        assert run("verify").stdout.startswith("intact")
        (web.root / "a").write_bytes(DATA[::-1])
        assert "offset 0" in run("verify", code=1).stdout
        run("export", "/web/a", str(tmp_path / "out"), code=1)
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize(
    ("data", "options", "code", "reason"),
    [
        (DATA, ["--sha256", "0" * 64], 1, "was announced"),
        (DATA, ["--sha256", "nonsense"], 2, "hexadecimal"),
        (b"", [], 1, "no data"),
        (DATA, ["--store", "nonsense"], 4, "no such store"),
        (DATA, ["--store", "web"], 12, "read-only"),
        (DATA, ["--name", "x.part"], 2, "temporary"),
        (DATA, ["--name", "missing/x"], 4, "/file/missing"),
        (DATA, ["--property", f"{'n' * 300}=x"], 2, "255"),
    ],
)
def test_refused_data_leaves_nothing(
    run: Run,
    vfs: Vfs,
    tmp_path: Path,
    data: bytes,
    options: list[str],
    code: int,
    reason: str,
) -> None:
    """The line names the image and the reason; no entry and no staging stays."""
    result = run("add", "-", "--name", "x", *options, stdin=data, code=code)
    assert reason in result.stderr
    assert ".x." not in result.stderr
    assert paths(run) == []
    assert staged_files(tmp_path) == []


def test_backing_file_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    """The format gate's reason reaches the user."""
    overlay = tmp_path / "overlay.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", overlay],
        check=True,
    )
    line = run("add", str(overlay), code=1).stderr
    assert line.startswith("imagefs: overlay.qcow2: ")
    assert "backing" in line


def test_taken_name_is_kept_unless_replaced(run: Run, image: str) -> None:
    """Without --replace nothing happens; with it the old image goes to the trash."""
    assert "--replace" in run("add", "-", "--name", "a", stdin=b"new", code=1).stderr
    assert shown(run, "/file/a")["id"] == image
    run("add", "-", "--name", "a", "--replace", stdin=b"new")
    assert shown(run, "/file/a")["size"] == 3
    assert shown(run, "/file/.trash/a")["id"] == image


@pytest.mark.stress
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)],
)
def test_interrupted_add_leaves_nothing(
    run: Run, vfs: Vfs, config: Path, tmp_path: Path, number: int, code: int
) -> None:
    """Ctrl-C in the middle of an upload gives it up: no entry, no staging, its own code."""
    child = process(config, "add", "-", "--name", "a", stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(DATA * 4)
    child.stdin.flush()
    while not staged_files(tmp_path):
        assert child.poll() is None
    child.send_signal(number)
    _, stderr = child.communicate()
    assert child.returncode == code
    assert b"Traceback" not in stderr
    assert paths(run) == []
    assert staged_files(tmp_path) == []
    with vfs.catalog.read() as repository:
        assert repository.uploads() == []


@pytest.mark.stress
def test_killed_add_is_cleaned_up_by_scrub(run: Run, config: Path, tmp_path: Path) -> None:
    """After SIGKILL doctor tells of the upload, and scrub removes what it had staged."""
    child = process(config, "add", "-", "--name", "a", stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(DATA)
    child.stdin.flush()
    while not staged_files(tmp_path):
        assert child.poll() is None
    child.kill()
    child.communicate()
    # Its exit code depends on the host's other mounts as well.
    doctor = CliRunner().invoke(program, ["--config", str(config), "doctor", "--json"])
    checks = {check["subject"]: check for check in json.loads(doctor.stdout)}
    assert checks["uploads"]["level"] == "warn"
    run("scrub")
    assert staged_files(tmp_path) == []
    assert [found["status"] for found in json.loads(run("list", "--json").stdout)] in (
        [],
        ["killed"],
    )


def test_exported_data_is_the_images(run: Run, image: str, tmp_path: Path) -> None:
    """To a file, instead of an older one, and to standard output."""
    out = tmp_path / "out.raw"
    out.write_bytes(b"older")
    run("export", image, str(out))
    assert out.read_bytes() == DATA
    assert run("export", image, "-").stdout_bytes == DATA


def test_exported_zeros_are_holes(run: Run, tmp_path: Path) -> None:
    """Blocks of zeros take no room, also at the end."""
    data = bytes(1 << 20) + b"x" + bytes(1 << 20)
    run("add", "-", "--name", "zeros", stdin=data)
    out = tmp_path / "out.raw"
    run("export", "/file/zeros", str(out))
    assert out.read_bytes() == data
    assert out.stat().st_blocks * 512 < 1 << 19


def test_damaged_data_is_not_exported(run: Run, image: str, vfs: Vfs, tmp_path: Path) -> None:
    """The offset is named, the old file stays and nothing new lies beside it."""
    damage(vfs, image)
    out = tmp_path / "exported" / "out.raw"
    out.parent.mkdir()
    out.write_bytes(b"older")
    line = run("export", image, str(out), code=1).stderr
    assert "offset 0" in line
    assert [(file.name, file.read_bytes()) for file in out.parent.iterdir()] == [
        ("out.raw", b"older")
    ]


def test_export_does_not_replace_a_device(run: Run, image: str, tmp_path: Path) -> None:
    """What is no regular file is refused: the rename would take its place."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    run("export", image, str(fifo), code=2)
    assert fifo.is_fifo()
    run("export", image, str(tmp_path / "missing" / "x"), code=4)


def test_copies(run: Run, image: str) -> None:
    """A path is one copy, an id is the image."""
    assert run("replicate", image, "other").stdout == f"{image}  /other/a\n"
    assert shown(run, image)["stores"] == ["file", "other"]
    run("replicate", image, "other", code=1)
    run("replicate", image, "nonsense", code=4)
    run("delete", "/file/a")
    assert paths(run) == ["/other/a"]
    run("replicate", image, "file")
    run("delete", image)
    assert paths(run) == []
    assert len(paths(run, "--deleted")) == 1
