"""One YAML file -> `Settings`. Every field has a default, a unit in its name or text, and a description.

Precedence: environment (`MEDLEY_HOME`, `MEDLEY_DATABASE_URL`) over the file over the defaults.
A component takes the section that it needs, never the whole.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import ConfigError, StateError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
ClientMode: TypeAlias = Literal["live", "shadow", "apprentice", "off"]
"""Who answers a client's calls, and what is learned of them (docs/serving.md, "Modes")."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ClusterSettings(Section):
    address: str | None = Field(None, description="Ray address to join; null starts one here")
    object_store_bytes: int = Field(512 * 2**20, ge=80 * 2**20, description="object store of a local Ray, bytes")
    cpus: Count | None = Field(None, description="CPUs of a local Ray; null takes what is there")
    dashboard: bool = Field(False, description="dashboard and job server of a local Ray on 127.0.0.1:8265 (about 1 GB)")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="port of a local Ray's metrics for Prometheus; null takes a free one"
    )
    log_to_driver: bool = Field(False, description="print the workers' output in the driver")


class DialSettings(Section):
    """What makes the truth of the built-in marketplace harder, in its log and in its world (docs/worlds.md)."""

    seasonal: float = Field(0.5, ge=0, description="logits by which tastes for styles sway over the days")
    fashion: float = Field(0.7, ge=0, description="logits that one style gains and another loses at 60 % of the days")
    fashion_span: Share = Field(0.1, description="share of the days that this takes; 0 is at once")
    late: Share = Field(0.15, description="share of items launched within the days")
    leaving: Share = Field(0.0, description="share of items withdrawn within the days")
    non_responders: Share = Field(0.0, description="share of users who never answer")
    examination: tuple[Share, ...] = Field(
        (),
        description="probability that position 0, 1, ... is looked at; logged events then stand at one of them, drawn "
        "uniformly; empty is one position, always looked at",
    )
    delay_scale: float = Field(1.0, ge=0, description="factor on delays of rewards")
    delay_shape: Positive = Field(0.6, description="Weibull shape of delays: the smaller, the heavier the tail")


class DataSettings(Section):
    max_events: Count = Field(50_000, description="events kept for a run: the most recent; of a table a sample")
    max_line_bytes: Count = Field(1_000_000, description="longest line accepted in a text file, bytes")
    candidates: Annotated[int, Field(ge=2)] | Literal["all"] = Field(
        10, description="candidates per decision made from transactions; all is the whole catalogue"
    )
    marketplace_users: Count = Field(2_000, description="synthetic users of the built-in marketplace")
    marketplace_items: Count = Field(120, description="synthetic items of the built-in marketplace")
    marketplace_events: Count = Field(30_000, description="logged events of the built-in marketplace")
    dials: DialSettings = DialSettings()


class Budgets(Section):
    """Seconds a stage of `medley run` may take; a stage says what it left out when its time is spent."""

    import_s: Positive = Field(20, description="import, seconds")
    backbone_s: Positive = Field(60, description="language model pre-training, seconds")
    head_s: Positive = Field(30, description="generator head, seconds")
    select_s: Positive = Field(20, description="predefined members' walk along the select part, seconds")
    sweep_s: Positive = Field(60, description="Ray Tune sweep over candidates, seconds")
    confirm_s: Positive = Field(15, description="confirmation walk, seconds")
    drive_s: Positive = Field(45, description="traffic over HTTP, seconds")


class RewardKind(Section):
    window_s: Positive = Field(1_800.0, description="wait before an unanswered decision is final, seconds")
    default: float = Field(0.0, description="reward when the window closes without one")
    reducer: Literal["first", "last", "sum", "mean", "max", "min"] = Field(
        "first", description="how several rewards of one decision become one"
    )
    low: float = Field(0.0, description="least possible reward")
    high: float = Field(1.0, description="greatest possible reward")

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> "RewardKind":
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class MetricSettings(Section):
    """What a decision earns (docs/metric.md). All but `reward` give values in [0, 1]."""

    kind: Literal["reward", "click_through", "conversion", "session_length", "mix"] = Field(
        "reward", description="the log's reward as it is, or what is made of its rows"
    )
    clicks: tuple[str, ...] = Field(("click",), min_length=1, description="reward kinds of the log that are clicks")
    conversions: tuple[str, ...] = Field(
        ("purchase",), min_length=1, description="reward kinds of the log that are conversions"
    )
    gap_minutes: Annotated[float, Field(gt=0, le=10_080)] = Field(
        30.0, description="pause of a user that ends a session where the log names none, minutes"
    )
    weights: dict[Literal["click_through", "conversion", "session_length"], Positive] = Field(
        {"click_through": 1.0, "conversion": 1.0},
        min_length=1,
        description="what a mix is made of; the weights are scaled to sum to 1",
    )


