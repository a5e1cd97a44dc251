"""The pool of the tests' Ceph, looked at with Ceph's own tools."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.stores.rbd.connection import RbdStoreSettings
from catalog.stores.rbd.store import RbdStore
from tests.servers.ceph import Ceph

TIMEOUT = 4
"""Seconds after which a store of the tests gives up."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool."""

    ceph: Ceph

    def store(self, **settings: object) -> RbdStore:
        """A store in this pool, as another host has it."""
        section = {"pool": self.ceph.pool, "conf": self.ceph.conf, "timeout": TIMEOUT}
        return RbdStore("ceph", RbdStoreSettings.model_validate(section | settings))

    def put(self, key: str, data: bytes) -> str:
        """Store an object; return its url."""
        store = self.store()
        try:
            writer = store.writer(key, len(data))
            writer.write(data)
            return writer.commit()
        finally:
            store.close()

    def rbd(self, *command: str) -> str:
        """Run the tool `rbd` as the administrator."""
        return self.ceph.run("rbd", *command)

    def try_rbd(self, *command: str) -> bool:
        """Whether the tool `rbd` can do that."""
        full = ["rbd", "-c", str(self.ceph.conf), *command]
        return subprocess.run(full, capture_output=True, check=False).returncode == 0

    def rbd_json(self, *command: str) -> Any:
        """What `rbd` tells of an image; its name comes last."""
        *words, name = command
        return json.loads(self.rbd(*words, f"{self.ceph.pool}/{name}", "--format", "json"))

    def names(self) -> list[str]:
        """All images, whatever their names."""
        return sorted(self.rbd("ls", self.ceph.pool).split())

    def objects(self) -> list[str]:
        """All RADOS objects."""
        return sorted(self.ceph.run("rados", "-p", self.ceph.pool, "ls").split())

    def used(self, name: str) -> int:
        """How many RADOS objects hold an image's data."""
        prefix = self.rbd_json("info", name)["block_name_prefix"]
        return sum(each.startswith(prefix) for each in self.objects())

    def export(self, name: str, folder: Path) -> bytes:
        """An image's data, as Ceph's tool reads it."""
        path = folder / name
        self.rbd("export", "--no-progress", f"{self.ceph.pool}/{name}", str(path))
        return path.read_bytes()
