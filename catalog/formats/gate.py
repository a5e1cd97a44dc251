"""The verdict on an image's content: its format, or the reason why it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import CatalogError, InvalidImage
from catalog.formats import (
    foreign,
    luks,
    optical,
    parallels,
    qcow2,
    second_opinion,
    vdi,
    vhd,
    vhdx,
    vmdk,
)
from catalog.formats.content import Content, Source, opened
from catalog.formats.probe import has_boot_signature, is_optical, probe

_EXAMINE: dict[str, Callable[[Content], int]] = {
    "qcow2": qcow2.examine,
    "vmdk": vmdk.examine,
    "vmdk descriptor": vmdk.refuse_descriptor,
    "vhd": vhd.examine,
    "vhdx": vhdx.examine,
    "vdi": vdi.examine,
    "luks": luks.examine,
    "parallels": parallels.examine,
}
"""Formats that qemu probes and that are accepted; all others that it probes are refused."""

_RAW = frozenset(("raw", "ami", "ari", "aki"))
"""Formats that raw content may be declared as; to a hypervisor all of them are raw."""

_MAY_REFER = frozenset(("qcow2", "qed", "vmdk", "vmdk descriptor"))
"""Formats in which qemu opens other files that are named inside."""

_KNOWN_TO_OTHERS = {"parallels": "ploop"}
_CONVERT = "convert it: qemu-img convert -O qcow2"
_OR_RAW = "if it is a disk all the same, set disk_format=raw beforehand"


@dataclass(frozen=True, slots=True)
class Declared:
    """The formats that the uploader stated beforehand."""

    disk_format: str | None = None
    container_format: str = "bare"


@dataclass(frozen=True, slots=True)
class Detected:
    """The format of the content."""

    disk_format: str
    virtual_size: int
    """Bytes that the guest sees."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why content is refused."""

    reason: str
    stands_alone: bool
    """Whether it is known that qemu opens no other file for this content."""


def inspect_file(path: Path, declared: Declared | None = None) -> Detected:
    """As `inspect`, for a file of this host.  Raises OSError, too."""
    with opened(path) as source:
        return inspect(source, declared)


def inspect(
    source: Source, declared: Declared | None = None, table_reads: int | None = None
) -> Detected:
    """Return the format of content that may be an image; raise InvalidImage for any other.

    Content that qemu would take for a format has to be of that format, whole, undamaged and
    without need of another file, whatever was declared.  For all other content a declaration is
    believed.  With `table_reads` only that many of a disk's tables are read, the last ones
    first.  Raises what the source raises.
    """
    return _inspect(Content(source, table_reads), declared or Declared())


def judge(source: Source, declared: Declared, table_reads: int | None = None) -> Detected | Refused:
    """As `inspect`, for content that is in the catalog already.

    If it is refused, the result says so, and whether the content needs no other file.
    """
    content = Content(source, table_reads)
    try:
        return _inspect(content, declared)
    except InvalidImage as error:
        return Refused(error.reason, content.stands_alone)


def _inspect(content: Content, declared: Declared) -> Detected:
    try:
        return _judge(content, declared)
    except (CatalogError, OSError):
        raise
    except Exception as error:  # a mistake of the gate itself must not let an image pass
        raise InvalidImage("", f"its format cannot be judged ({type(error).__name__})") from error


def _judge(content: Content, declared: Declared) -> Detected:
    found = _only(content)
    if found is not None:
        return _probed(content, found, declared)
    if declared.container_format in ("ova", "docker", "compressed"):
        return _contained(content, declared)
    return _unprobed(content, declared.disk_format)


def _only(content: Content) -> str | None:
    """The one format that qemu would probe; None if it would take the content for raw."""
    found = probe(content)
    content.stands_alone = _MAY_REFER.isdisjoint(found)
    if content.size >= 8 and found == ["luks"] and luks.version(content) != 1:
        return None  # qemu takes other versions for raw
    if found and is_optical(content):
        found.append("iso")
    if found and has_boot_signature(content):
        found.append("a boot sector")
    if found and found != ["vhd"] and vhd.has_footer(content):
        found.append("vhd")
    if len(found) > 1:
        names = ", ".join(found)
        raise InvalidImage("", f"the content is several formats at once: {names}")
    return found[0] if found else None


def _probed(content: Content, found: str, declared: Declared) -> Detected:
    examine = _EXAMINE.get(found)
    if examine is None:
        raise InvalidImage("", f"the format {found} is not taken: {_CONVERT}")
    virtual_size = _examined(examine, content, found)
    name = _KNOWN_TO_OTHERS.get(found, found)
    if declared.disk_format not in (None, name):
        raise InvalidImage("", f"declared {declared.disk_format}, but the content is {found}")
    if declared.disk_format is None and name != found:
        raise InvalidImage("", f"the content is {found}: {_CONVERT}, or set disk_format={name}")
    _check_second_opinion(content, {name})
    return Detected(name, virtual_size)


def _unprobed(content: Content, declared: str | None) -> Detected:
    """Judge content that qemu would take for raw, whether it is raw or not."""
    _check_second_opinion(content, {"gpt", "iso", "luks"})
    if declared in _RAW:
        return Detected(declared, content.size)
    if vhd.has_footer(content):
        size = _examined(vhd.examine_fixed, content, "vhd")
        return _as_declared("vhd", size, declared)
    if probe(content) == ["luks"]:
        _examined(luks.examine, content, "luks")
    if is_optical(content):
        return _as_declared("iso", _examined(optical.examine, content, "iso"), declared)
    if declared is None and (what := foreign.recognise(content)) is not None:
        raise InvalidImage("", f"the content is {what.what}: {what.advice}; {_OR_RAW}")
    if declared == "gpt" and has_boot_signature(content):
        return Detected("gpt", content.size)
    if declared == "ploop":
        return Detected("ploop", content.size)
    return _as_declared("raw", content.size, declared)


def _contained(content: Content, declared: Declared) -> Detected:
    """Judge content that is packed on purpose; as in Glance its disk_format is that of the disk."""
    what = foreign.recognise(content)
    if what is None or what.container != declared.container_format:
        raise InvalidImage(
            "", f"declared container_format={declared.container_format}, which the content is not"
        )
    return Detected(declared.disk_format or "raw", content.size)


def _as_declared(found: str, virtual_size: int, declared: str | None) -> Detected:
    if declared not in (None, found):
        raise InvalidImage("", f"declared {declared}, but the content is {found}")
    return Detected(found, virtual_size)


def _examined(examine: Callable[[Content], int], content: Content, name: str) -> int:
    try:
        return examine(content)
    except InvalidImage as error:
        raise InvalidImage("", f"the {name} image is refused: {error.reason}") from error


def _check_second_opinion(content: Content, agreed: set[str]) -> None:
    if other := second_opinion.formats_of(content) - agreed - {"gpt"}:
        raise InvalidImage(
            "", f"Glance and Nova would take the content for {', '.join(sorted(other))}"
        )
