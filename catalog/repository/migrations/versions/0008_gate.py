"""Which format gate has accepted an image's data"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    # Null for all that is there: an earlier gate has accepted it.
    op.add_column("images", sa.Column("gate", sa.Integer()))
