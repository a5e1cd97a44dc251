"""What every frontend does alike, step by step."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable

import pytest

from tests.behaviour.trees import Refused, Tree


def _refused(step: Callable[..., object], *arguments: object) -> int:
    """The errno a step is refused with."""
    with pytest.raises(Refused) as caught:
        step(*arguments)
    return caught.value.errno


@pytest.fixture
def image(tree: Tree, name: str) -> str:
    """The path of an active image."""
    path = f"/file/{name}/image"
    tree.put(path, b"data")
    return path


def test_an_upload_becomes_an_active_image(tree: Tree, image: str) -> None:
    """With its digest, its size and its format."""
    assert tree.read(image) == b"data"
    assert tree.get(image, "image.status") == "active"
    assert tree.get(image, "image.os_hash_value") == hashlib.sha256(b"data").hexdigest()
    assert tree.get(image, "image.size") == "4"
    assert tree.get(image, "image.disk_format") == "raw"


def test_a_name_is_taken_once(tree: Tree, image: str) -> None:
    """By an image or a folder."""
    assert _refused(tree.put, image, b"other") == errno.EEXIST
    assert _refused(tree.make_folder, image) == errno.EEXIST


def test_a_temporary_name_is_published_by_its_rename(tree: Tree, name: str) -> None:
    """And not before."""
    tree.put(f"/file/{name}/.a.Xy12ab", b"data")
    assert tree.get(f"/file/{name}/.a.Xy12ab", "image.status") == "saving"
    tree.rename(f"/file/{name}/.a.Xy12ab", f"/file/{name}/a")
    assert tree.get(f"/file/{name}/a", "image.status") == "active"
    assert tree.read(f"/file/{name}/a") == b"data"


def test_replacing(tree: Tree, name: str, image: str) -> None:
    """The old image is in the trash."""
    old = tree.get(image, "image.id")
    tree.put(f"/file/{name}/.new.tmp", b"new")
    tree.rename(f"/file/{name}/.new.tmp", image)
    assert tree.read(image) == b"new"
    assert tree.get(image, "image.id") != old
    assert tree.path_of(old).startswith("/file/.trash/image")
    assert tree.read(tree.path_of(old)) == b"data"


def test_deleting_and_restoring(tree: Tree, image: str) -> None:
    """The same image, with its properties, comes back."""
    tree.set(image, "property.os_distro", "debian")
    number = tree.get(image, "image.id")
    tree.remove(image)
    assert _refused(tree.read, image) == errno.ENOENT
    trashed = tree.path_of(number)
    assert tree.get(trashed, "image.status") == "pending_delete"
    tree.rename(trashed, image)
    assert tree.get(image, "image.status") == "active"
    assert tree.get(image, "image.id") == number
    assert tree.get(image, "property.os_distro") == "debian"
    assert tree.read(image) == b"data"


def test_deleting_for_good(tree: Tree, image: str) -> None:
    """In the trash."""
    number = tree.get(image, "image.id")
    tree.remove(image)
    tree.remove(tree.path_of(number))
    assert _refused(tree.path_of, number) == errno.ENOENT


def test_a_protected_image(tree: Tree, name: str, image: str) -> None:
    """Neither deleted nor replaced."""
    tree.set(image, "image.protected", "true")
    assert _refused(tree.remove, image) == errno.EPERM
    tree.put(f"/file/{name}/new", b"new")
    assert _refused(tree.rename, f"/file/{name}/new", image) == errno.EPERM
    assert tree.read(image) == b"data"


def test_moving_between_stores(tree: Tree, name: str, image: str) -> None:
    """The id stays."""
    number = tree.get(image, "image.id")
    tree.rename(image, f"/other/{name}/moved")
    assert tree.names(f"/file/{name}") == set()
    assert tree.get(f"/other/{name}/moved", "image.id") == number
    assert tree.get(f"/other/{name}/moved", "image.stores") == "other"
    assert tree.read(f"/other/{name}/moved") == b"data"


def test_copies_in_two_stores(tree: Tree, name: str, image: str) -> None:
    """One image under two names; each goes by itself."""
    copy = f"/other/{name}/copy"
    tree.link(image, copy)
    assert tree.get(copy, "image.id") == tree.get(image, "image.id")
    assert tree.get(image, "image.stores") == "file,other"
    tree.remove(image)
    assert tree.get(copy, "image.status") == "active"
    assert tree.get(copy, "image.stores") == "other"
    assert tree.read(copy) == b"data"


def test_folders(tree: Tree, name: str, image: str) -> None:
    """Real, nested, removed only when empty."""
    deep = f"/file/{name}/deep"
    tree.make_folder(deep)
    tree.rename(image, f"{deep}/image")
    assert _refused(tree.remove_folder, deep) == errno.ENOTEMPTY
    assert tree.names(f"/file/{name}") == {"deep"}
    assert tree.names(deep) == {"image"}
    tree.rename(deep, f"/file/{name}/deeper")
    assert tree.read(f"/file/{name}/deeper/image") == b"data"
    assert _refused(tree.rename, f"/file/{name}/deeper", f"/other/{name}/deep") == errno.EXDEV


@pytest.mark.parametrize("field", ["id", "size", "created_at", "os_hash_value"])
def test_read_only_fields(tree: Tree, image: str, field: str) -> None:
    """Only the value it has is accepted."""
    present = tree.get(image, f"image.{field}")
    tree.set(image, f"image.{field}", present)
    assert _refused(tree.set, image, f"image.{field}", "0" * 64) == errno.EPERM
    assert tree.get(image, f"image.{field}") == present


@pytest.mark.parametrize("bad", ["a\nb", "a\x7f", "x" * 256])
def test_names_the_tree_cannot_hold(tree: Tree, name: str, bad: str) -> None:
    """Control characters, and more than 255 bytes."""
    for step in (lambda path: tree.put(path, b"data"), tree.make_folder):
        assert _refused(step, f"/file/{name}/{bad}") in (errno.EINVAL, errno.ENAMETOOLONG)
    assert tree.names(f"/file/{name}") == set()
