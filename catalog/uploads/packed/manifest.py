"""The manifest of an OVA: digests of its files, one per line as `SHA256(disk.vmdk)= HEX`.

The format is DMTF DSP0243 (OVF 2.1).  The manifest comes after the description or at the end of
the archive.  As in ovftool, a file with another digest is refused, and a file that the manifest
does not name is only reported.
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
"""The algorithms of the standard; OpenSSL 3 writes SHA2-256."""

_LINE = re.compile(r"([\w/-]{1,20})\s*\((.*)\)\s*=\s*([0-9a-f]{1,128})", re.ASCII | re.IGNORECASE)


def is_manifest(name: str) -> bool:
    """Whether a file in an archive is its manifest, by its name."""
    return name.lower().endswith(".mf")


class Manifest:
    """Compares files with the manifest's digests, whichever comes first in the archive.

    Memory does not grow with the manifest: digests of other files are not kept.
    """

    def __init__(self, subject: str, files: Collection[str], tell: Callable[[str], object]) -> None:
        """`files` are the names to compare; `tell` gets a line for each that is not compared."""
        self._subject = subject
        self._tell = tell
        self._name: str | None = None
        """The manifest's name; None until it was read."""
        self._said: dict[str, dict[str, str]] = {file: {} for file in files}
        self._unknown: dict[str, str] = {}
        """The algorithm of each file whose digest has one that is not known."""
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
        # Compare files that came before the manifest now: the rest of the archive need not be
        # read to refuse them.
        for file in self._found:
            self._compare(file)

    def finish(self) -> None:
        """Compare at the end; report the files that are not compared.  Raises DigestMismatch."""
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
            # If the manifest comes later, its algorithm is not known yet: compute all of them.
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
