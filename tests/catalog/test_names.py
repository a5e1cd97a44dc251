"""What a name may be, and which names are temporary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import names
from catalog.errors import InvalidName


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
    ],
)
def test_temporary_names(name: str) -> None:
    """What rsync, browsers, WinSCP, Finder and NFS call files that are not finished."""
    assert names.is_temporary(name)


@pytest.mark.parametrize("name", ["a", "a.qcow2", "part", "a.part1", "a.tmp.qcow2", "tmp", "a."])
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
