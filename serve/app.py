"""Configuration -> Serve application. The only place of `serve.deployment`.

    serve run serve.app:build config=/path/settings.yaml registry_name=medley

`serve.deploy` starts the same application with the HAProxy ingress; `serve/serve.yaml` declares it.
"""

import asyncio
import gc
import logging
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from cluster import config
from cluster.config import ServeSettings, Settings
from cluster.database import upgrade, url_of
from cluster.errors import RequestError
from cluster.journal.journal import DecisionRecord, Journal, journal_url
from cluster.registry import DEFAULT_NAME
from serve.assembly import assemble
from serve.decisions.asked import Bundle
from serve.observed import logs
from serve.observed.prometheus import Exporter
from serve.processes import ContentActor, LearnerActor, ReaderActor, pinned
from serve.replica import Replica

logger = logging.getLogger(__name__)

_REPORT_S, _LOOK_BACK_S = 2.0, 10.0
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
        return self._parts.app

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
        ray_actor_options={"num_cpus": options.replica_cpus, "resources": pinned(settings)},
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
