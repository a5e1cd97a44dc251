"""Settings: which file is read, and what is refused in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from catalog.errors import InvalidSettings
from catalog.service import configuration
from catalog.service.configuration import describe, load
from catalog.settings import DEFAULTS, Settings, state_folder
from catalog.stores.folder.store import FilesystemStoreSettings
from imagefs.settings import MountSettings

VALID = '[stores.file]\ntype = "filesystem"\npath = "/srv/images"\n'


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without any configuration, on a host without one."""
    monkeypatch.setattr(configuration, "SYSTEM_FILE", tmp_path / "etc/imagefs.toml")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("IMAGEFS_CONFIG", "IMAGEFS_STATE", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


def write(path: Path, text: str = VALID) -> Path:
    """Write a configuration, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str) -> str:
    """The one line said of this configuration, without the file's name."""
    path = write(tmp_path / "refused.toml", text)
    with pytest.raises(InvalidSettings) as caught:
        _all_sections = load(path).sections
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")


def test_defaults_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file, root's catalog and images are in /var/lib/imagefs."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = load()
    assert found.source == DEFAULTS
    assert found.catalog.url == "sqlite:////var/lib/imagefs/catalog.db"
    assert found.catalog.staging == Path("/var/lib/imagefs/staging")
    assert found.stores == {"file": FilesystemStoreSettings(path=Path("/var/lib/imagefs/images"))}
    assert found.section("mount") == MountSettings()


def test_defaults_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file, a user's are in the XDG state folder; a relative one is ignored."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert state_folder() == tmp_path / ".local/state/imagefs"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state_folder() == tmp_path / ".local/state/imagefs"
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert load().catalog.url == "sqlite:////state/imagefs/catalog.db"


def test_state_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$IMAGEFS_STATE moves everything the defaults keep, and is made absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMAGEFS_STATE", "here")
    found = load()
    assert found.catalog.url == f"sqlite:///{tmp_path}/here/catalog.db"
    assert found.stores["file"] == FilesystemStoreSettings(path=tmp_path / "here/images")


def test_first_file_found_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's folder, then /etc, then $IMAGEFS_CONFIG, then --config: each beats the former."""
    user = write(tmp_path / ".config/imagefs/imagefs.toml")
    assert load().source == str(user)
    moved = write(tmp_path / "xdg/imagefs/imagefs.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert load().source == str(moved)
    system = write(tmp_path / "etc/imagefs.toml")
    assert load().source == str(system)
    named = write(tmp_path / "named.toml")
    monkeypatch.setenv("IMAGEFS_CONFIG", str(named))
    assert load().source == str(named)
    argument = write(tmp_path / "argument.toml")
    assert load(argument).source == str(argument)


def test_a_named_file_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was asked for is never passed over in silence."""
    write(tmp_path / "etc/imagefs.toml")
    missing = tmp_path / "missing.toml"
    with pytest.raises(InvalidSettings, match=r"missing\.toml: there is no such file"):
        load(missing)
    monkeypatch.setenv("IMAGEFS_CONFIG", str(missing))
    with pytest.raises(InvalidSettings, match=r"missing\.toml: there is no such file"):
        load()


def test_empty_file_is_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/null as the configuration keeps any other file out."""
    monkeypatch.setenv("IMAGEFS_CONFIG", "/dev/null")
    found = load()
    assert found.source == "/dev/null"
    assert found.catalog.default_store in found.stores


def test_unreadable_files(tmp_path: Path) -> None:
    """A folder, text in another encoding and broken TOML are each one line."""
    with pytest.raises(InvalidSettings, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(InvalidSettings, match="is not UTF-8 text"):
        load(tmp_path / "latin.toml")
    assert refusal(tmp_path, "[catalog\n").startswith("is not valid TOML: ")


def test_everything_set(tmp_path: Path) -> None:
    """Every section of a full file arrives."""
    text = """
    [catalog]
    url = "postgresql+psycopg://imagefs@db/imagefs"
    default_store = "fast-1"
    os_hash_algo = "sha512"
    checksum = true
    scrub_time = 0
    history_time = 3600
    max_image_size = 10
    staging = "/srv/staging"
    staging_limit = 20
    [stores.fast-1]
    type = "memory"
    capacity = 30
    [stores.web]
    type = "http"
    allow_hosts = ["mirror.example.net"]
    [mount]
    allow_other = false
    drain_timeout = 5
    """
    found = load(write(tmp_path / "full.toml", text))
    assert found.catalog.model_dump() == {
        "url": "postgresql+psycopg://imagefs@db/imagefs",
        "default_store": "fast-1",
        "os_hash_algo": "sha512",
        "checksum": True,
        "scrub_time": 0,
        "history_time": 3600,
        "max_image_size": 10,
        "staging": Path("/srv/staging"),
        "staging_limit": 20,
    }
    assert list(found.stores) == ["fast-1", "web"]
    assert found.section("mount") == MountSettings(allow_other=False, drain_timeout=5)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[catalogue]",
            "catalogue: unknown section; allowed: cache, catalog, dav, log, mount, stores",
        ),
        (
            '[stores.file]\ntype = "filesystem"\npath = "/i"\nsize = 1',
            "stores.file.size: unknown key; allowed: io_timeout, path, policy, replicas, type",
        ),
        ("[mount]\nallow = true", "mount.allow: unknown key; allowed: allow_other, drain_timeout"),
        ("catalog = 1", "catalog: should be a section"),
        ("stores = 1", "stores: should be sections [stores.NAME]"),
        ("[stores]\nfile = 1", "stores.file: should be a section"),
        ('[catalog]\nos_hash_algo = "md4"', "catalog.os_hash_algo: should be 'sha256', "),
        ('[catalog]\nchecksum = "yes"', "catalog.checksum: should be a valid boolean"),
        ('[catalog]\nscrub_time = "60"', "catalog.scrub_time: should be a valid integer"),
        ("[catalog]\nscrub_time = -1", "catalog.scrub_time: should be greater than or equal to 0"),
        ("[catalog]\nscrub_time = nan", "catalog.scrub_time: should be a valid integer"),
        ("[catalog]\nmax_image_size = 2020-01-01", "catalog.max_image_size: should be a valid int"),
        ('[catalog]\nstaging = "here"', "catalog.staging: should be an absolute path"),
        ('[catalog]\nurl = "catalog.db"', "catalog.url: should be a database URL"),
        ('[catalog]\nurl = "sqlite:///catalog.db"', "catalog.url: should be a database URL"),
        ('[catalog]\nurl = "sqlite://"', "catalog.url: should be a database URL"),
        (
            '[stores.s]\ntype = "floppy"',
            "stores.s.type: should be one of cinder, filesystem, http, memory",
        ),
        (
            "[stores.s]\ntype = []",
            "stores.s.type: should be one of cinder, filesystem, http, memory",
        ),
        ("[stores.s]", "stores.s.type: should be one of cinder, filesystem, http, memory"),
        ('[stores.s]\ntype = "sheepdog"', "stores.s.type: Sheepdog is developed no more"),
        ('[stores.s]\ntype = "gridfs"', "stores.s.type: Glance has dropped MongoDB"),
        ('[stores.s]\ntype = "file"', "stores.s.type: Glance's 'file' is called 'filesystem' here"),
        ('[stores.s]\ntype = "filesystem"', "stores.s.path: is required"),
        ('[stores.s]\ntype = "filesystem"\npath = "i"', "stores.s.path: "),
        (
            '[stores.w]\ntype = "http"\nallow_hosts = ["a", 7]',
            "stores.w.allow_hosts.1: should be a valid string",
        ),
        ('[stores.w]\ntype = "http"\nallow_hosts = ["a/b/c"]', "stores.w.allow_hosts: "),
        (
            '[catalog]\ndefault_store = "tape"\n' + VALID,
            "catalog.default_store: should be one of file",
        ),
        (
            '[catalog]\ndefault_store = "web"\n[stores.web]\ntype = "http"\n' + VALID,
            "catalog.default_store: should be one of file",
        ),
        ("[stores]", "catalog.default_store: no store takes data"),
        ("[mount]\nallow_other = 1\ndrain_timeout = -1", "mount.allow_other: should be a valid bo"),
    ],
)
def test_refusals(tmp_path: Path, text: str, line: str) -> None:
    """Each mistake is one line with the file, the key and what is allowed."""
    assert refusal(tmp_path, text).startswith(line)


