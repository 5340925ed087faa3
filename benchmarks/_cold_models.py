"""What a newcomer's model starts from: no prior, pooled ones, and generated ones.

All are Gaussian priors over the same features, and learn in the same way: from a newcomer's own rewards alone.

Shapes: U newcomers, N rows, K items, A arms, D features, Q code dimensions.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from actors.bandits import pooled
from actors.bandits.conditioned import Conditioned
from actors.bandits.history import History
from actors.bandits.mixture import Mixture
from actors.bandits.noise import Noise
from actors.features.feature_map import FeatureMap
from actors.features.features import Features, Floats
from actors.generator.generator import Generator
from actors.generator.tasks import Traffic
from actors.generator.train import Reading
from benchmarks._cold_logs import PLAYED, Newcomers, Stage
from benchmarks._cold_scores import Trail
from cluster.config import Settings


class Model(Protocol):
    """A competitor: how it predicts newcomers, and what its choices earn them."""

    def trails(self, newcomers: Newcomers) -> list[Trail]:
        """Predictions of each newcomer's first logged interactions."""

    def earned(self, newcomers: Newcomers, stage: Stage, seed: int, explore: bool) -> float:
        """Expected reward of a decision, over each newcomer's first ones."""


@dataclass(frozen=True)
class Prior:
    """mixture: all newcomers' model. code_UQ: of each one's context; without, the mixture's encoder makes them."""

    mixture: Mixture
    code_UQ: Floats | None = None

    def believed(self, newcomers: Newcomers, u: int, history: History) -> Conditioned:
        code_Q = None if self.code_UQ is None else self.code_UQ[u]
        return self.mixture.condition(history, newcomers.context_UX[u], code_H=code_Q)

    def trails(self, newcomers: Newcomers) -> list[Trail]:
        return [self._trail(newcomers, u) for u in range(len(newcomers))]

    def _trail(self, newcomers: Newcomers, u: int) -> Trail:
        rows = newcomers.first(u)
        features, reward_I = newcomers.logged(rows), newcomers.reward_N[rows]
        score_II = np.empty((len(reward_I), len(reward_I)))
        variance_I = np.empty(len(reward_I))
        for i in range(len(reward_I)):
            history = History(features.phi_KD[:i], features.arm_K[:i], reward_I[:i])
            believed = self.believed(newcomers, u, history)
            score_II[i] = believed.responsibilities_C @ believed.means(features)
            variance_I[i] = self._variance(believed, features.take(np.array([i])))
        return Trail(score_II, reward_I, variance_I)

    def _variance(self, believed: Conditioned, one: Features) -> float:
        """Of the reward of one item: between candidates, within them, and noise."""
        rows = believed.priors.project(one.phi_KD, one.arm_K)
        within_C = rows.kernel(rows)[:, 0, 0]
        if (evidence := believed.evidence) is not None:
            cross_CN = rows.kernel(evidence.rows)[:, 0]
            within_C = within_C - np.einsum("cn,cnm,cm->c", cross_CN, evidence.inverse_CNN, cross_CN)
        share_C, mean_C = believed.responsibilities_C, believed.means(one)[:, 0]
        noise = self.mixture.noise * float(self.mixture.scale(one.phi_KD, one.arm_K)[0]) ** 2
        return float(share_C @ (within_C + (mean_C - share_C @ mean_C) ** 2)) + noise

    def earned(self, newcomers: Newcomers, stage: Stage, seed: int, explore: bool) -> float:
        earned = [self._game(newcomers, stage, u, seed, explore) for u in range(len(newcomers))]
        return float(np.concatenate(earned).mean())

    def _game(self, newcomers: Newcomers, stage: Stage, u: int, seed: int, explore: bool) -> list[float]:
        """Thompson sampling, one draw a decision, or the greedy choice; rewards are drawn from the truth."""
        history, earned = History.empty(stage.batch.phi_BKD.shape[2]), []
        for row in range(newcomers.start_U[u], newcomers.start_U[u + 1]):
            features = stage.batch.row(row)
            drawn = self.believed(newcomers, u, history).scores(features, Noise((seed << 32) + row, 1))
            chosen = int((drawn.mean_K + explore * drawn.deviation_PK[0]).argmax())
            chance = float(stage.truth_NK[row, chosen])
            earned.append(chance)
            reward = stage.answer(row, chosen)
            history = history.append(features.phi_KD[chosen], int(features.arm_K[chosen]), reward, PLAYED)
        return earned


def plain(name: str, mean_AD: Floats, factor_ADD: Floats, noise: float, context: int) -> Prior:
    """One Gaussian for all newcomers."""
    ranks_CADR = np.zeros((1, *mean_AD.shape, 1))
    encoder_HX, prototype_CH = np.zeros((1, context)), np.ones((1, 1))
    return Prior(Mixture(name, mean_AD[None], factor_ADD, ranks_CADR, noise, encoder_HX, prototype_CH, 1.0, ("all",)))


def no_prior(reading: Reading, feature_map: FeatureMap) -> Prior:
    """Mean and variance of a reward are known, and that effects of features may be as large as it all together."""
    logged, dimension = reading.logged, feature_map.dimension
    mean_AD = np.zeros((feature_map.arms, dimension))
    mean_AD[:, 0] = logged.reward_N.mean()
    factor_ADD = np.tile(np.eye(dimension) * np.sqrt(logged.reward_N.var() / dimension), (feature_map.arms, 1, 1))
    return plain("no_prior", mean_AD, factor_ADD, float(logged.reward_N.var()), logged.context_NX.shape[1])


def pooled_prior(reading: Reading, feature_map: FeatureMap) -> Prior:
    """The posterior of all training users' rows, as every shared model starts from it."""
    logged = reading.logged
    fitted = pooled.fit(logged.phi_ND, logged.arm_N, logged.reward_N, feature_map.arms)
    mean_AD = np.linalg.solve(fitted.precision_ADD, fitted.shift_AD[..., None])[..., 0]
    factor_ADD = np.linalg.cholesky(np.linalg.inv(fitted.precision_ADD))
    return plain("pooled", mean_AD, factor_ADD, fitted.noise, logged.context_NX.shape[1])


def generated(
    trained: Generator,
    *,
    reading: Reading,
    newcomers: Newcomers,
    source: FeatureMap,
    settings: Settings,
    own: bool = True,
) -> Prior:
    """The member that a version would have, with priors of each newcomer's own context or of prototypes alone."""
    traffic = Traffic(reading.fit.keys, reading.fit.texts, reading.fit.context_UX)
    mixture = trained.candidates(traffic, source, settings.generator, settings.seed).mixture("generated")
    if not own:
        return Prior(mixture)
    told = Traffic(tuple(map(str, range(len(newcomers)))), newcomers.texts, newcomers.context_UX)
    return Prior(replace(mixture, decoder=trained.decoder, personal="all"), trained.codes(told))
