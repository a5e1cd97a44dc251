"""Commands that a person can copy into a shell to use an image.

A name may come from an attacker: each is quoted, and none can be taken for an option.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from catalog.model import names
from catalog.model.access import ANONYMOUS, Principal
from catalog.model.fields import Details
from dav.browse import sums
from dav.browse.exchange import url_of
from dav.browse.wording import printable

MOUNT_POINT = "/mnt/images"

_MEMORY = 2048
"""MiB of memory for a guest whose image has no `min_ram`."""
_DISK = 20
"""GiB of the disk for a guest that is installed from a CD."""

_CHECKERS = {"sha256": "sha256sum", "sha384": "sha384sum", "sha512": "sha512sum"}
# Keys that `--property KEY=VALUE` surely accepts; other properties are left out.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9._-]{1,60}")


@dataclass(frozen=True, slots=True)
class Command:
    """One command, and what it is for."""

    title: str
    text: str


def commands(
    details: Details, name: str, path: str, base_url: str, principal: Principal
) -> tuple[Command, ...]:
    """Commands for the image that is called `name` at `path` in the tree."""
    mounted = MOUNT_POINT + path
    # By id: a guest needs the same bytes even after another image has taken the name.
    kept = f"{MOUNT_POINT}/{names.BY_ID}/{details.image.id}"
    return (
        Command("Download, resume and check", _download(details, name, path, base_url, principal)),
        Command("Mount on this host", f"imagefs mount {MOUNT_POINT}"),
        Command("Mount over the network (davfs2)", _davfs(base_url)),
        Command("Disk on top of it (qemu-img)", _overlay(details, kept)),
        Command("New guest (virt-install)", _guest(details, kept)),
        Command("Copy to an OpenStack cloud", _openstack(details, name, mounted)),
    )


def _download(details: Details, name: str, path: str, base_url: str, principal: Principal) -> str:
    user = "" if principal.name == ANONYMOUS else f" --user {quote(principal.name)}"
    url = quote(base_url + url_of(path))
    target = quote(f"./{name}" if name.startswith("-") else name)
    fetch = f"curl --fail --location{user} --continue-at - \\\n  --output {target} \\\n  {url}"
    checker = _CHECKERS.get(details.image.os_hash_algo or "")
    if checker is None or details.image.os_hash_value is None:
        return fetch
    line = quote(sums.line(details.image.os_hash_value, name))
    return f"{fetch} &&\nprintf '%s\\n' \\\n  {line} |\n  {checker} --check -"


def quote(text: str) -> str:
    """The text as one word of a shell.

    Invisible characters, such as a change of the writing direction, are written as escapes of
    bash and zsh, so that the command does what it looks like.
    """
    if text.isprintable():
        return shlex.quote(text)
    spelled = printable(text.replace("\\", "\\\\").replace("'", "\\'"))
    return f"$'{spelled}'"


def _davfs(base_url: str) -> str:
    return f"mount -t davfs -o ro {quote(base_url + '/')} {MOUNT_POINT}"


def _format(details: Details) -> str:
    return details.image.disk_format or "raw"


def _overlay(details: Details, kept: str) -> str:
    return f"qemu-img create -f qcow2 -F {quote(_format(details))} \\\n  -b {kept} guest.qcow2"


def _guest(details: Details, kept: str) -> str:
    memory = details.image.min_ram or _MEMORY
    if details.image.disk_format == "iso":
        disk = f"--disk size={details.image.min_disk or _DISK} --cdrom {kept}"
    else:
        disk = (
            f"--import --disk size={_disk_size(details)},backing_format={_format(details)},"
            f"backing_store={kept}"
        )
    return (
        f"virt-install --name guest --memory {memory} --vcpus 2 \\\n"
        f"  --osinfo detect=on,require=off \\\n  {disk}"
    )


def _disk_size(details: Details) -> int:
    """GiB of a disk that holds the image."""
    return max(details.image.min_disk, -(-(details.image.virtual_size or 0) // 2**30), 1)


def _openstack(details: Details, name: str, mounted: str) -> str:
    image = details.image
    options = [
        f"--disk-format {quote(_format(details))}",
        f"--container-format {quote(image.container_format)}",
    ]
    if image.min_disk:
        options.append(f"--min-disk {image.min_disk}")
    if image.min_ram:
        options.append(f"--min-ram {image.min_ram}")
    options += [
        f"--property {quote(f'{key}={value}')}"
        for key, value in details.properties.items()
        if _PLAIN_KEY.fullmatch(key) and value.isprintable()
    ]
    options += [f"--file {quote(mounted)}", f"-- {quote(name)}"]
    return "openstack image create \\\n  " + " \\\n  ".join(options)