@pytest.mark.parametrize("name", ["", ".trash", "-s", "a b", "a/b", "é", "a.b"])
def test_names_no_store_can_have(tmp_path: Path, name: str) -> None:
    """A store's name is a folder of the tree that needs no quoting anywhere."""
    line = refusal(tmp_path, f'[stores."{name}"]\ntype = "memory"')
    assert line.startswith(f"stores.{name}: a store's name is ")


def test_several_mistakes_are_counted(tmp_path: Path) -> None:
    """One line names the first mistake of a section and counts the others."""
    line = refusal(tmp_path, "[mount]\nallow_other = 1\ndrain_timeout = -1")
    assert line.endswith(" (and 1 more)")


def test_refusal_keeps_values_to_itself(tmp_path: Path) -> None:
    """A refused value may be a password, and is not shown."""
    assert "hunter2" not in refusal(tmp_path, '[catalog]\nurl = "sqlite://me:hunter2@db/x"')


def test_settings_cannot_be_changed() -> None:
    """Nothing changes settings after they were loaded."""
    found = load()
    with pytest.raises(TypeError):
        found.stores["other"] = MountSettings()  # type: ignore[index]
    with pytest.raises(ValueError, match="frozen"):
        found.catalog.checksum = True


def test_describe_has_everything_but_passwords(tmp_path: Path) -> None:
    """The description is plain values: the type of each store, and no password."""
    text = f'[catalog]\nurl = "postgresql://me:hunt@er2@db/x"\n{VALID}'
    found: Settings = load(write(tmp_path / "full.toml", text))
    described = describe(found)
    assert described["source"] == found.source
    assert described["catalog"]["url"] == "postgresql://me:***@db/x"
    assert described["stores"]["file"] == {
        "type": "filesystem",
        "path": "/srv/images",
        "io_timeout": None,
        "policy": None,
    }
    assert described["mount"] == {"allow_other": None, "drain_timeout": 60, "metrics": None}
