"""The cluster, its recurring jobs, and what answers over HTTP."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from cluster.settings.section import Count, Positive, Section


class ClusterSettings(Section):
    address: str | None = Field(None, description="Ray address to join; null starts one here")
    object_store_bytes: int = Field(512 * 2**20, ge=80 * 2**20, description="object store of a local Ray, bytes")
    cpus: Count | None = Field(None, description="CPUs of a local Ray; null takes what is there")
    dashboard: bool = Field(False, description="dashboard and job server of a local Ray on 127.0.0.1:8265 (about 1 GB)")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="port of a local Ray's metrics for Prometheus; null takes a free one"
    )
    log_to_driver: bool = Field(False, description="print the workers' output in the driver")


class ScheduledJob(Section):
    """A recurring job; exactly one of every_s, at and every_rewards says when."""

    job: str = Field("compose", description="a job that `medley submit` knows")
    arguments: tuple[str, ...] = Field((), description="what follows the job's name")
    every_s: Positive | None = Field(None, description="between two starts, seconds")
    at: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] | None = Field(
        None, description="time of day, HH:MM in UTC"
    )
    every_rewards: Count | None = Field(None, description="final rewards between two starts")

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> "ScheduledJob":
        given = [name for name in ("every_s", "at", "every_rewards") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of every_s, at and every_rewards is needed, found {given or 'none'}")
        return self


class ServeSettings(Section):
    host: str = Field("127.0.0.1", description="address the HTTP server listens on")
    port: int = Field(8000, ge=1, le=65535, description="port of the HTTP server")
    ingress: Literal["haproxy", "default"] = Field("haproxy", description="Ray Serve's ingress")
    replicas: Count = Field(1, description="ingress replicas at the start; more than one needs PostgreSQL")
    max_replicas: Count = Field(1, description="ingress replicas at most; more than one needs PostgreSQL")
    replica_cpus: Positive = Field(0.2, description="CPUs reserved per replica")
    max_batch: Count = Field(1_000, description="requests in one call")
    max_items: Count = Field(10_000, description="candidate items in one request")
    max_body_bytes: Count = Field(
        8 * 2**20, description="largest request body of a key without a limit of its own, bytes"
    )
    rate_per_s: Positive | None = Field(
        None,
        description="requests inside calls that a key without a limit of its own may send to a replica in a second; "
        "null: no limit",
    )
    burst: Count | None = Field(None, description="of these, those that may come at once; null: a second of the rate")
    publications_per_s: Positive = Field(5.0, description="most publications of the learner in a second")
    history_bytes: Count = Field(256 * 2**20, description="memory for user histories in a replica, bytes")
    retrieve_above: Count = Field(
        2_000, description="items of a catalogue above which a decision on all of it scores a part that is retrieved"
    )
    retrieve: Count = Field(64, description="items of that part that are there by the blended mean; others join them")
    budget_ms: Positive = Field(
        250.0,
        description="from a call's arrival until its decisions must be made, per request of it, milliseconds; who "
        "misses it gets the caller's own choice (a request's own `budget_ms` counts before this)",
    )
    generate_ms: float = Field(
        5.0,
        ge=0,
        description="longest wait for the language model to read an unknown user's context, milliseconds of budget_ms; "
        "what comes later is there for the next decision in that context. 0: it never reads",
    )
    content_ms: float = Field(
        500.0,
        ge=0,
        description="longest wait of a call for predictions until content that is sent along is read, milliseconds "
        "for each content without an embedding; what is not read is predicted without neighbours. 0: nobody reads it",
    )
    small_call: Count = Field(8, description="requests of a call up to which its time counts for target_p95_ms")
    models_batch: Count = Field(
        32, description="requests of one call from which on model replicas decide a share of it"
    )
    models_replicas: Count = Field(1, description="model replicas at the start and at least")
    models_max_replicas: Count = Field(2, description="model replicas at most")
    keys_refresh_s: Positive = Field(10.0, description="age at which a cached API key is looked up again, seconds")
    versions_kept: Count = Field(
        4, description="versions in a replica's memory: the newest, and those at which clients are held"
    )
    versions_refresh_s: Positive = Field(2.0, description="between two looks for a new version, seconds")
    checkpoint_s: Positive = Field(15.0, description="between two checkpoints of a learner, seconds")
    drain_s: Positive = Field(15.0, description="longest wait for calls in work when a replica ends, seconds")
    target_p95_ms: Positive = Field(
        100.0, description="95th percentile of calls for decisions above which ingress replicas are added, milliseconds"
    )
    scale_down_after_s: Positive = Field(30.0, description="of lower need before replicas are given up, seconds")
    slow_ms: Positive = Field(1_000.0, description="time of a call above which its decisions are logged, milliseconds")
    log_decisions: bool = Field(False, description="log every decision, a JSON line each")
