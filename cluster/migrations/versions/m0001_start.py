"""Clients, keys, providers, clusters, profiles, versions, rollouts."""

import sqlalchemy as sa
from alembic import op

from cluster.tables import Moment

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("clients", sa.Column("id", sa.String(128), primary_key=True), _made())
    op.create_table(
        "keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("client_id", sa.String(128), sa.ForeignKey("clients.id"), index=True),
        sa.Column("salt", sa.LargeBinary(16), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("ends_at", Moment()),
        _made(),
    )
    op.create_table("clusters", sa.Column("id", sa.String(128), primary_key=True), _facts(), _made())
    op.create_table(
        "providers",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("cluster_id", sa.String(128), sa.ForeignKey("clusters.id"), index=True),
        _made(),
    )
    op.create_table(
        "profiles",
        sa.Column("client_id", sa.String(128), sa.ForeignKey("clients.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        _facts(),
        _made(),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        _facts(),
        _made(),
        sa.UniqueConstraint("name", "number"),
    )
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("client_id", sa.String(128), sa.ForeignKey("clients.id"), nullable=False),
        sa.Column("version_id", sa.Integer, sa.ForeignKey("versions.id"), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        _facts(),
        sa.Column("changed_at", Moment(), nullable=False),
        _made(),
        sa.UniqueConstraint("client_id", "version_id"),
    )


def downgrade() -> None:
    for table in ("rollouts", "versions", "profiles", "providers", "clusters", "keys", "clients"):
        op.drop_table(table)


def _facts() -> "sa.Column[object]":
    return sa.Column("facts", sa.JSON, nullable=False)


def _made() -> "sa.Column[object]":
    return sa.Column("created_at", Moment(), nullable=False)
