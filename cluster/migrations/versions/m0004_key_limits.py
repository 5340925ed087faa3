"""Keys have limits of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("keys", sa.Column("rate_per_s", sa.Double))
    op.add_column("keys", sa.Column("burst", sa.Integer))
    op.add_column("keys", sa.Column("max_body_bytes", sa.Integer))


def downgrade() -> None:
    for column in ("max_body_bytes", "burst", "rate_per_s"):
        op.drop_column("keys", column)
