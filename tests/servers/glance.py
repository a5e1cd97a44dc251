"""The real glance_store, in an environment of its own: stores images as a Glance does."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.servers.programs import environment

REQUIREMENTS = ("glance_store[swift]==5.*", "setuptools<81")

_PROGRAM = """
import sys
import glance_store
from oslo_config import cfg

config, command, *arguments = sys.argv[1:]
conf = cfg.CONF
glance_store.register_opts(conf)
conf(["--config-file", config])
glance_store.create_stores(conf)
if command == "add":
    image, path, size, scheme = arguments
    with open(path, "rb") as data:
        print(glance_store.add_to_backend(conf, image, data, int(size), scheme)[0])
elif command == "get":
    for part in glance_store.get_from_backend(*arguments)[0]:
        sys.stdout.buffer.write(part)
"""


def glance_add(
    folder: Path, scheme: str, options: Mapping[str, str], image: str, data: bytes, size: int
) -> str:
    """Store an image by the driver of `scheme` with the options of `[glance_store]`.

    `size` is what Glance was told in advance; 0 if nothing.  Returns the location as its
    database would hold it.
    """
    (folder / "image").write_bytes(data)
    arguments = [image, str(folder / "image"), str(size), scheme]
    return _run(folder, options, "add", *arguments).decode().strip()


def glance_get(folder: Path, options: Mapping[str, str], location: str) -> bytes:
    """Read an image by its location."""
    return _run(folder, options, "get", location)


def _run(folder: Path, options: Mapping[str, str], *arguments: str) -> bytes:
    programs = environment("glance", REQUIREMENTS)
    config = folder / "glance.conf"
    lines = [f"{name} = {value}\n" for name, value in options.items()]
    config.write_text("[glance_store]\n" + "".join(lines))
    command = [str(programs / "python"), "-W", "ignore", "-c", _PROGRAM, str(config)]
    done = subprocess.run([*command, *arguments], capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"glance_store failed: {done.stderr.decode()}")
    return done.stdout
