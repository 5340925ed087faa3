"""Clients have a mode, and may be held at one version."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("clients", sa.Column("mode", sa.String(16), nullable=False, server_default="live"))
    op.add_column("clients", sa.Column("version", sa.Integer))


def downgrade() -> None:
    op.drop_column("clients", "version")
    op.drop_column("clients", "mode")
