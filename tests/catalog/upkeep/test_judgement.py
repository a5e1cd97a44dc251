"""Images that an earlier format gate accepted: they are judged again, once, and told of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from catalog.catalog import Catalog
from catalog.cli.program import imagefs as program
from catalog.errors import Deactivated, Forbidden
from catalog.formats import gate
from catalog.model.access import ADMIN
from catalog.model.image import Image
from catalog.model.status import Status
from catalog.service.configuration import load
from catalog.tree.vfs import Vfs
from catalog.upkeep.findings import FindingKind
from catalog.upkeep.fsck import fsck
from catalog.upkeep.repair import verify_and_repair
from catalog.upkeep.verify import Verdict, verify
from tests.catalog.repository.older import take_back
from tests.kit.catalog import (
    ALICE,
    BOB,
    entry,
    image_at,
    link,
    new_catalog,
    put,
    put_by_older,
    read,
    remove,
    rename,
    set_fields,
)
from tests.kit.configuration import configure
from tests.kit.images.samples import SIZE, child_vmdk, container, disk, short_overlay

UNSAFE, BAD, WRONG = (
    FindingKind.UNSAFE_CONTENT,
    FindingKind.BAD_CONTENT,
    FindingKind.WRONG_FORMAT,
)


def whole(name: str) -> Callable[[Path], Path]:
    """One of CONTAINERS."""
    return lambda folder: container(folder, name)


def cut(name: str) -> Callable[[Path], Path]:
    """One of CONTAINERS without its last third."""

    def make(folder: Path) -> Path:
        path = container(folder, name)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
        return path

    return make


def _start(path: Path, length: int) -> Path:
    path.write_bytes(path.read_bytes()[:length])
    return path


def descriptor(folder: Path) -> Path:
    """A VMDK's descriptor whose data is in another file, and a boot signature to hide it."""
    path = folder / "descriptor"
    text = b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 8 FLAT "x" 0\n'
    path.write_bytes(text.ljust(510, b"\0") + b"\x55\xaa" + bytes(8192))
    return path


@dataclass(frozen=True, slots=True)
class Case:
    """What an earlier version has accepted."""

    make: Callable[[Path], Path]
    recorded: str
    kind: FindingKind
    told: str
    size: int | None = None
    """Of the disk, as recorded; None for that of the file."""


CASES = {
    "an overlay shorter than a sector": Case(short_overlay, "raw", UNSAFE, "has a backing file"),
    "a VMDK with a parent": Case(child_vmdk, "vmdk", UNSAFE, "has a parent", SIZE),
    "a VMDK descriptor": Case(descriptor, "raw", UNSAFE, "several formats at once"),
    "a qcow2 as raw": Case(whole("qcow2"), "raw", WRONG, f"it is qcow2 of {SIZE} bytes"),
    "a raw disk as qcow2": Case(disk, "qcow2", WRONG, f"it is raw of {SIZE} bytes", SIZE),
    "a VHD of another size": Case(whole("dynamic.vhd"), "vhd", WRONG, f"of {SIZE} bytes", 512),
    "a qcow2 that was cut": Case(cut("qcow2"), "qcow2", BAD, "cut off", SIZE),
    "a qcow2 cut in its header": Case(
        lambda folder: _start(container(folder, "qcow2"), 90), "raw", BAD, "cut off"
    ),
    "an overlay cut in its header": Case(
        lambda folder: _start(short_overlay(folder), 90), "raw", UNSAFE, "cut off"
    ),
    "a VHDX that was cut": Case(cut("vhdx"), "vhdx", BAD, "cut off", SIZE),
}


def of_older(vfs: Vfs, folder: Path, case: Case, path: str = "/file/a") -> Image:
    """The image of a case in the catalog."""
    return put_by_older(vfs, path, case.make(folder).read_bytes(), case.recorded, case.size)


def kinds(catalog: Catalog, *, repair: bool = False) -> list[FindingKind]:
    """What fsck finds."""
    return [finding.kind for finding in fsck(catalog, repair=repair)]


