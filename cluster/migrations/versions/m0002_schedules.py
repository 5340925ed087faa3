"""Schedules."""

import sqlalchemy as sa
from alembic import op

from cluster.tables import Moment

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("wanted", sa.Boolean, nullable=False),
        sa.Column("started_at", Moment()),
        sa.Column("ended_at", Moment()),
        sa.Column("code", sa.Integer),
        sa.Column("rewards", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("lease_until", Moment()),
        sa.Column("created_at", Moment(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("schedules")
