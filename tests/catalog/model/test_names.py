"""What a name may be, and which names are temporary."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import InvalidName
from catalog.model import names


@pytest.mark.parametrize(
    "name",
    ["a", "debian-12.qcow2", "with blank", "ü", "日本語", "a" * 255, "ü" * 127, "a\\b", "-rf", "~"],
)
def test_a_good_name_passes(name: str) -> None:
    """UTF-8 of 1 to 255 bytes."""
    assert names.check(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "/", "a\0b", "a\nb", "\x1b[2J", "\x7f", "a" * 256, "ü" * 128, "\udcff"],
)
def test_a_bad_name_is_refused(name: str) -> None:
    """Empty, reserved, too long, not UTF-8, with '/' or control characters."""
    with pytest.raises(InvalidName) as caught:
        names.check(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        ".debian.qcow2.Xa81bC",
        "a.part",
        "a.PART",
        "a.partial",
        "a.filepart",
        "a.crdownload",
        "a.tmp",
        ".~lock.a#",
        "._a",
        ".DS_Store",
        ".nfs0000001",
        ".hidden",
        "a.qcow2.aria2",
    ],
)
def test_temporary_names(name: str) -> None:
    """What rsync, browsers, WinSCP, Finder and NFS call files that are not finished."""
    assert names.is_temporary(name)


@pytest.mark.parametrize(
    "name",
    [
        "Thumbs.db",
        "thumbs.db",
        "Thumbs.db:encryptable",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "Desktop.ini",
        "~$report.docx",
        "$RECYCLE.BIN",
        "System Volume Information",
        "Icon\r",
        ".directory",
        ".Trash-1000",
        ".Spotlight-V100",
        "__MACOSX",
        "lost+found",
    ],
)
def test_what_desktops_leave_is_never_an_image(name: str) -> None:
    """It is taken, as copying a folder fails otherwise, and is not published."""
    names.check_new(name)
    assert names.is_temporary(name)


@pytest.mark.parametrize(
    "name",
    [
        "a\u200bb",  # zero width space
        "a\u200db",
        "\ufeffa",
        "gnp\u202eelif",  # right-to-left override
        "\u2066a\u2069",
        "a\u00ad",  # soft hyphen
        "a\u2028b",
        "a\u0085b",  # control character of the upper half
        "\u3164",  # Hangul filler
        "a\ufe0f",
        "a\U000e0041",  # tag
        "a ",
        " a",
        "a\u00a0",
        "a\u3000",
    ],
)
def test_what_nobody_sees_is_in_no_new_name(name: str) -> None:
    """The refusal says which character; what is there already can be named, to rename it."""
    assert names.check(name) == name
    with pytest.raises(InvalidName) as caught:
        names.check_new(name)
    assert str(caught.value).isascii()
    assert re.search(r"invisible character: U\+[0-9A-F]{4}|begins nor ends", str(caught.value))


@pytest.mark.parametrize(
    "name", ['json:{"filename": "\\u002fetc\\u002fpasswd"}', "fat:rw:x", "nbd+unix:x", "file:x"]
)
def test_what_qemu_takes_for_something_else_is_in_no_new_name(name: str) -> None:
    """`qemu-img info *` in a folder of the mount reads the images there and nothing else."""
    names.check(name)
    with pytest.raises(InvalidName, match="qemu"):
        names.check_new(name)


@pytest.mark.parametrize("name", ["SHA256SUMS"])
def test_a_name_of_the_catalog_s_own_is_nobody_s(name: str) -> None:
    """Else anybody would say what a folder's images should be."""
    with pytest.raises(InvalidName, match="the catalog's own"):
        names.check_new(name)


@pytest.mark.parametrize(
    "name", ["a b", "naïve.img", "日本語", "ক্ষ", "a.", "sha256sums", "x\U0001f600"]
)
def test_other_names_stay_free(name: str) -> None:
    """Scripts of all the world, and what only looks like something special."""
    names.check_new(name)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a.qcow2",
        "part",
        "a.part1",
        "a.tmp.qcow2",
        "tmp",
        "a.",
        "a.qcow2~",  # cp -b, rsync -b: it was an image, and is one
        "my desktop.ini",
        "Thumbs.db.qcow2",
    ],
)
def test_ordinary_names(name: str) -> None:
    """A temporary ending counts only at the end."""
    assert not names.is_temporary(name)


@given(st.text(min_size=1, max_size=300))
def test_a_trash_name_is_always_a_name(text: str) -> None:
    """The name given to a second image in the trash is valid, however long the first is."""
    try:
        name = names.check(text)
    except InvalidName:
        return
    image_id = "5c0fb3f3-5f8b-4f0e-8e3f-0f6d7a4a7d4e"
    assert names.check(names.in_trash(name, image_id)).endswith(image_id)
