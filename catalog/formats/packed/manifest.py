"""The manifest of an OVA: digests of its files, `SHA256(disk.vmdk)= HEX`, one a line.

After DMTF DSP0243 (OVF 2.1).  It comes behind the description or at the end of the archive.  As
ovftool does, a file that is not as the manifest says is refused, and one that the manifest
leaves out is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from catalog.errors import DigestMismatch, InvalidImage
from catalog.model.digests import Hash, new_hash
from catalog.model.names import shown

_ALGORITHMS = {
    **dict.fromkeys(("SHA1", "SHA-1"), "sha1"),
    **dict.fromkeys(("SHA256", "SHA-256", "SHA2-256"), "sha256"),
    **dict.fromkeys(("SHA512", "SHA-512", "SHA2-512"), "sha512"),
}
"""Those of the standard; SHA2-256 is what OpenSSL 3 writes."""

_LINE = re.compile(r"([\w/-]{1,20})\s*\((.*)\)\s*=\s*([0-9a-f]{1,128})", re.ASCII | re.IGNORECASE)


def is_manifest(name: str) -> bool:
    """Whether a file of an archive is its manifest, by its name."""
    return name.lower().endswith(".mf")


class Manifest:
    """Compares files with what the manifest says of them, whichever comes first.

    Memory does not grow with the manifest: what it says of other files is forgotten.
    """

    def __init__(self, subject: str, files: Collection[str], tell: Callable[[str], object]) -> None:
        """`files` are the names to compare; `tell` is given a line for each that is not."""
        self._subject = subject
        self._tell = tell
        self._name: str | None = None
        """What the manifest is called; None until it was read."""
        self._said: dict[str, dict[str, str]] = {file: {} for file in files}
        self._unknown: dict[str, str] = {}
        """An algorithm that is not known, for each file that has one."""
        self._found: dict[str, dict[str, Hash]] = {}

    def feed(self, file: str, data: bytes) -> None:
        """Give the next bytes of one of the files."""
        for found in self._hashes(file).values():
            found.update(data)

    def read(self, name: str, text: bytes) -> None:
        """Give the manifest.  Raises InvalidImage for a second one, DigestMismatch."""
        if self._name is not None:
            reason = f"the archive has two manifests ({shown(self._name)}, {shown(name)})"
            raise InvalidImage(
                self._subject, f"{reason}: take the disk out with tar -xf and add it"
            )
        self._name = name
        for line in text.decode("utf-8-sig", "replace").split("\n"):
            if match := _LINE.fullmatch(line.strip()):
                self._note(match[1], match[2].removeprefix("./"), match[3].lower())
        # What was fed before: there is no need to read the rest.
        for file in self._found:
            self._compare(file)

    def finish(self) -> None:
        """All was given: compare, and tell of what was not.  Raises DigestMismatch."""
        for file in self._said if self._name is not None else ():
            self._compare(file)
            if self._said[file]:
                continue
            why = "does not name it"
            if file in self._unknown:
                why = f"has only its {self._unknown[file]}, which is not known here"
            self._tell(f"{shown(file)} was not compared: {shown(str(self._name))} {why}")

    def _hashes(self, file: str) -> dict[str, Hash]:
        if file not in self._found:
            # Nobody knows yet which algorithm a manifest at the end uses.
            is_known = self._name is not None
            algos = self._said[file] if is_known else dict.fromkeys(_ALGORITHMS.values())
            self._found[file] = {algo: new_hash(algo) for algo in algos}
        return self._found[file]

    def _note(self, algorithm: str, file: str, digest: str) -> None:
        if file not in self._said:
            return
        algo = _ALGORITHMS.get(algorithm.upper())
        if algo is None:
            self._unknown[file] = algorithm
        elif self._said[file].setdefault(algo, digest) != digest:
            raise self._mismatch(f"{shown(str(self._name))} has two digests of {shown(file)}")

    def _compare(self, file: str) -> None:
        for algo, said in self._said[file].items():
            found = self._hashes(file)[algo].hexdigest()
            if found != said:
                raise self._mismatch(
                    f"the {algo} of {shown(file)} is {found}, but {shown(str(self._name))} says"
                    f" {said}"
                )

    def _mismatch(self, what: str) -> DigestMismatch:
        return DigestMismatch(
            self._subject, f"{what}: the appliance was damaged or changed, get it again"
        )
