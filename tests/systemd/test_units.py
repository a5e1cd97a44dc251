"""What lies in systemd/: units, the example configuration and mount.imagefs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel

from catalog.service.configuration import load
from catalog.settings import CacheSettings, CatalogSettings, LogSettings
from catalog.stores.folder.store import FilesystemStoreSettings
from catalog.stores.http.settings import HttpStoreSettings
from imagefs.settings import MountSettings

FOLDER = Path(__file__).parents[2] / "systemd"
EXAMPLE = FOLDER / "imagefs.toml"
HELPER = FOLDER / "mount.imagefs"

RECORDER = """#!/bin/sh
printf '%s\\n' "$@" > "$RECORD"
exit "${RECORDED_STATUS:-0}"
"""


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command, with some variables added to the environment."""
    env = {**os.environ, **environ}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def test_units_verify(tmp_path: Path) -> None:
    """Systemd finds nothing to say about the units, apart from where imagefs is installed."""
    installed = Path(sys.executable).with_name("imagefs")
    names = []
    for unit in sorted([*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")]):
        text = unit.read_text().replace("/usr/bin/imagefs", str(installed))
        # A template is verified as one of its instances.
        name = unit.name.replace("@.", "@srv-vm\\x20images.")
        (tmp_path / name).write_text(text)
        names.append(str(tmp_path / name))
    assert len(names) == 8
    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=one", *names)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "tenths"),
    [("dav", 30), ("mount@", 50), ("scrub", 50), ("verify", 50), ("backup", 50)],
)
def test_units_are_confined(name: str, tenths: int) -> None:
    """The exposure that systemd computes, of at most 10; the server's is the least."""
    unit = FOLDER / f"imagefs-{name}.service"
    done = run("systemd-analyze", "security", "--offline=true", f"--threshold={tenths}", unit)
    assert done.returncode == 0, done.stdout[-300:]


def test_mount_stays_visible_to_the_host() -> None:
    """The mount's unit has no setting that implies a mount namespace (systemd.exec(5))."""
    text = (FOLDER / "imagefs-mount@.service").read_text()
    found = re.findall(r"^(Private\w+|Protect\w+|\w+Paths|RootDirectory|BindPaths)=", text, re.M)
    assert found == []


GUESTS = "libvirtd virtqemud virtstoraged libvirt-guests nova-compute pve-guests".split()
GENERATOR = Path("/lib/systemd/system-generators/systemd-fstab-generator")


def test_guests_start_after_the_mount() -> None:
    """The unit is before everything that starts guests or opens their disks."""
    text = (FOLDER / "imagefs-mount@.service").read_text()
    (before,) = re.findall(r"^Before=(.*)$", text, re.M)
    assert set(before.split()) == {f"{name}.service" for name in GUESTS}


def test_guests_start_after_the_mount_of_fstab(tmp_path: Path) -> None:
    """So is the mount that systemd makes of README's line; `nofail` alone orders nothing."""
    (line,) = re.findall(
        r"^ +(none .* imagefs .*)$", (FOLDER.parent / "README.md").read_text(), re.M
    )
    (tmp_path / "fstab").write_text(f"{line}\n")
    units = tmp_path / "units"
    units.mkdir()
    environment = os.environ | {"SYSTEMD_FSTAB": str(tmp_path / "fstab")}
    folders = [str(units)] * 3
    subprocess.run([GENERATOR, *folders], check=True, env=environment)
    text = (units / "srv-images.mount").read_text()
    before = {name for each in re.findall(r"^Before=(.*)$", text, re.M) for name in each.split()}
    assert {f"{name}.service" for name in GUESTS} <= before


def test_stop_leaves_time_to_drain() -> None:
    """Systemd does not kill the mount while it waits for uploads."""
    text = (FOLDER / "imagefs-mount@.service").read_text()
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)
    assert int(stop) > MountSettings().drain_timeout


def test_example_is_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example configuration changes nothing for root until it is edited."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("IMAGEFS_CONFIG", "IMAGEFS_STATE"):
        monkeypatch.delenv(name, raising=False)
    example = load(EXAMPLE)
    defaults = load(Path("/dev/null"))
    assert example.catalog == defaults.catalog
    assert example.stores == defaults.stores
    assert example.cache == defaults.cache
    assert example.log == defaults.log
    assert example.sections == defaults.sections


