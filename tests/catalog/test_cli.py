"""The command, as its users run it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from catalog import errors, mounts
from catalog.bootstrap import open_catalog
from catalog.cli.exit_codes import EXIT_CODES
from catalog.cli.program import Program
from catalog.cli.program import imagefs as program
from catalog.errors import CatalogError
from catalog.model.access import ADMIN
from catalog.model.fields import FIELDS
from catalog.model.image import CHUNK_SIZE
from catalog.repository.schema import SCHEMA
from catalog.settings import load
from catalog.tree.vfs import Vfs
from tests.kit.catalog import staged_files
from tests.kit.configuration import configure
from tests.kit.damage import overwrite, stored
from tests.servers.scripted import nginx

DATA = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(DATA).hexdigest()

OF_SEVERAL = ("deactivate", "reactivate", "delete", "verify")
"""Commands that tell one line for each of their arguments."""

Run = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with two file stores and one of the web."""
    return configure(tmp_path, catalog="scrub_time = 3600")


@pytest.fixture
def bare(config: Path) -> Run:
    """Runs the command with that configuration, before `init`."""

    def run(*arguments: str, stdin: bytes | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(program, ["--config", str(config), *arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        lines = result.stderr.splitlines()
        assert all(line.startswith("imagefs: ") for line in lines)
        assert len(lines) <= 1 or arguments[0] in OF_SEVERAL
        return result

    return run


@pytest.fixture
def run(bare: Run) -> Run:
    """Runs the command on a catalog that has been made."""
    bare("init")
    return bare


@pytest.fixture
def image(run: Run) -> str:
    """The id of the image /file/a, which holds DATA."""
    added = run("add", "-", "--name", "a", "--json", stdin=DATA)
    return str(json.loads(added.stdout)["id"])


@pytest.fixture
def vfs(config: Path, run: Run) -> Iterator[Vfs]:
    """The tree, as another process sees it."""
    vfs = Vfs(open_catalog(load(config)))
    yield vfs
    vfs.catalog.close()


def shown(run: Run, argument: str) -> dict[str, Any]:
    """What `show --json` tells."""
    found: dict[str, Any] = json.loads(run("show", "--json", argument).stdout)
    return found


def paths(run: Run, *arguments: str) -> list[str]:
    """The paths `list --json` tells."""
    return [found["path"] for found in json.loads(run("list", "--json", *arguments).stdout)]


def process(config: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "catalog.cli", "--config", str(config), *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **options)


# -- how it ends -----------------------------------------------------------------------


def test_every_error_has_its_exit_code() -> None:
    """The table names each class of the tree, and nothing else."""

    def tree(cls: type[CatalogError]) -> set[type[CatalogError]]:
        return {cls}.union(*(tree(below) for below in cls.__subclasses__()))

    of_catalog = {cls for cls in tree(CatalogError) if cls.__module__ == errors.__name__}
    assert set(EXIT_CODES) == of_catalog


def test_every_command_is_there_and_has_help() -> None:
    """The commands the issue names, each explained."""
    names = set(
        "init list show add export set unset tag deactivate reactivate delete restore "
        "replicate verify scrub fsck store config doctor mount umount".split()
    )
    listed = program.list_commands(program.make_context("imagefs", ["doctor"]))
    assert names <= set(listed)
    for name in listed:
        assert CliRunner().invoke(program, [name, "--help"]).exit_code == 0


def test_without_a_catalog(bare: Run) -> None:
    """The line says what to do, and the code is its own."""
    assert "imagefs init" in bare("list", code=10).stderr


def test_newer_schema_is_refused(bare: Run, config: Path) -> None:
    """A catalog of a newer program is not touched."""
    bare("init")
    catalog = open_catalog(load(config))
    with catalog.write() as repository:
        newer = f"{int(SCHEMA) + 1:04}"
        repository.connection.exec_driver_sql(f"UPDATE alembic_version SET version_num='{newer}'")
    catalog.close()
    for command in ("list", "init"):
        assert "newer" in bare(command, code=13).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["list", "--sort", "nonsense"],
        ["list", "--property", "nonsense"],
        ["set", "/file/a"],
        ["nonsense"],
        [],
    ],
)
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    """One line that leads to the help."""
    assert "--help" in run(*arguments, code=2).stderr


def test_bad_configuration(bare: Run, config: Path) -> None:
    """The file and the key are named."""
    config.write_text("[catalog]\nnonsense = 1\n")
    line = bare("config", "check", code=2).stderr
    assert str(config) in line
    assert "nonsense" in line


def test_some_of_several_failed(run: Run, image: str) -> None:
    """What can be done is done, each failure is told, and the code says partly."""
    result = run("deactivate", "/file/missing", image, code=3)
    assert "/file/missing" in result.stderr
    assert shown(run, image)["status"] == "deactivated"
    run("deactivate", "/file/missing", "/file/missing too", code=4)


def test_a_broken_package_costs_only_its_own_commands(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names it; the other commands work."""
    points = [
        importlib.metadata.EntryPoint("catalog", "catalog.cli:commands", "imagefs.commands"),
        importlib.metadata.EntryPoint("broken", "nonexistent.cli:commands", "imagefs.commands"),
    ]
    monkeypatch.setattr("catalog.cli.program.entry_points", lambda group: points)
    result = CliRunner().invoke(Program("imagefs"), ["--help"])
    assert result.exit_code == 0
    assert result.stderr.count("\n") == 1
    assert "nonexistent" in result.stderr
    assert "replicate" in result.stdout


@pytest.mark.stress
def test_closed_pipe_is_quiet(run: Run, image: str, config: Path) -> None:
    """A reader that has enough, as head(1), is no error worth a word."""
    reading, writing = os.pipe()
    os.close(reading)
    for arguments in (["list"], ["export", image, "-"]):
        child = process(config, *arguments, stdout=writing)
        _, stderr = child.communicate()
        assert stderr == b""
        assert child.returncode == 1
    os.close(writing)


def test_alembic_is_not_loaded_to_list(run: Run, config: Path) -> None:
    """What only a migration needs is not imported on the usual path."""
    script = (
        "import sys\nfrom catalog.cli.program import imagefs\n"
        "try: imagefs.main(sys.argv[1:])\n"
        "finally: print('alembic' in sys.modules, 'sqlalchemy' in sys.modules)"
    )
    command = [sys.executable, "-c", script, "--config", str(config), "list"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.endswith(b"False True\n")


# -- which image is meant --------------------------------------------------------------


def test_image_is_named_by_path_id_or_prefix(run: Run, image: str) -> None:
    """All ways of naming lead to the same image."""
    ways = ["/file/a", "file/a", f"/.by-id/{image}", image, image[:6], image[:6].upper()]
    assert {shown(run, way)["id"] for way in ways} == {image}


def test_ambiguous_prefix_lists_the_candidates(run: Run, vfs: Vfs) -> None:
    """Ids that begin alike are told, and nothing is done."""
    for last in "12":
        place = vfs.place(f"/file/n{last}")
        vfs.catalog.create(place, ADMIN, f"abcdef00-0000-4000-8000-00000000000{last}")
    line = run("delete", "abcdef", code=2).stderr
    assert "000001 (n1)" in line
    assert "000002 (n2)" in line
    assert paths(run) == ["/file/n1", "/file/n2"]


@pytest.mark.parametrize(
    ("argument", "code"),
    [("", 2), ("b.img", 4), ("xyz", 4), ("/file", 1), ("/file/x", 4), ("/\udcff", 2), ("ü", 4)],
)
def test_what_is_no_image(run: Run, argument: str, code: int) -> None:
    """An empty argument never means the only image there is; a bare name is no id."""
    run("add", "-", "--name", "b", stdin=DATA)
    run("delete", argument, code=code)
    assert paths(run) == ["/file/b"]


# -- adding ----------------------------------------------------------------------------


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


def test_each_program_checks_its_own_section(bare: Run, config: Path) -> None:
    """A mistake in [dav] stops `imagefs dav` and `config check`, and nothing else."""
    config.write_text(config.read_text() + "[dav]\nlisten = 8080\n")
    bare("init")
    bare("add", "-", "--name", "a", stdin=DATA)
    assert "dav.listen" in bare("config", "check", code=2).stderr
    assert "dav.listen" in bare("dav", code=2).stderr
    checks = bare("doctor", "--json", code=1).stdout
    assert "dav.listen" in checks


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


# -- exporting -------------------------------------------------------------------------


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
    _damage(vfs, image)
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


# -- looking ---------------------------------------------------------------------------


def test_list_filters_and_sorts(run: Run, tmp_path: Path) -> None:
    """By property, tag, status and folder; sorted by any field, either way."""
    for size, name in ((3, "b"), (1, "c"), (2, "a")):
        run("add", "-", "--name", name, "--property", f"p={size}", stdin=b"x" * size)
    run("tag", "/file/b", "t")
    run("deactivate", "/file/c")
    assert paths(run) == ["/file/b", "/file/c", "/file/a"]
    assert paths(run, "--sort", "name") == ["/file/a", "/file/b", "/file/c"]
    assert paths(run, "--sort", "size:desc") == ["/file/b", "/file/a", "/file/c"]
    assert paths(run, "--property", "p=1") == ["/file/c"]
    assert paths(run, "--tag", "t") == ["/file/b"]
    assert paths(run, "--status", "deactivated") == ["/file/c"]
    assert paths(run, "/file/a") == ["/file/a"]
    assert paths(run, "/other") == []
    run("list", "/nonsense", code=4)


def test_list_is_recursive_and_shows_the_trash_only_when_asked(run: Run, vfs: Vfs) -> None:
    """Folders are descended into; deleted images are listed apart."""
    vfs.make_folder(vfs.place("/file/folder"), ADMIN)
    run("add", "-", "--name", "folder/a", stdin=DATA)
    run("add", "-", "--name", "b", "--store", "other", stdin=DATA)
    assert paths(run) == ["/file/folder/a", "/other/b"]
    run("delete", "/other/b")
    assert paths(run) == ["/file/folder/a"]
    assert paths(run, "--deleted") == ["/other/.trash/b"]
    assert paths(run, "/file", "--deleted") == []


def test_tables_for_people(run: Run, image: str) -> None:
    """Bytes in the short table, human sizes in the long one."""
    short = run("list").stdout.splitlines()
    assert short[0].split() == ["STATUS", "FORMAT", "SIZE", "PATH"]
    assert short[1].split() == ["active", "raw", str(len(DATA)), "/file/a"]
    assert "1.0 MiB" in run("list", "--long").stdout


def test_json_keys_are_the_fields(run: Run, image: str) -> None:
    """Programs find every field under its name, with its own type."""
    found = shown(run, image)
    assert set(found) == set(FIELDS) | {"paths", "properties"}
    assert found["protected"] is False
    assert found["stores"] == ["file"]
    (listed,) = json.loads(run("list", "--json").stdout)
    assert set(listed) == set(FIELDS) - {"tags", "stores"} | {"path"}


def test_private_images_are_not_told(run: Run, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user neither lists nor shows them, nor cleans up."""
    run("set", image, "visibility=private")
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert paths(run) == []
    run("show", image, code=12)
    run("set", image, "p=1", code=12)
    run("delete", "--now", image, code=12)
    run("scrub", code=12)


def test_terminal_is_left_alone(run: Run, image: str) -> None:
    """Control characters in a property are escaped for people and kept for programs."""
    run("set", image, "p=\x1b[31mred\nline")
    assert "property.p        \\x1b[31mred\\nline" in run("show", image).stdout
    assert shown(run, image)["properties"]["p"] == "\x1b[31mred\nline"


# -- changing --------------------------------------------------------------------------


def test_set_and_unset(run: Run, image: str) -> None:
    """Fields and properties, all or none."""
    run("set", image, "property.size=large", code=2)  # a field's name
    run("set", image, "min_ram=512", "hw_disk_bus=virtio", "property.extent=large")
    found = shown(run, image)
    assert found["min_ram"] == 512
    assert found["properties"] == {"hw_disk_bus": "virtio", "extent": "large"}
    run("set", image, "min_ram=1", "visibility=nonsense", code=2)
    run("set", image, "min_ram=1", "size=1", code=12)
    assert shown(run, image)["min_ram"] == 512
    run("unset", image, "hw_disk_bus", "missing", code=4)
    run("unset", image, "min_ram", code=2)
    run("unset", image, "hw_disk_bus", "property.extent")
    assert shown(run, image)["properties"] == {}


def test_tags(run: Run, image: str) -> None:
    """Added to those that are there, and removed one by one."""
    run("tag", image, "b", "a")
    run("tag", image, "c")
    assert shown(run, image)["tags"] == ["a", "b", "c"]
    run("tag", image, "--remove", "b", "x", code=4)
    run("tag", image, "--remove", "b")
    assert shown(run, image)["tags"] == ["a", "c"]


def test_deactivated_and_back(run: Run, image: str, vfs: Vfs) -> None:
    """The status follows; an image without data can be neither."""
    run("deactivate", image)
    assert shown(run, image)["status"] == "deactivated"
    run("reactivate", image)
    assert shown(run, image)["status"] == "active"
    vfs.create(vfs.place("/file/queued"), ADMIN)
    assert "queued" in run("deactivate", "/file/queued", code=1).stderr


def test_the_trash_tells_when_by_whom_and_until_when(run: Run, image: str) -> None:
    """And each image's id, as several may have had one name."""
    run("delete", image)
    row = run("list", "--deleted").stdout.splitlines()[1]
    assert row.startswith(image)
    assert row.endswith("/file/.trash/a")
    assert " root " in row
    (found,) = json.loads(run("list", "--deleted", "--json").stdout)
    deleted, until = (
        datetime.fromisoformat(found[name]) for name in ("deleted_at", "deleted_until")
    )
    assert until - deleted == timedelta(seconds=3600)
    assert found["deleted_by"] == "root"


def test_deleted_and_restored(run: Run, image: str, vfs: Vfs) -> None:
    """It comes back where it was with what it had; a taken name asks for another."""
    run("set", image, "p=1")
    run("delete", "/file/a")
    assert paths(run, "--deleted") == ["/file/.trash/a"]
    run("delete", image, code=1)
    run("add", "-", "--name", "a", stdin=DATA)
    run("restore", image, code=1)
    assert run("restore", image, "--to", "/file/b").stdout == f"{image}  /file/b\n"
    assert shown(run, "/file/b")["properties"] == {"p": "1"}
    run("restore", image, code=4)


def test_restored_into_its_folder_or_the_store(run: Run, vfs: Vfs) -> None:
    """When the folder is gone the image returns to its store."""
    vfs.make_folder(vfs.place("/file/folder"), ADMIN)
    run("add", "-", "--name", "folder/a", stdin=DATA)
    run("delete", "file/folder/a")
    assert json.loads(run("restore", "file/.trash/a", "--json").stdout)["path"] == "/file/folder/a"
    run("delete", "file/folder/a")
    vfs.remove_folder(vfs.place("/file/folder"), ADMIN)
    run("restore", "file/.trash/a")
    assert paths(run) == ["/file/a"]


def test_delete_now(run: Run, image: str, vfs: Vfs) -> None:
    """The data is gone at once, from the tree or from the trash."""
    with vfs.catalog.read() as repository:
        inside = stored(vfs.catalog, repository.image_by_id(image), "file")
    run("delete", "--now", image)
    assert not inside.exists()
    run("show", image, code=4)
    run("add", "-", "--name", "b", stdin=DATA)
    run("delete", "file/b")
    run("delete", "--now", "file/.trash/b")
    assert paths(run, "--deleted") == []


def test_protected_image_keeps_every_copy(run: Run, image: str) -> None:
    """A deletion that must fail does not begin with the other copies."""
    run("replicate", image, "other")
    run("set", image, "protected=true")
    assert "protected=false" in run("delete", image, code=12).stderr
    assert paths(run) == ["/file/a", "/other/a"]


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


# -- checking --------------------------------------------------------------------------


def test_verify_names_bad_chunks(run: Run, image: str, vfs: Vfs) -> None:
    """One bad image of two is code 3, with the offset; only bad ones is code 1."""
    run("add", "-", "--name", "b", stdin=DATA)
    assert run("verify").stdout.count("intact") == 2
    _damage(vfs, image)
    assert "offset 0" in run("verify", code=3).stdout
    (found,) = json.loads(run("verify", "--json", image, code=1).stdout)
    assert (found["id"], found["store"], found["verdict"]) == (image, "file", "damaged")
    assert found["bad_chunks"] == [{"offset": 0, "size": min(CHUNK_SIZE, len(DATA))}]
    run("verify", "/file/missing", code=4)


def test_scrub(run: Run, image: str, config: Path, tmp_path: Path) -> None:
    """Only what has been in the trash for long enough goes, and --dry-run only tells."""
    run("delete", image)
    assert json.loads(run("scrub", "--json").stdout) == []
    configure(tmp_path, catalog="scrub_time = 0")
    assert run("scrub", "--dry-run").stdout == f"would delete  {image}  a\n"
    assert paths(run, "--deleted") == ["/file/.trash/a"]
    (found,) = json.loads(run("scrub", "--json").stdout)
    assert (found["id"], found["deleted"]) == (image, True)
    assert paths(run, "--deleted") == []


def test_fsck(run: Run, image: str, vfs: Vfs) -> None:
    """A clean catalog is silent; missing data is a finding."""
    assert run("fsck").stdout == ""
    with vfs.catalog.read() as repository:
        stored(vfs.catalog, repository.image_by_id(image), "file").unlink()
    found = json.loads(run("fsck", "--json", code=1).stdout)
    assert found
    assert set(found[0]) == {"kind", "subject", "detail", "repaired"}


def test_stores(run: Run, image: str, tmp_path: Path) -> None:
    """Each store with its images and room, and why one does not answer."""
    found = {store["name"]: store for store in json.loads(run("store", "list", "--json").stdout)}
    assert set(found) == {"file", "other", "web"}
    assert (found["file"]["images"], found["file"]["default"]) == (1, True)
    assert found["web"]["free"] is None
    (tmp_path / "other").rename(tmp_path / "gone")
    found = {store["name"]: store for store in json.loads(run("store", "list", "--json").stdout)}
    assert found["other"]["message"]
    assert "fail  store other" in run("doctor", code=1).stdout


def test_shown_configuration_can_be_read_back(bare: Run, config: Path, tmp_path: Path) -> None:
    """What `config show` prints is a configuration, and the same one."""
    text = bare("config", "show").stdout
    described = json.loads(bare("config", "show", "--json").stdout)
    config.write_text(text)
    assert json.loads(bare("config", "show", "--json").stdout) == described
    assert bare("config", "check").stdout == f"{config}: ok\n"


def test_doctor_tells_what_is_missing(bare: Run) -> None:
    """Without a catalog it says so, and goes on with the rest."""
    result = bare("doctor", code=1)
    assert "run 'imagefs init'" in result.stdout
    assert "/dev/fuse" in result.stdout


def test_mounts_are_found_in_mountinfo() -> None:
    """Of the type fuse.imagefs only, with blanks in their path (proc(5))."""
    text = (
        "1 2 0:3 / / rw - ext4 /dev/vda rw\n"
        "4 1 0:5 / /mnt/my\\040images rw,nosuid shared:7 - fuse.imagefs imagefs rw\n"
        "6 1 0:7 / /mnt/other rw - fuse.other fuse.imagefs rw\n"
    )
    assert [each.path for each in mounts.parse(text)] == ["/mnt/my images"]


def _damage(vfs: Vfs, image: str) -> None:
    with vfs.catalog.read() as repository:
        found = repository.image_by_id(image)
    overwrite(stored(vfs.catalog, found, "file"), 7, b"damage")