@pytest.mark.parametrize("name", CASES)
def test_what_an_earlier_gate_accepted_is_told(vfs: Vfs, tmp_path: Path, name: str) -> None:
    """By fsck and verify: the image, what is recorded, what the bytes are; nothing changes."""
    case = CASES[name]
    image = of_older(vfs, tmp_path, case)
    for _ in range(2):
        (found,) = fsck(vfs.catalog, repair=False)
        assert (found.kind, found.subject) == (case.kind, f"file/{image.id}")
        assert f"a, recorded as {case.recorded}" in found.detail
        assert case.told in found.detail
        (verified,) = verify(vfs.catalog, image, ADMIN)
        assert (verified.verdict, verified.is_bad) == (Verdict.REFUSED, True)
        assert verified.detail == found.detail
    assert list(verify_and_repair(vfs.catalog, image, ADMIN)) == [verified]
    assert image_at(vfs, "/file/a") == image
    assert len(read(vfs, "/file/a", BOB)) == image.size


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].kind is UNSAFE])
def test_what_makes_qemu_open_another_file_is_deactivated(
    vfs: Vfs, tmp_path: Path, name: str
) -> None:
    """By `fsck --repair`: who has it open goes on, and only an administrator takes it back."""
    image = of_older(vfs, tmp_path, CASES[name])
    reader = vfs.open(image.number, BOB)
    (found,) = fsck(vfs.catalog, repair=True)
    assert f"deactivated ('imagefs reactivate {image.id}'" in found.repaired
    assert len(reader.read_at(0, 1 << 30)) == image.size
    reader.close()
    after = image_at(vfs, "/file/a")
    assert (after.status, CASES[name].told in after.message) == (Status.DEACTIVATED, True)
    with pytest.raises(Deactivated):
        vfs.open(image.number, ALICE)
    with pytest.raises(Forbidden, match="only an administrator reactivates"):
        set_fields(vfs, "/file/a", ALICE, status="active")
    assert kinds(vfs.catalog) == []
    set_fields(vfs, "/file/a", ADMIN, status="active")
    assert kinds(vfs.catalog) == [UNSAFE]


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].kind is WRONG])
def test_a_wrong_format_is_put_right(vfs: Vfs, tmp_path: Path, name: str) -> None:
    """By `fsck --repair`; the image stays active, and is found no more."""
    before = of_older(vfs, tmp_path, CASES[name])
    assert kinds(vfs.catalog, repair=True) == [WRONG]
    image = image_at(vfs, "/file/a")
    assert (image.status, image.virtual_size) == (Status.ACTIVE, SIZE)
    assert image.disk_format != before.disk_format or image.virtual_size != before.virtual_size
    assert kinds(vfs.catalog) == []
    assert [one.verdict for one in verify(vfs.catalog, image, ADMIN)] == [Verdict.INTACT]


def test_what_is_of_no_use_and_no_harm_is_noted(vfs: Vfs, tmp_path: Path) -> None:
    """A guest may do with what is left of it: it stays readable, and says what it is."""
    of_older(vfs, tmp_path, CASES["a qcow2 that was cut"])
    (found,) = fsck(vfs.catalog, repair=True)
    assert found.repaired
    image = image_at(vfs, "/file/a")
    assert (image.status, "cut off" in image.message) == (Status.ACTIVE, True)
    assert read(vfs, "/file/a", BOB)
    assert kinds(vfs.catalog) == [BAD]


