"""What a sweep varies: settings by dotted path, each over listed values or a range.

    law.exploration_scale=0.3,1,3      listed values, in YAML's notation
    law.delta=uniform(0, 0.3)          evenly from a range
    bandits.prior_strength=log(0.1, 3) evenly on the logarithm
    law.particles=int(16, 128)         whole numbers

A YAML file says the same, as `path: [values]` or `path: log(0.1, 3)`, or in sections like the settings' own.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import yaml

from cluster.config import FeatureSettings, Settings, changed
from cluster.errors import ConfigError

Point: TypeAlias = dict[str, Any]
"""Values by path."""

VARIED = (
    *("law.", "weights.", "features.", "bandits.", "content.neighbours", "content.temperature"),
    *("sweep.top_k", "generator.exploration"),
)
"""Settings that change what a version does with the same data; all else changes the question."""
GENERATED = ("sweep.top_k", "generator.exploration")
"""Settings of the generated member."""
EXPLORING = ("law.exploration_scale", "law.epsilon", "law.delta", "law.floor", "law.particles", "generator.exploration")
"""Settings that pay by what is learned from the choices made."""
LARGEST = 100_000
"""Of whole numbers that are varied: they count draws, features or candidates, which are all made."""
_RANGE = re.compile(r"(log|uniform|int)\((.*)\)")


@dataclass(frozen=True)
class Values:
    """One of these."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.at(int(rng.integers(len(self.values))))

    def at(self, place: float) -> Any:
        """The value in this place, 0 <= place < len(values)."""
        return self.values[int(place)]

    @property
    def probes(self) -> Sequence[Any]:
        return self.values


@dataclass(frozen=True)
class Range:
    """A number between two bounds, both allowed; those that are not whole have four digits."""

    kind: Literal["log", "uniform", "int"]
    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        return self.at(float(rng.random()))

    def at(self, share: float) -> float:
        """The number at this share of the range, [0, 1]."""
        if self.kind == "int":
            return int(self.low) + min(int(share * (self.high - self.low + 1)), int(self.high - self.low))
        if self.kind == "log":
            raw = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            raw = self.low + share * (self.high - self.low)
        return min(max(float(f"{raw:.4g}"), self.low), self.high)

    @property
    def probes(self) -> Sequence[float]:
        return [self.at(0.0), self.at(0.4321), self.at(1.0)]


Dimension: TypeAlias = Values | Range


@dataclass(frozen=True)
class Space:
    """Dimensions by path, in order of their paths."""

    dimensions: Mapping[str, Dimension]

    @classmethod
    def of(cls, texts: Mapping[str, Any], settings: Settings) -> "Space":
        """Read and check against the settings that it changes.

        Raises ConfigError for a path that is no setting or that a sweep cannot vary, and for a value or bound that
        the setting does not take; the message names it.
        """
        space = cls({path: _dimension(path, texts[path]) for path in sorted(texts)})
        if not space.dimensions:
            raise ConfigError("the search space is empty; vary something, such as --set law.delta=0.05,0.1,0.2")
        for path, dimension in space.dimensions.items():
            for value in dimension.probes:
                changed(settings, {path: value})
            if not path.startswith(VARIED):
                raise ConfigError(
                    f"{path}: not to be varied by a sweep, it does not decide how a version chooses; what may be: "
                    + ", ".join(one + "*" * one.endswith(".") for one in VARIED)
                )
            for value in reversed(dimension.probes):
                _bounded(path, changed(settings, {path: value}))
        return space

    @property
    def generates(self) -> bool:
        """Whether a trial needs the generated member."""
        return any(path in GENERATED for path in self.dimensions)

    def most(self, path: str, configured: int) -> int:
        """The greatest value of a whole number that is tried or configured."""
        dimension = self.dimensions.get(path)
        return max(configured, *map(int, dimension.probes)) if dimension else configured

    @cached_property
    def size(self) -> float:
        """Number of points; infinite with a range of numbers."""
        return math.prod(_size(dimension) for dimension in self.dimensions.values())

    def grid(self, most: int) -> list[Point]:
        """Every combination of listed values. Raises ConfigError for a range, or more than `most` of them."""
        for path, dimension in self.dimensions.items():
            if isinstance(dimension, Range):
                raise ConfigError(f"{path}: a grid needs listed values; list them, or say --search random")
        if self.size > most:
            raise ConfigError(
                f"the grid has {self.size:,} points, more than {most:,} trials; say --trials {self.size}, list "
                "fewer values, or say --search random"
            )
        listed = [dimension.probes for dimension in self.dimensions.values()]
        return [dict(zip(self.dimensions, values, strict=True)) for values in itertools.product(*listed)]

    def random(self, trials: int, seed: int) -> list[Point]:
        """Different points drawn up front: the same for the same seed. Fewer where the space has not as many."""
        rng = np.random.default_rng([seed, 0x7E57])
        found: dict[str, Point] = {}
        for _ in range(100 * trials):
            if len(found) == min(trials, self.size):
                break
            point = {path: dimension.draw(rng) for path, dimension in self.dimensions.items()}
            found.setdefault(repr(point), point)
        return list(found.values())

    def facts(self) -> dict[str, str]:
        """The space as text, for people and for comparing two."""
        return {path: _text(dimension) for path, dimension in self.dimensions.items()}


