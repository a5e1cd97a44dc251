"""Certificates for the servers of the tests, of an authority of our own."""

from __future__ import annotations

import subprocess
from pathlib import Path

NAME = "images.test"
"""The host of the server's certificate, besides 127.0.0.1."""

_NEW_KEY = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


def make_certificates(folder: Path) -> None:
    """Make `authority.pem`, and `server.pem` and `client.pem` of it.

    `stranger.pem` is of nobody.  Each has its key in a file `.key`.
    """
    _make_authority(folder, "authority")
    _make_authority(folder, "stranger")
    for name, host in (("server", f"DNS:{NAME},IP:127.0.0.1"), ("client", "DNS:client.test")):
        (folder / f"{name}.ext").write_text(f"subjectAltName={host}\n")
        _run(folder, f"{_NEW_KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr")
        _run(
            folder,
            f"openssl x509 -req -in {name}.csr -CA authority.pem -CAkey authority.key"
            f" -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem",
        )


def _make_authority(folder: Path, name: str) -> None:
    made = f"-x509 -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"
    _run(folder, f"{_NEW_KEY} {made}")


def _run(folder: Path, command: str) -> None:
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
