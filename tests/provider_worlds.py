"""Planted providers with audiences of their own, in clusters; and what models of them are compared by."""

from dataclasses import dataclass

import numpy as np

from actors.bandits import pooled
from actors.bandits.posterior import Statistics
from actors.content.models import by_cluster, by_provider, fit, log_likelihood
from actors.features.features import Floats, Ints

PROVIDERS, CLUSTERS, FEATURES, HELD_OUT, NOISE = 24, 3, 6, 100, 0.1
WORLDS = {"clusters": (0.12, 0.04), "equal": (0.0, 0.0), "only clusters": (0.12, 0.0), "no clusters": (0.0, 0.12)}
"""How far clusters differ from all, and providers from their cluster: standard deviations of a parameter."""


@dataclass(frozen=True)
class Rows:
    phi_ND: Floats
    provider_N: Ints
    reward_N: Floats


@dataclass(frozen=True)
class World:
    """θ of each provider, (P, D), and its cluster."""

    theta_PD: Floats
    cluster_P: Ints

    @classmethod
    def draw(cls, seed: int, between_clusters: float, between_providers: float) -> "World":
        rng = np.random.default_rng(seed)
        cluster_P = np.arange(PROVIDERS) % CLUSTERS
        theta_CD = 0.1 * rng.standard_normal(FEATURES) + between_clusters * rng.standard_normal((CLUSTERS, FEATURES))
        theta_PD = theta_CD[cluster_P] + between_providers * rng.standard_normal((PROVIDERS, FEATURES))
        theta_PD[:, 0] += 0.5
        return cls(theta_PD, cluster_P)

    def rows(self, each: int, seed: int) -> Rows:
        """`each` rows of every provider."""
        rng = np.random.default_rng(seed)
        provider_N = np.repeat(np.arange(len(self.theta_PD)), each)
        phi_ND = rng.standard_normal((len(provider_N), self.theta_PD.shape[1]))
        phi_ND[:, 0] = 1.0
        mean_N = np.einsum("nd,nd->n", phi_ND, self.theta_PD[provider_N])
        return Rows(phi_ND, provider_N, mean_N + np.sqrt(NOISE) * rng.standard_normal(len(mean_N)))


def held_out(world: World, each: int, seed: int) -> dict[str, float]:
    """Mean log-likelihood of a held-out row, nats, under each model fitted on `each` rows of every provider.

    everyone: one posterior; own: each provider's by itself, in the pooled prior; flat: drawn around everyone's without
    clusters; cluster, provider: the content models.
    """
    train, test = world.rows(each, seed), world.rows(HELD_OUT, seed + 1)
    zero_N = np.zeros(len(train.reward_N), np.int64)
    everyone = pooled.fit(train.phi_ND, zero_N, train.reward_N, 1)
    own = pooled.fit(train.phi_ND, train.provider_N, train.reward_N, PROVIDERS + 1)
    cluster = by_cluster(train.phi_ND, train.provider_N, train.reward_N, world.cluster_P).posterior
    provider = by_provider(train.phi_ND, train.provider_N, train.reward_N, world.cluster_P).posterior
    flat = fit(train.phi_ND, train.provider_N, train.reward_N, [np.zeros(PROVIDERS + 1, np.int64)]).posterior
    models = {
        "everyone": (_statistics(everyone), np.zeros_like(test.provider_N)),
        "own": (_statistics(own), test.provider_N),
        "flat": (flat, test.provider_N),
        "cluster": (cluster, world.cluster_P[test.provider_N]),
        "provider": (provider, test.provider_N),
    }
    return {
        name: float(log_likelihood(p.gaussian(), p.noise, test.phi_ND, arm_N, test.reward_N).mean())
        for name, (p, arm_N) in models.items()
    }


def _statistics(found: pooled.Pooled) -> Statistics:
    return Statistics.start(found.precision_ADD, found.shift_AD, found.noise)


def main() -> None:
    """The provider's model over the others: mean gain and standard error over 20 worlds, and how many it wins."""
    for name, spreads in WORLDS.items():
        for each in (5, 10, 20, 80):
            found = [held_out(World.draw(seed, *spreads), each, 1000 + 2 * seed) for seed in range(20)]
            cells = [f"{name:14} {each:4}"]
            for other in ("everyone", "own", "flat", "cluster"):
                gain_S = np.array([run["provider"] - run[other] for run in found])
                cells.append(
                    f"{other} {gain_S.mean():+.4f} ± {gain_S.std(ddof=1) / np.sqrt(20):.4f} ({(gain_S > 0).sum()})"
                )
            print("   ".join(cells))


if __name__ == "__main__":
    main()
