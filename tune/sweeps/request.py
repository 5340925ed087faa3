"""What a sweep is asked for, and what can be said against it before data is read and Ray is there."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from cluster.config import Settings
from cluster.errors import ConfigError
from tune.sweeps.space import Space, default

Kind: TypeAlias = Literal["grid", "random", "optuna"]
By: TypeAlias = Literal["world", "replay"]
MOST_TRIALS = 100_000
"""Points of grid and random search are drawn up front."""
LONGEST_NAME = 200
"""Bytes of a folder's name; file systems take 255, and Ray Tune adds its own below it."""


@dataclass(frozen=True)
class Request:
    """texts: the space as given, empty for the default. by, trials: None for what suits data and settings. related:
    whether items have embeddings."""

    texts: dict[str, Any]
    kind: Kind = "random"
    by: By | None = None
    trials: int | None = None
    asha: bool = False
    related: bool = False

    def most(self, settings: Settings) -> int:
        """Trials at most. Raises ConfigError for none, or more than can be drawn."""
        given, name = (settings.tune.trials, "tune.trials =") if self.trials is None else (self.trials, "--trials")
        if not 1 <= given <= MOST_TRIALS:
            raise ConfigError(f"{name} {given}: a sweep has at least 1 trial and at most {MOST_TRIALS:,}")
        return given

    def space(self, settings: Settings) -> Space:
        """The space that is searched. Raises ConfigError for a space or search that cannot be."""
        most = self.most(settings)
        if self.asha and self.by == "replay":
            raise ConfigError("--asha stops trials by what they earned so far, and a replay says so at its end only")
        space = Space.of(self.texts or default(self.by == "world", self.related), settings)
        if self.kind == "grid":
            space.grid(most)
        if space.generates and self.kind == "optuna" and any(path.startswith("features.") for path in self.texts):
            raise ConfigError(
                "a generator is trained for each choice of features before the trials, and Optuna does not say which "
                "it will make; leave features.* or the generated member's settings out, or say --search random"
            )
        return space


def check_name(name: str) -> str:
    """The name of a folder under home/sweeps. Raises ConfigError where it would lie elsewhere."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise ConfigError(f"--name {name!r}: expected one plain name of a folder under home/sweeps, such as mine")
    if len(name.encode()) > LONGEST_NAME:
        raise ConfigError(f"--name {name[:20]}...: {len(name.encode())} bytes, more than the {LONGEST_NAME} of a name")
    return name
