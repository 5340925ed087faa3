"""Providers and their clusters in the database, as `tune.regroup` last published them for each name of versions.

The log of moves in the registry is what counts; this is its last state, for whoever asks the database.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import delete, select

from cluster.config import Settings
from cluster.database import Database, upgrade, url_of
from cluster.tables import Cluster, Provider


@dataclass(frozen=True)
class Placed:
    """A provider's cluster; version: of the regrouping."""

    name: str
    provider: str
    cluster: str
    version: int


class Providers:
    """Every method may raise DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, name: str, version: int, cluster_of: Mapping[str, str]) -> None:
        """Put these providers in the place of those that were there for `name`."""
        prefix = f"{name}/"
        with self._database.session() as session:
            session.execute(delete(Provider).where(Provider.id.startswith(prefix, autoescape=True)))
            session.execute(delete(Cluster).where(Cluster.id.startswith(prefix, autoescape=True)))
            clusters = sorted(set(cluster_of.values()))
            session.add_all(Cluster(id=prefix + cluster, facts={"version": version}) for cluster in clusters)
            session.flush()
            session.add_all(Provider(id=prefix + p, cluster_id=prefix + c) for p, c in sorted(cluster_of.items()))

    def placed(self) -> list[Placed]:
        """All of them, by name, cluster and provider."""
        with self._database.session() as session:
            rows = session.execute(select(Provider.id, Cluster.id, Cluster.facts).join(Cluster)).all()
        found = [(provider.partition("/"), cluster.partition("/")[2], facts) for provider, cluster, facts in rows]
        placed = [Placed(name, provider, cluster, facts["version"]) for (name, _, provider), cluster, facts in found]
        return sorted(placed, key=lambda row: (row.name, row.cluster, row.provider))


@contextmanager
def opened(settings: Settings) -> Iterator[Providers]:
    """Those of a home, its schema brought up to date."""
    upgrade(url_of(settings))
    with Database(url_of(settings)) as database:
        yield Providers(database)