class LawSettings(Section):
    """The law of a decision (docs/law.md)."""

    particles: Count = Field(64, description="joint posterior draws per decision")
    exploration_scale: Positive = Field(1.0, description="alpha, factor on posterior standard deviations")
    epsilon: Annotated[float, Field(gt=0, lt=1)] = Field(0.01, description="share of uniform choices")
    delta: Share = Field(0.1, description="share given to members one by one rather than blended")
    floor: Share = Field(0.1, description="F, uniform share among members in the delta part")


class WeightSettings(Section):
    """The weight of a model (docs/law.md)."""

    eta: Positive = Field(3.0, description="logit per standard error of performance")
    least_error: Positive = Field(0.01, description="s_min, in units of the reward's range")
    prior_count: Positive = Field(1_000.0, description="decisions that the prior value counts for")
    half_life_decisions: Positive = Field(10_000.0, description="age at which an outcome counts half")
    predefined_floor: Share = Field(0.01, description="least weight of each predefined member")
    neighbour_scale: float = Field(1.0, ge=0, description="beta, logit per log neighbour share (system B)")


class FeatureSettings(Section):
    kind: Literal["auto", "joint", "arms"] = Field(
        "auto",
        description="joint features of context and item, or context features with parameters per item",
    )
    map: Literal["auto", "linear", "quadratic", "fourier", "neural", "hashed"] = Field(
        "auto", description="what stands beside or in place of the base features (docs/features.md)"
    )
    map_width: Count | None = Field(None, description="features that the map makes; null takes its own default")
    map_bytes: Count = Field(
        4 * 2**20, description="posterior precision at most, 8 bytes x parameter rows x features squared; caps the map"
    )
    max_dimension: Count = Field(96, description="largest number of features of a decision's row, before the map's")
    levels: Count = Field(24, description="levels kept of a categorical column; the rest share one")
    text_rank: Count = Field(12, description="dimensions of item text after truncated SVD")
    behaviour_rank: Count = Field(12, description="dimensions of item co-occurrence after truncated SVD")


class BanditSettings(Section):
    predefined: tuple[Literal["uniform", "popularity", "linear", "forgetting"], ...] = Field(
        ("uniform", "popularity", "linear", "forgetting"),
        min_length=1,
        description="trusted models of every ensemble",
    )
    custom: tuple[str, ...] = Field((), description="own models as module:Class")
    forgetting_half_life: Positive = Field(20_000.0, description="outcomes after which data counts half")
    prior_strength: Positive = Field(
        1.0, description="factor on the weight of the pooled posterior that shared models start from"
    )
    least_noise: Positive = Field(
        1e-3, description="least noise variance of the pooled model, share of the squared range of rewards"
    )
    history: int = Field(64, ge=0, description="final rewards of a user that a generated prior reads")

    @pydantic.model_validator(mode="after")
    def _named_once(self) -> "BanditSettings":
        names = [*self.predefined, *(source.rpartition(":")[2].lower() for source in self.custom), "generated"]
        again = sorted({name for name in names if names.count(name) > 1})
        if again:
            raise ValueError(
                f"two members named {again[0]!r}; list each predefined model once, and give own classes other names"
            )
        return self


class GeneratorSettings(Section):
    model: str | None = Field(None, description="transformers folder or hub id; null builds the embedded default")
    lora: bool = Field(True, description="tune a given model by LoRA rather than leave it frozen")
    codes: Count = Field(4, description="S, fixed codes per context")
    rank: Count = Field(8, description="rank of the shift U and of the covariance factor V")
    prototypes: Count = Field(12, description="contexts that candidates are generated for")
    tokens: Count = Field(96, description="token budget of a serialised context")
    hidden: Count = Field(96, description="width of the embedded default")
    layers: Count = Field(2, description="layers of the embedded default")
    batch: Count = Field(32, description="texts per forward pass")
    patience: Count = Field(8, description="held-out checks without gain before the head stops")
    actors: Count = Field(1, description="generation actors")
    gpus: float = Field(0.0, ge=0, description="GPU share per generation actor, 0 for CPU")
    exploration: float = Field(
        0.0, ge=0, description="factor on the member's deviations; 0 leaves exploring to the shared members"
    )
    context_temperature: Positive = Field(0.1, description="tau_c of context similarity in the mixture")
    context_rank: Count = Field(16, description="dimensions of context embeddings in head and mixture")
    tasks: Count = Field(4_000, description="users (rows of a table) that head and language model train on")
    threads: Count = Field(1, description="torch threads of a generation process; more than idle cores costs tenfold")
    backbone_steps: Count | None = Field(
        None, description="language model steps at most, repeats a run's bits; null goes by time alone"
    )
    head_steps: Count | None = Field(
        None, description="head steps at most, repeats a run's bits; null goes by time alone"
    )


