"""One YAML file -> `Settings`. Every field has a default, a unit in its name or text, and a description.

Precedence: environment (`MEDLEY_HOME`, `MEDLEY_DATABASE_URL`) over the file over the defaults.
A component takes the section that it needs, never the whole. The sections stand in cluster/settings, one file for
each part of the project; all others import them from here.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin

import pydantic
import yaml
from pydantic import Field

from cluster.errors import ConfigError, StateError
from cluster.settings.content import ContentSettings
from cluster.settings.data import DataSettings, DialSettings, MetricSettings, RewardKind
from cluster.settings.models import BanditSettings, FeatureSettings, GeneratorSettings, LawSettings, WeightSettings
from cluster.settings.ppo import PpoSettings
from cluster.settings.proving import Budgets, DriftSettings, GateSettings, SweepSettings, TuneSettings, WorldSettings
from cluster.settings.running import ClusterSettings, ScheduledJob, ServeSettings
from cluster.settings.section import Section

__all__ = [
    "BanditSettings",
    "Budgets",
    "ClientMode",
    "ClusterSettings",
    "ContentSettings",
    "DataSettings",
    "DialSettings",
    "DriftSettings",
    "FeatureSettings",
    "GateSettings",
    "GeneratorSettings",
    "LawSettings",
    "MetricSettings",
    "PpoSettings",
    "RewardKind",
    "ScheduledJob",
    "ServeSettings",
    "Settings",
    "SweepSettings",
    "TuneSettings",
    "WeightSettings",
    "WorldSettings",
    "changed",
    "load",
]

ClientMode: TypeAlias = Literal["live", "shadow", "apprentice", "off"]
"""Who answers a client's calls, and what is learned of them (docs/serving.md, "Modes")."""


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
    content: ContentSettings = ContentSettings()
    ppo: PpoSettings = PpoSettings()
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
