"""What all parts of the repository share: the connection and the change feed's pen."""

from __future__ import annotations

from sqlalchemy import Connection

from catalog.image import ChangeKind, now
from catalog.models import changes


class Rows:
    """Statements over one connection with a transaction open."""

    def __init__(self, connection: Connection, origin: str) -> None:
        """`origin` names this process in the change feed."""
        self.connection = connection
        self.origin = origin

    def tell(
        self,
        kind: ChangeKind,
        *,
        image: int | None = None,
        folder: int | None = None,
        name: str | None = None,
    ) -> None:
        """Append to the change feed, in the transaction of the change itself."""
        self.connection.execute(
            changes.insert().values(
                kind=kind, image=image, folder=folder, name=name, origin=self.origin, at=now()
            )
        )