def test_example_shows_every_setting(tmp_path: Path) -> None:
    """With each option uncommented the example still loads, and no setting is missing."""
    path = tmp_path / "imagefs.toml"
    path.write_text(re.sub(r"^#(?=\[|\w+ = )", "", EXAMPLE.read_text(), flags=re.M))
    found = load(path)
    assert shown(found.catalog) == set(CatalogSettings.model_fields)
    # The policy, which only a folder on a server has, is shown with the other remote store.
    assert shown(found.stores["file"]) == set(FilesystemStoreSettings.model_fields) - {"policy"}
    assert shown(found.stores["web"]) == set(HttpStoreSettings.model_fields)
    assert shown(found.cache) == set(CacheSettings.model_fields)
    assert shown(found.log) == set(LogSettings.model_fields)
    assert shown(found.section("mount")) == set(MountSettings.model_fields)


def shown(section: BaseModel) -> set[str]:
    """The keys that stood in the file."""
    return section.model_fields_set


@pytest.fixture
def recorder(tmp_path: Path) -> Mapping[str, str]:
    """An environment in which `imagefs` records its arguments."""
    stand_in = tmp_path / "bin/imagefs"
    stand_in.parent.mkdir()
    stand_in.write_text(RECORDER)
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}:{os.environ['PATH']}"
    return {"PATH": path, "RECORD": str(tmp_path / "record")}


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["none", "/mnt"], ["mount", "--", "/mnt"]),
        (["none", "/mnt", "-o", "rw"], ["mount", "--", "/mnt"]),
        (
            ["none", "/mnt", "-n", "-v", "-s", "-o", "rw,ro,allow_other"],
            ["mount", "-o", "ro,allow_other", "--", "/mnt"],
        ),
        (
            ["none", "/a b", "-o", "defaults,noauto,_netdev,nofail,user=me,x-systemd.automount"],
            ["mount", "--", "/a b"],
        ),
        (["/etc/o.toml", "/mnt"], ["--config", "/etc/o.toml", "mount", "--", "/mnt"]),
        (
            ["none", "/mnt", "-o", "ro", "-o", "config=/my files/*.toml"],
            ["--config", "/my files/*.toml", "mount", "-o", "ro", "--", "/mnt"],
        ),
    ],
)
def test_mount_options_are_translated(
    recorder: Mapping[str, str], arguments: list[str], command: list[str]
) -> None:
    """What concerns imagefs reaches it; what is for mount(8), systemd and fsck does not."""
    assert run(HELPER, *arguments, **recorder).returncode == 0
    assert Path(recorder["RECORD"]).read_text().splitlines() == command


def test_mount_failure_has_the_status_of_mount(recorder: Mapping[str, str]) -> None:
    """A status of imagefs has another meaning to mount(8): every failure is 32."""
    assert run(HELPER, "none", "/mnt", RECORDED_STATUS="10", **recorder).returncode == 32


def test_fake_mount_does_nothing(recorder: Mapping[str, str]) -> None:
    """`mount -f` goes through the motions only."""
    assert run(HELPER, "none", "/mnt", "-f", **recorder).returncode == 0
    assert not Path(recorder["RECORD"]).exists()


@pytest.mark.parametrize("arguments", [[], ["none"], ["none", "/mnt", "-x"], ["none", "/mnt", "x"]])
def test_mount_usage(recorder: Mapping[str, str], arguments: list[str]) -> None:
    """Wrong usage is told apart from a failed mount, and mounts nothing."""
    done = run(HELPER, *arguments, **recorder)
    assert done.returncode == 1
    assert "usage: mount.imagefs" in done.stderr
    assert not Path(recorder["RECORD"]).exists()


@pytest.mark.parametrize("shell", [["sh", "-n"], ["shellcheck"]])
def test_mount_helper_is_clean_sh(shell: list[str]) -> None:
    """Every Debian's sh can run it."""
    done = run(*shell, HELPER)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
