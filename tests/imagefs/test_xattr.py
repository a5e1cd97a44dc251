"""Extended attributes: an image's fields and properties (docs/semantics.md#attributes)."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from tests.kit.tools import as_nobody, attempt, field, run, settled, shell, status


@pytest.fixture
def image(folder: Path, data: bytes) -> Path:
    """An active image."""
    (folder / "image").write_bytes(data)
    return folder / "image"


def _error(path: Path, name: str, value: bytes | None) -> int:
    """The errno of setting, or with None of removing, an attribute; 0 when it succeeds."""
    try:
        if value is None:
            os.removexattr(path, name)
        else:
            os.setxattr(path, name, value)
    except OSError as error:
        return error.errno or -1
    return 0


def test_all_fields_are_there(image: Path) -> None:
    """Each by its name; listed is only what goes along when an image is copied."""
    always = "id status name size virtual_size disk_format owner stores visibility protected"
    for name in f"{always} os_hash_algo os_hash_value created_at updated_at".split():
        assert field(image, name)
    assert not field(image, "message")
    assert re.fullmatch(r"[0-9a-f-]{36}", field(image, "id"))
    assert os.listxattr(image) == []
    os.setxattr(image, "user.image.tags", b"stable")
    os.setxattr(image, "user.image.visibility", b"private")
    os.setxattr(image, "user.property.os_distro", b"debian")
    assert set(os.listxattr(image)) == {
        "user.image.tags",
        "user.image.visibility",
        "user.property.os_distro",
    }


@pytest.mark.parametrize("name", ["id", "size", "status", "owner", "visibility", "protected"])
def test_fields_that_cannot_be_removed(image: Path, name: str) -> None:
    """EPERM, and they stay."""
    before = field(image, name)
    assert _error(image, f"user.image.{name}", None) == errno.EPERM
    assert field(image, name) == before


def test_a_removed_field_has_its_default(image: Path) -> None:
    """What keeps nobody out."""
    for name, value, default in (("tags", "a,b", ""), ("min_ram", "5", "0")):
        os.setxattr(image, f"user.image.{name}", value.encode())
        os.removexattr(image, f"user.image.{name}")
        assert field(image, name) == default


def test_folders_have_none(folder: Path) -> None:
    """And take none."""
    assert os.listxattr(folder) == []
    assert _error(folder, "user.property.a", b"1") in (errno.EACCES, errno.EPERM)


def test_properties(image: Path) -> None:
    """Set, read with getfattr, change, remove."""
    run("setfattr", "-n", "user.property.os_distro", "-v", "debian", image)
    assert 'user.property.os_distro="debian"' in run("getfattr", "-d", image)
    run("setfattr", "-n", "user.property.os_distro", "-v", "été ☀", image)
    assert os.getxattr(image, "user.property.os_distro").decode() == "été ☀"
    run("setfattr", "-x", "user.property.os_distro", image)
    assert _error(image, "user.property.os_distro", None) == errno.ENODATA


def test_properties_of_an_upload(folder: Path) -> None:
    """They can be set before there is data, and stay."""
    shell(': > "$1"', folder / "a")
    os.setxattr(folder / "a", "user.property.os_distro", b"debian")
    os.setxattr(folder / "a", "user.image.tags", b"one,two")
    shell('echo data > "$1"', folder / "a")
    assert os.getxattr(folder / "a", "user.property.os_distro") == b"debian"
    assert set(field(folder / "a", "tags").split(",")) == {"one", "two"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("visibility", b"nobody"),
        ("protected", b"maybe"),
        ("min_disk", b"-1"),
        ("status", b"queued"),
        ("status", b"pending_delete"),
        ("owner", b""),
        ("tags", b"\xff"),
    ],
)
def test_values_that_mean_nothing(image: Path, name: str, value: bytes) -> None:
    """EINVAL, and the field stays."""
    before = field(image, name)
    assert _error(image, f"user.image.{name}", value) == errno.EINVAL
    assert field(image, name) == before


@pytest.mark.parametrize(
    "name", ["id", "size", "os_hash_value", "created_at", "disk_format", "stores", "message"]
)
def test_read_only_fields(image: Path, folder: Path, name: str) -> None:
    """EPERM, unless it is the value it has; before there is data it is ignored."""
    assert _error(image, f"user.image.{name}", b"7" * 64) == errno.EPERM
    if field(image, name):
        assert _error(image, f"user.image.{name}", field(image, name).encode()) == 0
    if name not in ("size", "os_hash_value", "disk_format"):
        (folder / "queued").touch()
        assert _error(folder / "queued", f"user.image.{name}", b"ignored") == 0
        assert field(folder / "queued", name) != "ignored"


@pytest.mark.parametrize("size", [b"9" * 20, b"9" * 5000, b"-1", b"1.5", b""])
def test_sizes_that_no_image_has(folder: Path, size: bytes) -> None:
    """EINVAL, like any value that means nothing."""
    (folder / "queued").touch()
    assert _error(folder / "queued", "user.image.size", size) == errno.EINVAL


def test_unknown_names(image: Path) -> None:
    """A field that is none, another prefix, another namespace, an ACL."""
    assert _error(image, "user.image.colour", b"red") == errno.EINVAL
    assert _error(image, "user.colour", b"red") == errno.EOPNOTSUPP
    # A field's name, or nearly one, is no property's: it would change nothing.
    assert _error(image, "user.property.visibility", b"private") == errno.EINVAL
    assert _error(image, "user.property.visiblity", b"private") == errno.EINVAL
    assert _error(image, "trusted.colour", b"red") == errno.EOPNOTSUPP
    # It would have another name afterwards.
    assert _error(image, os.fsdecode(b"user.property.\xff"), b"red") == errno.EINVAL
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
        os.getxattr(image, "user.colour")
    assert caught.value.errno == errno.ENODATA


def test_acls_are_not_offered(image: Path) -> None:
    """cp -a and ls ask for them."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
        os.getxattr(image, "system.posix_acl_access")
    assert caught.value.errno == errno.EOPNOTSUPP
    assert run("ls", "-l", image).split()[0] == "-r--r--r--"


