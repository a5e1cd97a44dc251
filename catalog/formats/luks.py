"""LUKS version 1 (cryptsetup's on-disk format specification 1.2.3): numbers are big-endian."""

from __future__ import annotations

import re

from catalog.errors import InvalidImage
from catalog.formats.content import Content

_SECTOR = 512
_SLOTS = 8
_FIRST_MATERIAL = 4096 // _SECTOR
_ENABLED, _DISABLED = 0x00AC71F3, 0x0000DEAD
_STRIPES = 4000
_KEY_BYTES = {
    "aes": (16, 24, 32),
    "serpent": (16, 24, 32),
    "twofish": (16, 24, 32),
    "cast5": (16,),
}
_HASH = "sha1|sha224|sha256|sha384|sha512|ripemd160"
_MODE = re.compile(rf"(ecb|cbc|ctr|xts)-(?:plain|plain64|essiv:(?:{_HASH}))(?::(?:{_HASH}))?")


def version(content: Content) -> int:
    """The version in the header."""
    return int.from_bytes(content.exactly(6, 2, "the header"), "big")


def examine(content: Content) -> int:
    """The virtual size in bytes: everything behind the header.  Raises InvalidImage."""
    if version(content) != 1 or content.at(0, 4) != b"LUKS":
        raise InvalidImage(
            "",
            f"it is of version {version(content)}, and qemu opens only 1: if a guest is to unlock"
            " it by itself, set disk_format=raw beforehand; else cryptsetup convert --type luks1",
        )
    cipher, mode, hash_name, payload, key_bytes = content.unpack(">32s32s32sII", 8, "the header")
    (iterations,) = content.unpack(">I", 164, "the header")
    _check_cipher(_text(cipher), _text(mode), _text(hash_name), key_bytes)
    if payload < _FIRST_MATERIAL or not iterations:
        raise InvalidImage("", "its header is damaged")
    _check_slots(content, payload, key_bytes)
    content.check_inside(payload * _SECTOR, 0, "the header")
    size = content.size - int(payload) * _SECTOR
    return -(-size // _SECTOR) * _SECTOR  # as qemu reads a file


def _text(field: bytes) -> str:
    text, end, _ = field.partition(b"\0")
    shown = text.decode("ascii", "replace")
    if not end or not shown.isprintable():
        raise InvalidImage("", "its header is damaged")
    return shown


def _check_cipher(cipher: str, mode: str, hash_name: str, key_bytes: int) -> None:
    found = _MODE.fullmatch(mode)
    if found is None or cipher not in _KEY_BYTES or not re.fullmatch(_HASH, hash_name):
        raise InvalidImage("", f"qemu does not know its encryption, {cipher} {mode} {hash_name}")
    # XTS uses two keys.
    keys = 2 if found[1] == "xts" else 1
    if key_bytes not in [keys * each for each in _KEY_BYTES[cipher]]:
        raise InvalidImage("", f"a key of {key_bytes} bytes is not possible")


def _check_slots(content: Content, payload: int, key_bytes: int) -> None:
    taken = [(0, _FIRST_MATERIAL)]
    length = -(-key_bytes * _STRIPES // _SECTOR)
    for number in range(_SLOTS):
        active, iterations, _, start, stripes = content.unpack(
            ">II32sII", 208 + 48 * number, "the header"
        )
        end = start + length
        damaged = (
            active not in (_ENABLED, _DISABLED)
            or stripes != _STRIPES
            or (active == _ENABLED and not iterations)
            or end > payload
            or any(start < stop and begin < end for begin, stop in taken)
        )
        if damaged:
            raise InvalidImage("", f"key slot {number} is damaged")
        taken.append((start, end))