def test_what_the_gate_accepts_it_is_asked_about_once(
    vfs: Vfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good image of an earlier version is as before, and costs the next fsck nothing."""
    data = container(tmp_path, "qcow2").read_bytes()
    put_by_older(vfs, "/file/a", data, "qcow2", SIZE)
    link(vfs, "/file/a", "/other/a")
    put(vfs, "/file/b")
    before = image_at(vfs, "/file/a")
    with vfs.catalog.read() as repository:
        last = repository.last_change()
    assert kinds(vfs.catalog) == []
    after = image_at(vfs, "/file/a")
    assert (after.is_accepted, after.updated_at) == (True, before.updated_at)
    with vfs.catalog.read() as repository:
        assert repository.last_change() == last
    monkeypatch.setattr(gate, "judge", None)
    assert kinds(vfs.catalog) == []
    assert [one.verdict for one in verify(vfs.catalog, after, ADMIN)] == [Verdict.INTACT] * 2


def test_each_copy_is_told_and_the_image_deactivated_once(vfs: Vfs, tmp_path: Path) -> None:
    """The verdict on one copy is that on the image."""
    of_older(vfs, tmp_path, CASES["an overlay shorter than a sector"])
    link(vfs, "/file/a", "/other/a")
    assert kinds(vfs.catalog) == [UNSAFE, UNSAFE]
    assert kinds(vfs.catalog, repair=True) == [UNSAFE]


def test_what_lies_in_a_remote_store_is_judged_by_some_of_its_tables(
    vfs: Vfs, tmp_path: Path
) -> None:
    """As of a link."""
    put_by_older(vfs, "/memory/good", container(tmp_path, "qcow2").read_bytes(), "qcow2", SIZE)
    bad = of_older(vfs, tmp_path, CASES["an overlay shorter than a sector"], "/memory/bad")
    (found,) = fsck(vfs.catalog, repair=True)
    assert (found.kind, found.subject) == (UNSAFE, f"memory/{bad.id}")
    assert image_at(vfs, "/memory/good").is_accepted
    with pytest.raises(Deactivated):
        read(vfs, "/memory/bad", ALICE)


def test_in_the_trash_it_is_deactivated_as_well(vfs: Vfs, tmp_path: Path) -> None:
    """There it is read by whoever could before; a restore brings it back deactivated."""
    image = of_older(vfs, tmp_path, CASES["a VMDK with a parent"])
    remove(vfs, "/file/a")
    assert kinds(vfs.catalog, repair=True) == [UNSAFE]
    with pytest.raises(Deactivated):
        vfs.open(image.number, ALICE)
    rename(vfs, "/file/.trash/a", "/file/a")
    assert image_at(vfs, "/file/a").status is Status.DEACTIVATED


def test_a_copy_of_it_is_judged_as_well(vfs: Vfs, tmp_path: Path) -> None:
    """A new image of the same bytes has been accepted by nobody else."""
    of_older(vfs, tmp_path, CASES["an overlay shorter than a sector"])
    vfs.copy(entry(vfs, "/file/a"), vfs.place("/file/b"), ALICE, replace=False)
    assert kinds(vfs.catalog, repair=True) == [UNSAFE, UNSAFE]
    assert image_at(vfs, "/file/b").status is Status.DEACTIVATED


def test_what_its_owner_deactivated_is_active_again_once_it_is_accepted(vfs: Vfs) -> None:
    """An old image that the gate has not been asked about waits for fsck."""
    put_by_older(vfs, "/file/a", b"a raw disk")
    set_fields(vfs, "/file/a", status="deactivated")
    with pytest.raises(Forbidden, match="imagefs fsck"):
        set_fields(vfs, "/file/a", status="active")
    assert kinds(vfs.catalog) == []
    set_fields(vfs, "/file/a", status="active")


def test_after_an_upgrade_doctor_names_fsck(tmp_path: Path) -> None:
    """The older schema knows no gate: what is there counts as judged by none."""
    config = configure(tmp_path)
    vfs = Vfs(new_catalog(load(config)))
    put(vfs, "/file/good")
    of_older(vfs, tmp_path, CASES["an overlay shorter than a sector"], "/file/evil")
    vfs.close()
    take_back(load(config).catalog.url, "0007")

    def run(*arguments: str, code: int) -> str:
        result = CliRunner().invoke(program, ["--config", str(config), *arguments])
        assert result.exit_code == code, result.output
        return result.stdout

    def outcome() -> tuple[str, str]:
        # doctor's exit code depends on the host's other mounts as well.
        result = CliRunner().invoke(program, ["--config", str(config), "doctor", "--json"])
        checks = {check["subject"]: check for check in json.loads(result.stdout)}
        return checks["format gate"]["level"], checks["format gate"]["detail"]

    assert outcome() == (
        "warn",
        "2 active images were accepted by an earlier version alone: imagefs fsck",
    )
    assert "refused" in run("verify", "/file/evil", code=1)
    assert run("fsck", code=1).startswith("unsafe-content  file/")
    assert outcome()[1].startswith("1 active images")
    run("fsck", "--repair", code=0)
    assert outcome()[0] == "ok"
    assert "backing file" in run("show", "/file/evil", code=0)