class SweepSettings(Section):
    batch: Count = Field(16, description="candidates per Ray Tune trial")
    concurrent: Count = Field(1, description="trials at a time")
    top_k: Count = Field(10, description="candidates of the member")
    max_agreement: Share = Field(0.95, description="two members of the top K agree on at most this share")
    particles: int = Field(0, ge=0, description="posterior draws per event of a candidate; 0 chooses greedily")
    trial_cpus: Positive = Field(1.0, description="CPUs of a Ray Tune trial")
    ground_bytes: Count = Field(
        192 * 2**20, description="features that candidates are valued on at most, bytes; whole users are left out"
    )


class TuneSettings(Section):
    """The sweep over settings, `medley tune`."""

    trials: Count = Field(64, description="trials of a search; a grid may have this many points at most")
    events: Count = Field(4_000, description="events of the select part that a trial is scored on, whole users")
    concurrent: Count = Field(2, description="trials at a time")
    trial_cpus: Positive = Field(1.0, description="CPUs of a trial")
    trial_gpus: float = Field(0.0, ge=0, description="GPU share of a trial, 0 for CPU")
    budget_s: Positive | None = Field(
        None, description="time of a sweep, seconds; what it did not reach is left for the same command; null: no limit"
    )
    max_failures: int = Field(3, ge=0, description="times a trial starts again after its worker was lost")


class GateSettings(Section):
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="one-sided error rate of admission, over all ever tested on a data set"
    )
    margin: float = Field(0.01, ge=0, description="loss tolerated before a member is dropped, share of range")
    bootstrap: Count = Field(1_000, description="resamples by user")
    least_users: Count = Field(30, description="confirm users below which nothing is admitted")
    client_users: Count = Field(
        300, description="confirm users from which a client has a verdict of its own; all others share the pooled one"
    )


class DriftSettings(Section):
    """When a change of rewards or contexts is an alarm (docs/refine.md)."""

    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="chance of a false alarm in a year of traffic, however often one looks"
    )
    tolerance: float = Field(0.05, ge=0, description="shift that is no drift, in standard deviations of an event")
    block_users: Annotated[int, Field(ge=30)] = Field(100, description="different users that one look takes in")
    warm_up_days: float = Field(
        7.0, ge=0, description="first stretch, from which what is usual is known, days; less than 7 misses weekdays"
    )


class WorldSettings(Section):
    """How the world that answers simulated traffic departs from its plain form (docs/worlds.md)."""

    drift: Literal["none", "gradual", "abrupt", "seasonal"] = Field(
        "none", description="how the tastes of the world's users move to others while traffic goes on"
    )
    drift_at: Share = Field(0.5, description="moment of an abrupt drift, share of the world's time")
    drift_cycles: Positive = Field(2.0, description="times that a seasonal drift goes there and back")
    churn: Share = Field(0.0, description="share of items that are away for half of the time")
    non_responders: Share = Field(0.0, description="share of users who never answer")
    examination: tuple[Share, ...] = Field(
        (), description="probability that slot 0, 1, ... is looked at, the last for all after it; empty is always"
    )
    slots: Annotated[int, Field(ge=1, le=100)] = Field(1, description="items asked for in each situation")
    delay_median_s: float = Field(0.0, ge=0, description="median of delays added to rewards, seconds; 0 adds none")
    delay_tail: Positive = Field(1.5, description="index of the delays' tail: the smaller, the heavier")


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
    small_call: Count = Field(8, description="requests of a call up to which its time counts for target_p95_ms")
    models_batch: Count = Field(128, description="requests of one call above which the model replicas decide them")
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