def default(exploring: bool, related: bool = False) -> dict[str, Any]:
    """A space for any data. `exploring`: with what only a world can judge; `related`: with what embeddings are for."""
    found = {
        "features.map": list(get_args(FeatureSettings.model_fields["map"].annotation)),
        "bandits.forgetting_half_life": "log(300, 30000)",
        "bandits.prior_strength": "log(0.03, 3)",
        "weights.half_life_decisions": "log(300, 30000)",
        "weights.eta": "log(0.3, 10)",
    }
    explored = {
        "law.exploration_scale": "log(0.05, 2)",
        "law.delta": "uniform(0, 0.3)",
        "law.floor": "uniform(0, 0.5)",
    }
    content = {
        "content.neighbours": "int(2, 12)",
        "content.temperature": "log(0.02, 0.5)",
        "weights.neighbour_scale": "uniform(0, 2)",
    }
    return found | (explored if exploring else {}) | (content if related else {})


def read(path: Path | None, assignments: Sequence[str]) -> dict[str, Any]:
    """The texts of a space from a YAML file and from `path=text` assignments, which win.

    Raises ConfigError where the file or an assignment cannot be read.
    """
    found: dict[str, Any] = {}
    if path is not None:
        try:
            tree = yaml.safe_load(path.read_text()) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot read the search space: {error}") from error
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: expected settings and their values, found {type(tree).__name__}")
        found = _flat(tree)
    for assignment in assignments:
        name, sign, text = assignment.partition("=")
        if not sign:
            raise ConfigError(f"--set {assignment}: expected path=values, such as law.delta=0.05,0.1")
        found[name.strip()] = text.strip()
    return found


def _flat(tree: Mapping[Any, Any], at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return found


def _dimension(path: str, given: Any) -> Dimension:
    if isinstance(given, str) and (matched := _RANGE.fullmatch(given.strip())):
        return _range(path, matched[1], matched[2])
    values = given
    if isinstance(given, str):
        try:
            values = yaml.safe_load(f"[{given}]")
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: {given!r} are no values ({error}); write them as in YAML, 1,2,3") from error
    values = values if isinstance(values, list) else [values]
    if not values or any(value in values[:place] for place, value in enumerate(values)):
        raise ConfigError(f"{path}: expected values that differ, found {given!r}")
    return Values(tuple(tuple(value) if isinstance(value, list) else value for value in values))


def _range(path: str, kind: Any, inside: str) -> Range:
    try:
        low, high = (float(part) for part in inside.split(","))
    except ValueError:
        raise ConfigError(f"{path}: {kind}({inside}) needs two numbers, such as {kind}(1, 10)") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"{path}: {kind}({inside}) has no end; both bounds must be finite numbers")
    if not low < high:
        raise ConfigError(f"{path}: {kind}({inside}) must go from a lower bound to a higher one")
    if kind == "log" and low <= 0:
        raise ConfigError(f"{path}: log({inside}) must begin above 0; use uniform, or a small lower bound")
    if kind == "int" and not (low.is_integer() and high.is_integer()):
        raise ConfigError(f"{path}: int({inside}) needs whole numbers")
    return Range(kind, low, high)


def _bounded(path: str, settings: Settings) -> None:
    """Raises ConfigError for a count that no trial could come to the end of."""
    value = reduce(getattr, path.split("."), settings)
    if isinstance(value, int) and value > LARGEST and not path.endswith("_bytes"):
        raise ConfigError(f"{path} = {value:,}: too large to try; {LARGEST:,} at most")


def _size(dimension: Dimension) -> float:
    if isinstance(dimension, Values):
        return len(dimension.values)
    return int(dimension.high - dimension.low) + 1 if dimension.kind == "int" else math.inf


def _text(dimension: Dimension) -> str:
    if isinstance(dimension, Range):
        return f"{dimension.kind}({dimension.low:g}, {dimension.high:g})"
    return ", ".join(map(str, dimension.values))
