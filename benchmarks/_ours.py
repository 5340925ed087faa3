"""A game played by this product, online from nothing: one configuration for every table.

Feature map and priors are fitted anew on the rows seen so far each time that these have grown by half, as a job would
do it (`FeatureMap.fit`, `tune.predefined`); between, `law.decide` chooses, `learn.step` learns, and what is learned is
published after a share of the rows so far, at most 32 of them.

Shapes: T rows played.
"""

from dataclasses import dataclass, field

import numpy as np

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble
from actors.features.feature_map import FeatureMap
from benchmarks._games import Game
from cluster.config import Settings
from tune.predefined import Design, Predefined

FIRST, GROWTH = 4, 1.5
PUBLISH_SHARE, PUBLISH_MOST = 0.03, 32


@dataclass
class Player:
    """arms_T and rewards_T: what was chosen and what it earned."""

    game: Game
    settings: Settings
    seed: int
    arms_T: list[int] = field(default_factory=list)
    rewards_T: list[float] = field(default_factory=list)

    def play(self, ends: list[int]) -> int:
        """Errors of one pass, models made anew at `ends`; the rows before the first are chosen uniformly."""
        rng = np.random.default_rng(self.seed)
        for arm in rng.integers(len(self.game.arms), size=ends[0]).tolist():
            self._earn(arm)
        for stop in [*ends[1:], len(self.game)]:
            self._until(stop)
        return len(self.game) - int(sum(self.rewards_T))

    def _earn(self, arm: int) -> float:
        self.rewards_T.append(float(arm == self.game.right_N[len(self.arms_T)]))
        self.arms_T.append(arm)
        return self.rewards_T[-1]

    def _until(self, stop: int) -> None:
        start = len(self.arms_T)
        feature_map, ensemble = self._made()
        batch = feature_map.batch(self.game.dataset.events.slice(start, stop - start))
        state = learn.start(ensemble)
        published, due = learn.publish(state), start
        for t in range(start, stop):
            if t >= due:
                published = learn.publish(state)
                due = t + min(PUBLISH_MOST, max(1, int(PUBLISH_SHARE * t)))
            features = batch.row(t - start)
            slot = law.decide(published, features, None, (self.seed << 32) + t).slots[0]
            arm = int(features.item_K[slot.index])
            state = learn.step(state, learn.Outcome.chosen(features, slot, None, self._earn(arm)))

    def _made(self) -> tuple[FeatureMap, Ensemble]:
        """The feature map and the members, fitted on what was played."""
        dataset, settings = self.game.played(np.array(self.arms_T), np.array(self.rewards_T)), self.settings
        feature_map = FeatureMap.fit(dataset, np.arange(len(dataset.events)), settings.features, self.seed)
        design = Design.of(feature_map, dataset.events, settings.reward)
        members = Predefined(design, feature_map, settings.bandits).members()
        return feature_map, Ensemble(
            members, np.full(len(members), 0.5), settings.law, settings.weights, feature_map.dimension,
            feature_map.fingerprint,
        )  # fmt: skip
