"""The parts of an ingress process put together: the same for a Serve replica, a test and a benchmark."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI

from cluster.config import Settings
from cluster.database import Database, url_of
from cluster.journal.journal import Journal, Reader, journal_url
from cluster.keys import Keys
from cluster.tenants import tenant
from serve.decisions.deciding import Deciding, Models
from serve.decisions.reading import Model, Reading
from serve.durable import Durable
from serve.gateway import Gateway
from serve.http.access import Access
from serve.http.rewards import Rewarding
from serve.http.routes import application
from serve.ids import DecisionIds
from serve.observed.metrics import Metrics
from serve.predicting.encoding import ContentReader, Encoding
from serve.predicting.predicting import Predicting
from serve.replica import Learner, Replica


@dataclass(frozen=True)
class Assembly:
    """`app` answers HTTP once `replica.start()` has been awaited."""

    replica: Replica
    journal: Journal
    gateway: Gateway
    app: FastAPI
    metrics: Metrics
    deciding: Deciding
    reading: Reading | None
    predicting: Predicting
    encoding: Encoding | None

    async def stop(self) -> None:
        """Answer the calls that are here, then commit what waits, then end."""
        await self.gateway.edge.drain(self.replica.settings.serve.drain_s)
        await self.replica.stop()
        if self.reading is not None:
            await self.reading.stop()
        if self.encoding is not None:
            await self.encoding.stop()
        self.deciding.close()
        self.predicting.close()
        await asyncio.to_thread(self.journal.close)


def assemble(
    settings: Settings,
    name: str,
    learner: Callable[[], Learner],
    models: Models | None = None,
    reader: Callable[[], Model] | None = None,
    content: Callable[[], ContentReader] | None = None,
    close_every_s: float = 0.1,
) -> Assembly:
    """Open the journal and wire the parts.

    Args:
        settings, name, learner: as in `Replica`.
        models: as in `Deciding`.
        reader: as in `Reading`; None, or `serve.generate_ms` of 0: nobody reads.
        content: as in `Encoding`; None, or `serve.content_ms` of 0: nobody reads inline content.
        close_every_s: as in `Journal`.

    Raises:
        JournalError: the journal cannot be opened.
    """
    replica = Replica(settings, name, learner)
    journal = Journal(journal_url(settings), settings.rewards, close_every_s=close_every_s)
    metrics, ids = replica.metrics, DecisionIds(journal.secret)
    durable = Durable(journal, metrics)
    wait_ms = settings.serve.generate_ms
    reading = Reading(reader, metrics, wait_ms) if reader is not None and wait_ms else None
    deciding = Deciding(replica.engine, Reader(journal_url(settings)), settings.serve, models, reading)
    content_ms = settings.serve.content_ms
    encoding = Encoding(content, metrics, content_ms) if content is not None and content_ms else None
    predicting = Predicting(replica.engine, metrics, settings.serve.budget_ms, encoding, reading)
    keys = Keys(Database(url_of(settings)))
    gateway = Gateway(
        engine=replica.engine,
        journal=journal,
        durable=durable,
        ids=ids,
        access=Access(keys.ring, settings.serve.keys_refresh_s),
        metrics=metrics,
        link=replica,
        versions=lambda: replica.releases.listed(replica.engine.number),
        tenant=partial(tenant, keys, journal_url(settings)),
        rewarding=Rewarding(ids, settings.rewards, journal, durable, metrics),
        deciding=deciding,
        predicting=predicting,
        settings=settings.serve,
    )
    return Assembly(replica, journal, gateway, application(gateway), metrics, deciding, reading, predicting, encoding)
