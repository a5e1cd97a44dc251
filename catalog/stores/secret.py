"""Credentials of stores, kept by reference: the settings name the place, never the secret.

Safe from several threads.  Each `read` reads the secret again, so that a changed password needs
no restart.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from catalog.errors import StoreRefused, StoreUnavailable

_MAX_SIZE = 65_536
"""Bytes: more than any token has, and little enough if the path leads to a wrong file."""


class SecretReference(BaseModel):
    """One of `{ file = "/etc/imagefs/x" }`, `{ env = "NAME" }`, `{ credential = "NAME" }`.

    A credential is one that systemd passes to a service (systemd.exec(5), LoadCredential=).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path | None = None
    """Absolute; readable by its owner only."""
    env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    credential: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")

    @model_validator(mode="after")
    def _is_one(self) -> SecretReference:
        if sum(way is not None for way in (self.file, self.env, self.credential)) != 1:
            raise ValueError('should be one of { file = "…" }, { env = "…" }, { credential = "…" }')
        if self.file is not None and not self.file.is_absolute():
            raise ValueError("file should be an absolute path")
        return self

    def __str__(self) -> str:
        """The place of the secret, for errors."""
        if self.file is not None:
            return str(self.file)
        return f"${self.env}" if self.env is not None else f"credential {self.credential}"

    def read(self) -> str:
        """The secret, without the newline at its end.

        Raises StoreRefused with the mistake, and never with the content; StoreUnavailable
        while it is empty.
        """
        secret = self._content().removesuffix("\n").removesuffix("\r")
        if not secret:
            # A file that is just being rewritten is empty for a moment, so this may pass.
            raise StoreUnavailable(str(self), "holds no secret: it is empty")
        if not secret.isprintable():
            raise StoreRefused(str(self), "should hold one line of text")
        return secret

    def _content(self) -> str:
        if self.file is not None:
            return self._of_file(self.file, private=True)
        if self.credential is not None:
            return self._of_credential(self.credential)
        try:
            return os.environ[str(self.env)]
        except KeyError:
            raise StoreRefused(str(self), "is not set in the environment") from None

    def _of_credential(self, name: str) -> str:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if folder is None:
            reason = "only a systemd service with LoadCredential= has credentials"
            raise StoreRefused(str(self), reason)
        # systemd guards the folder.  It lets the service in by an ACL, which shows in the mode as
        # permissions of the group, so that the mode cannot be checked.
        return self._of_file(Path(folder, name), private=False)

    def _of_file(self, path: Path, private: bool) -> str:
        try:
            # O_NONBLOCK: open(2) of a FIFO would wait for a writer.
            with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                self._refuse_unless_fit(file.fileno(), private)
                return file.read(_MAX_SIZE).decode()
        except OSError as error:
            raise StoreRefused(str(self), f"cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            # `from None`, as the cause quotes the content.
            raise StoreRefused(str(self), "should hold one line of text") from None

    def _refuse_unless_fit(self, fd: int, private: bool) -> None:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_SIZE:
            raise StoreRefused(str(self), "is not a file with one secret in it")
        if private and found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            reason = f"others can read it (mode {mode:04o}): chmod 600, or 400"
            raise StoreRefused(str(self), reason)
