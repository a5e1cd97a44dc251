"""Images of every container, small and made by the real tools, to be judged and to be damaged."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from catalog.errors import InvalidImage
from catalog.formats.gate import Declared, Detected, inspect_file
from tests.kit.catalog import some_bytes

MIB = 1 << 20
SIZE = 8 * MIB
"""Bytes of the guest's disk."""

# What qemu-img convert makes: format, options, and what it is to be recorded as.
CONTAINERS = {
    "qcow2": ("qcow2", "", "qcow2"),
    "v2.qcow2": ("qcow2", "compat=0.10", "qcow2"),
    "zstd.qcow2": ("qcow2", "compression_type=zstd", "qcow2"),
    "subclusters.qcow2": ("qcow2", "extended_l2=on,cluster_size=128k", "qcow2"),
    "small.qcow2": ("qcow2", "cluster_size=4k,refcount_bits=64", "qcow2"),
    "sparse.vmdk": ("vmdk", "", "vmdk"),
    "stream.vmdk": ("vmdk", "subformat=streamOptimized", "vmdk"),
    "dynamic.vhd": ("vpc", "force_size=on", "vhd"),
    "fixed.vhd": ("vpc", "subformat=fixed,force_size=on", "vhd"),
    "vhdx": ("vhdx", "", "vhdx"),
    "fixed.vhdx": ("vhdx", "subformat=fixed", "vhdx"),
    "vdi": ("vdi", "", "vdi"),
    "static.vdi": ("vdi", "static=on", "vdi"),
}


def run(*command: str | Path, input_: bytes | None = None) -> None:
    """Run a tool; it must be installed, and succeed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, input=input_)
    assert done.returncode == 0, done.stderr


def qemu_img(*arguments: str | Path) -> None:
    """Run qemu-img."""
    run("qemu-img", *arguments)


def disk(folder: Path) -> Path:
    """A raw disk: 3 MiB of data that cannot be compressed, then zeros, then a last sector."""
    path = folder / "disk.raw"
    path.write_bytes(some_bytes(3 * MIB) + bytes(5 * MIB - 512) + b"\x5a" * 512)
    return path


def container(folder: Path, name: str) -> Path:
    """The disk in one of CONTAINERS."""
    disk(folder)
    path = folder / f"image.{name}"
    path.write_bytes(_converted(name))
    return path


@cache
def _converted(name: str) -> bytes:
    kind, options, _ = CONTAINERS[name]
    compress = ["-c"] if name == "zstd.qcow2" else []
    chosen = ["-o", options] if options else []
    with TemporaryDirectory(prefix="imagefs-") as folder:
        path = Path(folder, "image")
        made = disk(Path(folder))
        qemu_img("convert", "-f", "raw", "-O", kind, *compress, *chosen, made, path)
        return path.read_bytes()


def short_overlay(folder: Path) -> Path:
    """An overlay of 222 bytes: qemu reads zeros behind them, and opens /etc/passwd."""
    whole = folder / "overlay.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk(folder), whole)
    path = folder / "short.qcow2"
    data = bytearray(whole.read_bytes()[:104])
    name = b"/etc/passwd"
    data[8:20] = (200).to_bytes(8, "big") + len(name).to_bytes(4, "big")
    path.write_bytes(data.ljust(200, b"\0") + name + b"\0" * 11)
    return path


def child_vmdk(folder: Path) -> Path:
    """A sparse VMDK whose parent is another file."""
    path = folder / "child.vmdk"
    qemu_img(
        "create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", container(folder, "sparse.vmdk"), path
    )
    return path


def luks1(folder: Path) -> Path:
    """An encrypted disk of 1 MiB, as qemu writes it."""
    path = folder / "image.luks"
    path.write_bytes(_luks1())
    return path


@cache
def _luks1() -> bytes:
    secret = "secret,id=key,data=word"
    options = "key-secret=key,iter-time=10"
    with TemporaryDirectory(prefix="imagefs-") as folder:
        path = Path(folder, "image")
        command = ["create", "-q", "-f", "luks", "--object", secret, "-o", options, str(path), "1M"]
        # qemu measures its own speed, and gives up where the machine is too busy for that.
        for _ in range(10):
            if subprocess.run(["qemu-img", *command], capture_output=True).returncode == 0:
                return path.read_bytes()
        qemu_img(*command)
        return path.read_bytes()


def footed_vmdk(folder: Path) -> Path:
    """A stream as VMware exports it: where its directory is stands in a footer at its end."""
    path = container(folder, "stream.vmdk")
    data = bytearray(path.read_bytes())
    header = bytes(data[:512])
    data[56:64] = b"\xff" * 8
    data += bytes(-len(data) % 512)
    data += struct.pack("<QII", 1, 0, 3).ljust(512, b"\0") + header + bytes(512)
    path.write_bytes(data)
    return path


def verdict(path: Path, declared: str | None = None, container_format: str = "bare") -> Detected:
    """What the gate says of a file."""
    return inspect_file(path, Declared(declared, container_format))


def refusal(path: Path, declared: str | None = None, container_format: str = "bare") -> str:
    """Why the gate refuses a file: one line that can be printed."""
    with pytest.raises(InvalidImage) as caught:
        verdict(path, declared, container_format)
    assert caught.value.reason
    assert caught.value.reason.isprintable()
    return caught.value.reason


Make = Callable[[Path], Path]
