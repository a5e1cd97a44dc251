"""Load on a mount, by one process: uploads, renames, deletes and reads with real tools.

Run as `load.py MOUNT OUTSIDE SEED` until the mount dies.  Before anything is done to an
image, and again when the tool has reported success, a line goes to a log outside of the
mount: what `test_kill_mount` holds the catalog to.  An image is known by the sha256 of
its data, which no other image shares.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

STORES = ("file", "other")


class Failed(Exception):
    """A tool failed: the mount is dead, or the catalog has refused it."""


class Load:
    """One process' images, of which it alone changes the names."""

    def __init__(self, mount: Path, outside: Path, seed: int) -> None:
        self._mount = mount
        self._outside = outside
        self._random = random.Random(seed)
        self._prefix = f"load{seed}"
        self._made = 0
        self._here: dict[Path, str] = {}
        self._log = os.open(
            outside / f"{self._prefix}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )

    def run(self) -> None:
        """Go on until the mount is gone."""
        steps: list[Callable[[], None]] = [
            *[self.copy, self.rsync, self.publish, self.write_slowly, self.kill_writer] * 2,
            *[self.rename, self.replace, self.delete, self.read] * 2,
            *[self.restore, self.purge, self.migrate, self.replicate],
        ]
        while self._is_alive():
            with suppress(Failed, OSError):
                self._random.choice(steps)()

    def _is_alive(self) -> bool:
        try:
            # Not stat(2): the kernel goes on answering that from its cache for a second.
            return "file" in os.listdir(self._mount)
        except OSError:
            return False

    # -- uploads -----------------------------------------------------------------------

    def copy(self) -> None:
        """Upload with cp."""
        source, sha = self._source()
        self._upload(sha, self._new(), lambda place: self._tool("cp", source, place))

    def rsync(self) -> None:
        """Upload with rsync, which renames a temporary name."""
        source, sha = self._source()
        self._upload(sha, self._new(), lambda place: self._tool("rsync", "-a", source, place))

    def publish(self) -> None:
        """Upload under a temporary name of our own, then rename it."""
        source, sha = self._source()

        def work(place: Path) -> None:
            part = place.with_name(place.name + ".part")
            self._tool("cp", source, part)
            os.rename(part, place)

        self._upload(sha, self._new(), work)

    def write_slowly(self) -> None:
        """Upload with write(2) and pauses, so that a kill falls in between."""
        source, sha = self._source()
        data = source.read_bytes()

        def work(place: Path) -> None:
            with place.open("wb", buffering=0) as file:
                for offset in range(0, len(data), 256 * 1024):
                    file.write(data[offset : offset + 256 * 1024])
                    time.sleep(self._random.random() * 0.03)

        self._upload(sha, self._new(), work)

    def kill_writer(self) -> None:
        """Begin an upload that is killed, at the latest when it has ended."""
        source, sha = self._source()
        self._say("begin", sha)
        with subprocess.Popen(["cp", source, self._new()], stderr=subprocess.DEVNULL) as process:
            time.sleep(self._random.random() * 0.02)
            process.kill()

    def replace(self) -> None:
        """Upload under a temporary name and rename it onto an image."""
        place, old = self._any()
        if place.parent.parent != self._mount:
            return
        source, sha = self._source()
        part = place.with_name(f".{self._prefix}.{self._made}")
        self._say("begin", sha, path=place)
        self._tool("cp", source, part)
        self._say("deleting", old)
        os.rename(part, place)
        self._here[place] = sha
        self._say("done", sha, path=place)
        self._say("deleted", old)

    def _upload(self, sha: str, place: Path, work: Callable[[Path], None]) -> None:
        self._say("begin", sha, path=place)
        work(place)
        self._here[place] = sha
        self._say("done", sha, path=place)

    # -- names -------------------------------------------------------------------------

    def rename(self) -> None:
        """Give an image another name or folder, with mv."""
        source, sha = self._any()
        store = self._mount / source.relative_to(self._mount).parts[0]
        folder = self._random.choice([store, store / self._prefix])
        folder.mkdir(exist_ok=True)
        self._move(source, folder / self._name(), sha)

    def migrate(self) -> None:
        """Move an image to the other store."""
        source, sha = self._any()
        here = source.relative_to(self._mount).parts[0]
        (there,) = set(STORES) - {here}
        self._say("renaming", sha)
        target = self._mount / there / self._name()
        os.rename(source, target)
        self._moved(source, target, sha)

    def _move(self, source: Path, target: Path, sha: str) -> None:
        self._say("renaming", sha)
        self._tool("mv", source, target)
        self._moved(source, target, sha)

    def _moved(self, source: Path, target: Path, sha: str) -> None:
        del self._here[source]
        self._here[target] = sha
        self._say("done", sha, path=target)

    def replicate(self) -> None:
        """Link an image into the other store, and drop one of its two copies."""
        source, sha = self._any()
        here = source.relative_to(self._mount).parts[0]
        (there,) = set(STORES) - {here}
        target = self._mount / there / self._name()
        # Cut off in between it has two names: nothing more is done with it then.
        del self._here[source]
        self._say("renaming", sha)
        os.link(source, target)
        os.unlink(source)
        self._here[target] = sha
        self._say("done", sha, path=target)

    def delete(self) -> None:
        """Move an image to the trash, with rm."""
        place, sha = self._any()
        self._say("deleting", sha)
        self._tool("rm", "-f", place)
        del self._here[place]
        self._say("deleted", sha)

    def restore(self) -> None:
        """Take an image back out of the trash."""
        trashed, sha = self._trashed()
        target = trashed.parent.parent / self._name()
        self._say("restoring", sha)
        os.rename(trashed, target)
        self._here[target] = sha
        self._say("done", sha, path=target)

    def purge(self) -> None:
        """Delete an image for good."""
        trashed, sha = self._trashed()
        self._say("purging", sha)
        os.unlink(trashed)
        self._say("purged", sha)

    # -- reading -----------------------------------------------------------------------

    def read(self) -> None:
        """Read an image and compare every byte."""
        place, sha = self._any()
        found = hashlib.sha256(place.read_bytes()).hexdigest()
        if found != sha:
            self._say("wrong", sha, path=place)

    # ----------------------------------------------------------------------------------

    def _source(self) -> tuple[Path, str]:
        source = self._outside / f"{self._prefix}.source"
        data = self._random.randbytes(self._random.choice([1, 4096, 300_000, 3_000_000]) + 16)
        source.write_bytes(data)
        return source, hashlib.sha256(data).hexdigest()

    def _name(self) -> str:
        self._made += 1
        return f"{self._prefix}-{self._made}.img"

    def _new(self) -> Path:
        return self._mount / self._random.choice(STORES) / self._name()

    def _any(self) -> tuple[Path, str]:
        if not self._here:
            raise Failed
        return self._random.choice(list(self._here.items()))

    def _trashed(self) -> tuple[Path, str]:
        trash = self._mount / self._random.choice(STORES) / ".trash"
        names = [name for name in os.listdir(trash) if name.startswith(self._prefix + "-")]
        if not names:
            raise Failed
        place = trash / self._random.choice(names)
        return place, os.getxattr(place, "user.image.os_hash_value").decode()

    def _tool(self, *command: str | Path) -> None:
        if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode != 0:
            raise Failed

    def _say(self, what: str, sha: str, path: Path | None = None) -> None:
        where = None if path is None else "/" + str(path.relative_to(self._mount))
        os.write(self._log, (json.dumps([what, sha, where]) + "\n").encode())


if __name__ == "__main__":
    Load(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])).run()
