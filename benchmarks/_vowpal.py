"""Vowpal Wabbit on a game: a grid of explorers, learning rates and features.

`--cb_explore_adf` reads the context as shared features and one line an arm, crossed by `-q ca`, so that each arm has
weights of its own. Features are the raw columns (VW normalises them itself), those with all their products (`--cubic
cca`), our base features (`features.map: auto`), or all of ours. Those come from feature maps fitted whenever the rows
have grown by half, on the same rows as logged uniformly (which says more of the arms than VW's own choices would),
whereupon VW learns its whole past again in the new features.
"""

from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from random import Random

import numpy as np
import vowpalwabbit

from actors.features.feature_map import FeatureMap
from benchmarks._games import Game, ends
from cluster.config import FeatureSettings
from cluster.records import Value, decode

_RANGE = "--cb_min_cost -1 --cb_max_cost 0"
EXPLORERS = {
    "epsilon": "--epsilon 0.005",
    "softmax": "--softmax --lambda 30",
    "squarecb": f"--squarecb --gamma_scale 10 {_RANGE}",
    "squarecb elim": f"--squarecb --elim --mellowness 0.001 {_RANGE}",
    "regcb": f"--regcb --mellowness 0.001 {_RANGE}",
    "regcbopt": f"--regcbopt --mellowness 0.01 {_RANGE}",
    "bag": "--bag 5 --greedify --epsilon 0",
}
RATES = (0.1, 0.5, 2.0)
CROSSES = {"raw": "-q ca", "products": "-q ca --cubic cca", "base": "-q ca", "ours": "-q ca"}
FIRST = 32
"""Rows before the first of our maps."""


@dataclass(frozen=True)
class Setting:
    explorer: str
    rate: float
    features: str

    @property
    def own(self) -> bool:
        """Whether it does without our features."""
        return self.features in ("raw", "products")

    def __str__(self) -> str:
        return f"{self.explorer}, rate {self.rate:g}, {self.features} features"

    def options(self, seed: int) -> str:
        explore, cross = EXPLORERS[self.explorer], CROSSES[self.features]
        return f"--cb_explore_adf {cross} {explore} -l {self.rate} --random_seed {seed} --quiet"


GRID = tuple(Setting(e, rate, f) for f in CROSSES for e in EXPLORERS for rate in RATES)


@dataclass(frozen=True)
class Texts:
    """lines[i]: the context of every row from the start to stops[i], in the features that hold from stops[i - 1] on."""

    stops: tuple[int, ...]
    lines: tuple[Sequence[str], ...]


def raw_texts(game: Game) -> Texts:
    """The columns as they are: a number as name:value, anything else as name=value."""
    contexts = game.dataset.events["context"].to_pylist()
    lines = [" ".join(["shared |c", *map(raw, *zip(*decode(pairs).items(), strict=True))]) for pairs in contexts]
    return Texts((len(game),), (lines,))


def raw(name: str, value: Value) -> str:
    """A feature in VW's format."""
    plain = f"{name}:{value:.6g}" if isinstance(value, int | float) else f"{name}={value}"
    head, sign, tail = plain.rpartition(":" if isinstance(value, int | float) else "=")
    return f"{_escaped(head)}{sign}{_escaped(tail)}"


def _escaped(text: str) -> str:
    return "".join("_" if c in " |:\t" else c for c in text)


def map_texts(game: Game, places: Sequence[int], settings: FeatureSettings, seed: int) -> Texts:
    """Our features, of maps fitted after so many rows; raw columns before the first."""
    first, stops = raw_texts(game), [*places, len(game)]
    lines: list[Sequence[str]] = [first.lines[0][: stops[0]]]
    for end, stop in pairwise(stops):
        feature_map = FeatureMap.fit(game.until(end), np.arange(end), settings, seed)
        phi_TD = feature_map.batch(game.until(stop).events).phi_BKD[:, 0, 1:]
        lines.append(
            ["shared |c " + " ".join([f"{d}:{phi_D[d]:.5g}" for d in np.flatnonzero(phi_D)]) for phi_D in phi_TD]
        )
    return Texts(tuple(stops), tuple(lines))


def every_text(game: Game, settings: FeatureSettings, growth: float, seed: int) -> dict[str, Texts]:
    """The texts of a game by the features of a setting."""
    stops = ends(len(game), FIRST, growth)
    base = settings.model_copy(update={"map": "auto"})
    raw = raw_texts(game)
    return {
        "raw": raw,
        "products": raw,
        "base": map_texts(game, stops, base, seed),
        "ours": map_texts(game, stops, settings, seed),
    }


def play(game: Game, texts: Texts, setting: Setting, seed: int) -> int:
    """Errors of one pass."""
    arms = [f"|a arm{k}" for k in range(len(game.arms))]
    draw = Random(seed).random
    past: list[tuple[int, str]] = []
    for stop, lines in zip(texts.stops, texts.lines, strict=True):
        vw = vowpalwabbit.Workspace(setting.options(seed))
        for line, (arm, label) in zip(lines, past, strict=False):
            vw.learn(_labelled(line, arms, arm, label))
        for t in range(len(past), stop):
            arm, propensity = _drawn(vw.predict("\n".join([lines[t], *arms])), draw)
            label = f"0:{-int(arm == game.right_N[t])}:{propensity:.6g}"
            vw.learn(_labelled(lines[t], arms, arm, label))
            past.append((arm, label))
        vw.finish()
    return sum(arm != right for (arm, _), right in zip(past, game.right_N.tolist(), strict=True))


def _drawn(probabilities: Sequence[float], draw: Callable[[], float]) -> tuple[int, float]:
    edges = list(accumulate(probabilities))
    arm = min(bisect(edges, draw() * edges[-1]), len(edges) - 1)
    return arm, probabilities[arm]


def _labelled(line: str, arms: Sequence[str], arm: int, label: str) -> str:
    return "\n".join([line, *arms[:arm], f"{label} {arms[arm]}", *arms[arm + 1 :]])
