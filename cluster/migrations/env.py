"""Run by Alembic: applies the migrations on the connection that `cluster.database.upgrade` opened."""

from alembic import context
from sqlalchemy import text

from cluster.tables import Base

connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":
    connection.execute(text("SELECT pg_advisory_xact_lock(6872063427)"))  # one migration at a time
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
context.run_migrations()
