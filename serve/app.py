"""Configuration -> Serve application. The only place of `serve.deployment` and of the learner's actor.

    serve run serve.app:build config=/path/settings.yaml registry_name=medley

`serve.deploy` starts the same application with the HAProxy ingress; `serve/serve.yaml` declares it.
"""

import asyncio
import contextlib
import gc
import hashlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from actors.content.contents import Content
from actors.content.embedding import Embedded
from actors.content.served import Served
from actors.content.vectors.entry import Entry, Neighbours, Vectors
from actors.features.features import Floats
from cluster import config
from cluster.config import ServeSettings, Settings
from cluster.database import upgrade, url_of
from cluster.errors import RequestError
from cluster.journal.journal import DecisionRecord, Journal, journal_url
from cluster.registry import DEFAULT_NAME
from serve.assembly import assemble
from serve.decisions.asked import Bundle
from serve.decisions.histories import Missed, Recalled
from serve.decisions.reading import Generator, Told
from serve.learning.service import LearnerService, News
from serve.observed import logs
from serve.observed.prometheus import Exporter
from serve.replica import Replica

logger = logging.getLogger(__name__)

NAMESPACE = "medley"
HEAD = "node:__internal_head__"
_REPORT_S, _LOOK_BACK_S = 2.0, 10.0
_SAVE_S = 10.0
EMBED = "embed"
_APPLY_S = 60.0
"""For the vector store to take in what items' outcomes taught; then it is told again."""
QUIET = {"enable_access_log": False}
"""Ray's line for every call; `serve.observed.watch` counts them all and logs what is worth a line."""
HEALTH_S = 1.0
"""Between two looks at a replica: a killed one is replaced that much later (Serve's own default is 10)."""


class Arguments(BaseModel):
    """What `serve run` and a declarative configuration pass.

    config: absolute path of a settings file; the defaults and the environment without one.
    """

    model_config = ConfigDict(extra="forbid")

    config: str | None = None
    registry_name: str = DEFAULT_NAME


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
            resources=_pinned(settings),
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
            resources=_pinned(settings),
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


class ModelReplicas:
    """The `models` deployment as a gateway sees it."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def decide(self, bundle: Bundle) -> list[DecisionRecord] | None:
        records: list[DecisionRecord] | None
        try:
            records = await self._handle.decide.remote(bundle)
        except RequestError as error:  # Ray's wrapper of it: the same class, with the remote trace as its text
            raise RequestError(error.loc, error.message, error.status) from error
        except (RayError, RayServeException) as error:
            logger.warning("no model replica answers (%s); the gateway decides", error)
            return None
        return records


class ModelDeployment:
    """Decides large batches; the gateway makes them durable. It scales on either database."""

    async def __init__(self, settings: dict[str, Any], name: str) -> None:  # type: ignore[misc]  # Serve awaits it
        logs.install()
        known = Settings.model_validate(settings)
        self._replica = Replica(known, name, lambda: LearnerActor(known, name))
        self._in_work = 0
        await self._replica.start()
        gc.freeze()  # else a full collection looks at 200,000 objects of libraries, while no decision is made

    async def decide(self, bundle: Bundle) -> list[DecisionRecord] | None:
        """None where the gateway knows more of the client's catalogue; raises RequestError like the engine."""
        self._in_work += len(bundle.ids)
        try:
            if not await self._replica.catch_up(bundle.client, bundle.revision):
                return None
            return self._replica.engine.decide_many(bundle.asked())
        finally:
            self._in_work -= len(bundle.ids)

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {"contexts_in_work": float(self._in_work)}


class IngressDeployment:
    """Answers HTTP and alone writes the journal (with SQLite)."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: dict[str, Any], name: str, models: DeploymentHandle[Any]
    ) -> None:
        logs.install()
        known = Settings.model_validate(settings)
        learner, reader = partial(LearnerActor, known, name), partial(ReaderActor, known)
        content = partial(ContentActor, known, name)
        self._parts = assemble(known, name, learner, ModelReplicas(models), reader, content)
        await self._parts.replica.start()
        gc.freeze()  # as above
        self._exporter = Exporter(self._parts.metrics)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._parts.gateway.app

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {
            "contexts_in_work": float(self._parts.gateway.in_work),
            "p95_ms": self._parts.metrics.p95_ms(),
            "lag_s": self._parts.replica.lag_s,
        }

    async def __del__(self) -> None:
        """Serve awaits this at a replica's end, when Serve itself lets no more calls in."""
        await self._parts.stop()
        await asyncio.to_thread(self._exporter.stop)


def build(arguments: Arguments) -> ray_serve.Application:
    """The application of `serve run serve.app:build` and of serve/serve.yaml."""
    return application(config.load(Path(arguments.config) if arguments.config else None), arguments.registry_name)


def application(settings: Settings, name: str) -> ray_serve.Application:
    """Gateway and model replicas, autoscaled by `serve.autoscaling`. Makes the databases where they are not."""
    prepare(settings)
    facts = settings.model_dump(mode="json")
    options = settings.serve
    models: Any = ray_serve.deployment(
        ModelDeployment,
        name="models",
        logging_config=QUIET,
        ray_actor_options={"num_cpus": options.replica_cpus},
        max_ongoing_requests=4,
        health_check_period_s=HEALTH_S,
        autoscaling_config=_scaling(options, options.models_replicas, options.models_max_replicas),
    )
    gateway: Any = ray_serve.deployment(
        ray_serve.ingress()(IngressDeployment),
        name="gateway",
        logging_config=QUIET,
        ray_actor_options={"num_cpus": options.replica_cpus, "resources": _pinned(settings)},
        max_ongoing_requests=1_000,
        health_check_period_s=HEALTH_S,
        autoscaling_config=_scaling(options, options.replicas, options.max_replicas, options.target_p95_ms),
    )
    bound: ray_serve.Application = gateway.bind(facts, name, models.bind(facts, name))
    return bound


def prepare(settings: Settings) -> None:
    """Bring the metadata database and the journal up to date, before any process of Serve uses them."""
    settings.home.mkdir(parents=True, exist_ok=True)
    upgrade(url_of(settings))
    Journal(journal_url(settings), settings.rewards).close()


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


def _scaling(options: ServeSettings, least: int, most: int, target_p95_ms: float | None = None) -> AutoscalingConfig:
    rule = {"target_p95_ms": target_p95_ms, "down_after_s": options.scale_down_after_s}
    return AutoscalingConfig(
        min_replicas=least,
        initial_replicas=least,
        max_replicas=max(least, most),
        metrics_interval_s=_REPORT_S,
        look_back_period_s=_LOOK_BACK_S,
        upscale_delay_s=0.0,  # Ray would wait 30 s, and 600 s to go down, after our policy has decided
        downscale_delay_s=0.0,
        policy=AutoscalingPolicy(policy_function="serve.autoscaling:Policy", policy_kwargs=rule),
    )


def _pinned(settings: Settings) -> dict[str, float]:
    """SQLite's files are on the head node, and so is whoever opens them."""
    return {} if settings.postgres else {HEAD: 0.001}