class Settings(Section):
    home: Path = Field(Path("~/.medley"), description="absolute folder of all state (MEDLEY_HOME)")
    database_url: str | None = Field(
        None, description="SQLAlchemy URL; null is SQLite under home (MEDLEY_DATABASE_URL)"
    )
    registry: str | None = Field(None, description="URI of published versions; null is a folder under home")
    seed: int = Field(0, description="seed of every random choice")
    reward_kind: str = Field("reward", description="reward kind that models learn from")
    rewards: dict[str, RewardKind] = Field({"reward": RewardKind()}, description="reward kinds by name")
    cluster: ClusterSettings = ClusterSettings()
    data: DataSettings = DataSettings()
    budgets: Budgets = Budgets()
    metric: MetricSettings = MetricSettings()
    law: LawSettings = LawSettings()
    weights: WeightSettings = WeightSettings()
    features: FeatureSettings = FeatureSettings()
    bandits: BanditSettings = BanditSettings()
    generator: GeneratorSettings = GeneratorSettings()
    sweep: SweepSettings = SweepSettings()
    tune: TuneSettings = TuneSettings()
    gate: GateSettings = GateSettings()
    drift: DriftSettings = DriftSettings()
    world: WorldSettings = WorldSettings()
    serve: ServeSettings = ServeSettings()
    schedule: dict[str, ScheduledJob] = Field({}, description="recurring jobs by name (`medley schedule list`)")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.reward_kind not in self.rewards:
            raise ValueError(f"reward_kind {self.reward_kind!r} is not one of rewards {sorted(self.rewards)}")
        if self.metric.kind != "reward" and (self.reward.low, self.reward.high) != (0, 1):
            raise ValueError(
                f"metric.kind = {self.metric.kind!r} gives rewards in [0, 1], and rewards.{self.reward_kind}, which "
                f"models go on learning from, is declared [{self.reward.low:g}, {self.reward.high:g}]; declare it "
                "[0, 1] and send such rewards, or take another reward_kind"
            )
        if max(self.serve.replicas, self.serve.max_replicas) > 1 and not self.postgres:
            raise ValueError(
                "serve.replicas and serve.max_replicas above 1 need PostgreSQL: "
                "set database_url to postgresql+psycopg://..., or keep one replica"
            )
        return self

    @property
    def postgres(self) -> bool:
        return (self.database_url or "").startswith("postgresql")

    @property
    def reward(self) -> RewardKind:
        return self.rewards[self.reward_kind]

    @property
    def registry_uri(self) -> str:
        return self.registry or str(self.home / "registry")

    def folder(self, name: str) -> Path:
        """`home/name`, made if it is not there. Raises StateError where it cannot be."""
        path = self.home / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(f"{path}: cannot be made ({error}); set MEDLEY_HOME to a folder with room") from error
        return path


def load(path: Path | None = None, **overrides: Any) -> Settings:
    """Read settings from a YAML file, the environment and `overrides` (the last wins).

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, of the wrong type or out of range;
            the message names the key, its value and the nearest known key.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = yaml.safe_load(Path(path).read_text()) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot read the configuration: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected keys and values, found {type(values).__name__}")
    for key, variable in (("home", "MEDLEY_HOME"), ("database_url", "MEDLEY_DATABASE_URL")):
        if os.environ.get(variable):
            values[key] = os.environ[variable]
    values |= overrides
    values["home"] = Path(values.get("home", "~/.medley")).expanduser().absolute()
    return _validated(values, f"{path}: " if path else "")


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with other values by dotted path, such as `law.delta`.

    Raises:
        ConfigError: a path is no setting, or a value is of the wrong type or out of range.
    """
    tree = settings.model_dump()
    for path, value in values.items():
        *sections, name = path.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{path}: {section!r} is a value, not a section of settings")
        place[name] = value
    return _validated(tree)


def _validated(values: dict[str, Any], where: str = "") -> Settings:
    try:
        return Settings.model_validate(values)
    except pydantic.ValidationError as error:
        raise ConfigError(where + "; ".join(_explain(e) for e in error.errors())) from error


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "settings"
    if error["type"] != "extra_forbidden":
        return f"{key} = {error['input']!r}: {error['msg']}" if error["loc"] else str(error["msg"])
    model: Any = Settings
    for part in error["loc"][:-1]:
        if get_origin(model) is dict:
            model = get_args(model)[1]
        else:
            model = getattr(getattr(model, "model_fields", {}).get(part), "annotation", None)
    known = sorted(getattr(model, "model_fields", {}))
    near = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"{key}: unknown setting; {hint}"
