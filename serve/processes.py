"""The processes of Ray beside Serve: the learner, the reader of contexts, and the one for content. Each is found by its
name, and made where it is not there.

What they do is a plain class elsewhere. The last two load torch when they first need it; no other process here does.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from actors.content.contents import Content
from actors.content.embedding import Embedded
from actors.content.served import Served
from actors.content.vectors.entry import Entry, Neighbours, Vectors
from actors.features.features import Floats
from cluster.config import Settings
from serve.decisions.histories import Missed, Recalled
from serve.decisions.reading import Generator, Told
from serve.learning.service import LearnerService, News
from serve.observed import logs
from serve.observed.prometheus import Exporter

NAMESPACE = "medley"
HEAD = "node:__internal_head__"
EMBED = "embed"
_SAVE_S = 10.0
_APPLY_S = 60.0
"""For the vector store to take in what items' outcomes taught; then it is told again."""


class LearnerProcess(LearnerService):
    """The learner as a process of Ray: what it counts and logs can be seen."""

    def __init__(self, settings: dict[str, Any], name: str) -> None:
        logs.install()
        known = Settings.model_validate(settings)
        super().__init__(settings, name, lambda: ContentActor(known, name))
        self._exporter = Exporter(self.metrics)


class LearnerActor:
    """The learner by its name; made where it is not there. Calls await, they never block."""

    def __init__(self, settings: Settings, name: str) -> None:
        actor: Any = ray.remote(LearnerProcess).options(
            name=learner_name(settings, name),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            num_cpus=0.1,
            resources=pinned(settings),
        )
        self._actor: Any = actor.remote(settings.model_dump(mode="json"), name)

    async def wait(self, fence: int, number: int) -> News:
        news: News = await self._actor.wait.remote(fence, number)
        return news

    async def recall(self, missed: Sequence[Missed]) -> list[Recalled]:
        found: list[Recalled] = await self._actor.recall.remote(missed)
        return found

    async def publications(self, client: str | None, version: int | None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = await self._actor.publications.remote(client, version)
        return rows


class ReaderProcess:
    """A generator's language model that reads contexts, as a process of Ray: no other process of Serve loads torch."""

    def __init__(self, registry: str, threads: int) -> None:
        logs.install()
        from actors.generator.reading import ContextReader

        self._reader = ContextReader(registry, threads)

    def codes(self, generator: Generator, told: Sequence[Told]) -> Floats:
        return self._reader.codes(generator, told)


class ReaderActor:
    """It by its name; made where it is not there, and gone with the process that made it. Calls await."""

    def __init__(self, settings: Settings) -> None:
        actor: Any = ray.remote(ReaderProcess).options(
            name=f"medley-reader-{_digest(settings.registry_uri)}",
            namespace=NAMESPACE,
            get_if_exists=True,
            num_cpus=0.1,
            num_gpus=settings.generator.gpus,
            resources=pinned(settings),
        )
        self._actor: Any = actor.remote(settings.registry_uri, settings.generator.threads)

    async def codes(self, generator: Generator, told: Sequence[Told]) -> Floats:
        found: Floats = await self._actor.codes.remote(generator, list(told))
        return found


class ContentProcess:
    """What reads inline content and keeps the vector stores, as a process of Ray."""

    def __init__(self, settings: dict[str, Any], name: str) -> None:
        logs.install()
        from actors.content.service import ContentService

        self._service = ContentService(Settings.model_validate(settings), name)

    def embed(self, version: int, contents: Sequence[Content]) -> Embedded | None:
        return self._service.embed(version, contents)

    def apply(self, client: str, version: int, served: list[Served]) -> str | None:
        return self._service.apply(client, version, served)

    def neighbours(
        self, client: str, version: int, query_QE: Vectors, provider_id: str | None, k: int
    ) -> tuple[list[Neighbours], dict[str, Entry]]:
        return self._service.neighbours(client, version, query_QE, provider_id, k)

    def get(self, client: str, version: int, item_ids: Sequence[str]) -> dict[str, Entry]:
        return self._service.get(client, version, item_ids)

    def stop(self) -> None:
        self._service.stop()


class ContentActor:
    """It by its name; made where it is not there. Calls of `embed` await, all others block."""

    def __init__(self, settings: Settings, name: str) -> None:
        remote: Any = ray.remote  # its types know no concurrency groups
        actor: Any = remote(concurrency_groups={EMBED: 1})(ContentProcess).options(
            name=content_name(settings, name),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=3,  # of the stores' calls, which do not queue behind content that is to be read
            num_cpus=0.1,
            resources={HEAD: 0.001},  # the stores are folders under the home
        )
        self._actor: Any = actor.remote(settings.model_dump(mode="json"), name)

    async def embed(self, version: int, contents: Sequence[Content]) -> Embedded | None:
        found: Embedded | None = await self._actor.embed.options(concurrency_group=EMBED).remote(
            version, list(contents)
        )
        return found

    def apply(self, client: str, version: int, served: list[Served]) -> str | None:
        begun: str | None = ray.get(self._actor.apply.remote(client, version, served), timeout=_APPLY_S)
        return begun

    def neighbours(
        self, client: str, version: int, query_QE: Vectors, provider_id: str | None, k: int
    ) -> tuple[list[Neighbours], dict[str, Entry]]:
        """The entries nearest to each query, as the store's `search` finds them, and what is stored of them."""
        found: tuple[list[Neighbours], dict[str, Entry]] = ray.get(
            self._actor.neighbours.remote(client, version, query_QE, provider_id, k)
        )
        return found

    def get(self, client: str, version: int, item_ids: Sequence[str]) -> dict[str, Entry]:
        found: dict[str, Entry] = ray.get(self._actor.get.remote(client, version, item_ids))
        return found


def end_detached(settings: Settings, name: str) -> None:
    """End the learner and the content process that run with older settings; the next ones go on from what they have
    stored and the journal."""
    for full in (learner_name(settings, name), content_name(settings, name)):
        try:
            actor: Any = ray.get_actor(full, namespace=NAMESPACE)
        except ValueError:
            continue
        with contextlib.suppress(RayError):  # without its last checkpoint the next one reads more of the journal
            ray.get(actor.stop.remote(), timeout=_SAVE_S)
        ray.kill(actor)


def learner_name(settings: Settings, name: str) -> str:
    """One learner per home, database, registry and name of versions."""
    return f"medley-learner-{_place(settings, name)}"


def content_name(settings: Settings, name: str) -> str:
    """One content process for the same."""
    return f"medley-content-{_place(settings, name)}"


def _place(settings: Settings, name: str) -> str:
    return _digest(f"{settings.home}|{settings.database_url}|{settings.registry_uri}|{name}")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def pinned(settings: Settings) -> dict[str, float]:
    """SQLite's files are on the head node, and so is whoever opens them."""
    return {} if settings.postgres else {HEAD: 0.001}
