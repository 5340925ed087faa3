"""The tables of the metadata database. A change here comes with a migration in cluster/migrations/versions."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    LargeBinary,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Moment(TypeDecorator[datetime]):
    """A moment in UTC; SQLite keeps no zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value
        return None


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Columns shared by all: when the row was made."""

    created_at: Mapped[datetime] = mapped_column(Moment, default=now)


class Client(Base):
    """A tenant: its traffic has its own version, weights, keys and quotas.

    mode: who answers (`cluster.config.ClientMode`). version: the one that it is held at, None follows the newest.
    """

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    mode: Mapped[str] = mapped_column(String(16), default="live", server_default="live")
    version: Mapped[int | None]


class Key(Base):
    """An API key; only a salted hash of its secret is kept. An operator's key has no client.

    rate_per_s, burst, max_body_bytes: its limits; None is what the settings say.
    """

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    client_id: Mapped[str | None] = mapped_column(ForeignKey("clients.id"), index=True)
    salt: Mapped[bytes] = mapped_column(LargeBinary(16))
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    ends_at: Mapped[datetime | None] = mapped_column(Moment)
    rate_per_s: Mapped[float | None] = mapped_column(Double)
    burst: Mapped[int | None]
    max_body_bytes: Mapped[int | None]


class Cluster(Base):
    """A group of providers that share models."""

    __tablename__ = "clusters"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class Provider(Base):
    """Who content comes from."""

    __tablename__ = "providers"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    cluster_id: Mapped[str | None] = mapped_column(ForeignKey("clusters.id"), index=True)


class Profile(Base):
    """A client's usage in summary statistics, never rows."""

    __tablename__ = "profiles"

    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class Version(Base):
    """A published version: where it lies is the registry's business, what it is and whose stands here."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("name", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    number: Mapped[int]
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class Rollout(Base):
    """The release of a version to a client."""

    __tablename__ = "rollouts"
    __table_args__ = (UniqueConstraint("client_id", "version_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"))
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    state: Mapped[str] = mapped_column(String(32))
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    changed_at: Mapped[datetime] = mapped_column(Moment, default=now)


class Schedule(Base):
    """A recurring job's state. Who holds the lease runs it; a lease that ran out belongs to nobody."""

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    paused: Mapped[bool] = mapped_column(default=False)
    wanted: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    ended_at: Mapped[datetime | None] = mapped_column(Moment)
    code: Mapped[int | None]
    rewards: Mapped[int] = mapped_column(BigInteger, default=0)
    owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(Moment)