def test_setxattr_flags(image: Path) -> None:
    """XATTR_CREATE and XATTR_REPLACE."""
    name = "user.property.flag"
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
        os.setxattr(image, name, b"1", os.XATTR_REPLACE)
    assert caught.value.errno == errno.ENODATA
    os.setxattr(image, name, b"1", os.XATTR_CREATE)
    with pytest.raises(FileExistsError):
        os.setxattr(image, name, b"2", os.XATTR_CREATE)
    assert os.getxattr(image, name) == b"1"


def test_limits(image: Path) -> None:
    """128 properties; a value as long as the kernel takes."""
    for number in range(128):
        os.setxattr(image, f"user.property.p{number}", b"x" * 100)
    assert _error(image, "user.property.one-more", b"x") == errno.EDQUOT
    assert len([n for n in os.listxattr(image) if n.startswith("user.property.")]) == 128
    os.setxattr(image, "user.property.p0", b"y" * 65535)
    assert os.getxattr(image, "user.property.p0") == b"y" * 65535


def test_deactivate_and_reactivate(image: Path, data: bytes) -> None:
    """The status field switches an image off and on."""
    os.setxattr(image, "user.image.status", b"deactivated")
    assert status(image) == "deactivated"
    assert attempt("cat", image).stdout == data  # root is an administrator
    os.setxattr(image, "user.image.status", b"active")
    assert settled(image) == "active"


def test_only_owners_change_attributes(image: Path) -> None:
    """Another user reads them and cannot set them."""
    result = as_nobody("setfattr", "-n", "user.property.a", "-v", "1", image.name, cwd=image.parent)
    assert result.returncode != 0
    read = as_nobody(
        "getfattr", "--only-values", "-n", "user.image.status", image.name, cwd=image.parent
    )
    assert read.stdout == b"active"
