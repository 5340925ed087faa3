"""The proof of a new version: how often one that is worse is published, and one that is better, on planted traffic.

Users like either colour; the log is uniform. The running version is uniform: it earns ½ of every user. The new one is
sure of blue and stays so: it earns 0.8 of the users who like blue and 0.2 of the others, and but for its share of
uniform choices 0.5 + 0.6·(share − ½) of all, which is known exactly where `share` of the users like blue.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from actors.bandits.ensemble import Ensemble, Prior
from actors.bandits.members import Uniform
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from cluster.config import LawSettings
from cluster.records import EVENTS, ITEMS, USERS, Dataset, encode
from tests.compose_cases import PLAIN, quick
from tests.features_samples import table
from tune.groundwork import Groundwork
from tune.proof import Proof, prove
from tune.stages import Stage

LAMPS = ("blue", "red")
LIKED, DISLIKED = 0.8, 0.2
PEOPLE, ROWS = 220, 6


def traffic(share: float, seed: int) -> Dataset:
    """Each user likes blue with probability `share`, and red otherwise."""
    rng = np.random.default_rng(seed)
    blue_U = rng.random(PEOPLE) < share
    who_N = rng.permutation(np.repeat(np.arange(PEOPLE), ROWS))
    item_N = rng.integers(2, size=len(who_N))
    chance_N = np.where((item_N == 0) == blue_U[who_N], LIKED, DISLIKED)
    start, n = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), len(who_N)
    events = table(
        EVENTS,
        n,
        event_id=[f"e{k}" for k in range(n)],
        timestamp=[start + dt.timedelta(seconds=k) for k in range(n)],
        client_id=["c"] * n,
        user_id=[f"u{u}" for u in who_N],
        context=[encode({"hour": k % 24}) for k in range(n)],
        candidates=[list(LAMPS)] * n,
        item_id=[LAMPS[k] for k in item_N],
        propensity=[0.5] * n,
        reward=(rng.random(n) < chance_N).astype(float),
        reward_kind=["reward"] * n,
        version=[1] * n,
    )
    items = table(ITEMS, 2, item_id=LAMPS, title=[f"{name} lamp" for name in LAMPS])
    return Dataset("feedback", events, items, USERS.empty_table(), None, {"fingerprint": f"planted {seed}"})


@dataclass(frozen=True)
class Made:
    """As a `Composition`: what the new version stands on, and the version to be tried."""

    work: Groundwork
    trial: Ensemble


def sure_of_blue(work: Groundwork) -> Ensemble:
    """Means of 1 and 0 by item, and so much evidence for them that nothing is learned."""
    items = len(work.feature_map.item_ids) + 1
    precision, mean_A1 = 1e9, np.zeros((items, 1))
    mean_A1[work.feature_map.row["blue"]] = 1.0
    prior = Prior("popularity", np.full((items, 1, 1), precision), precision * mean_A1, 0.25, "items")
    return work.ensemble(prior)


@pytest.fixture(scope="module")
def feature_map() -> FeatureMap:
    return Groundwork.of(traffic(0.5, 1_000), quick(Path(), features=PLAIN), world=0.0).feature_map


def gain(share: float) -> float:
    """Of new over running, per event: ε of its choices are uniform too."""
    return (1 - LawSettings().epsilon) * (share - 0.5) * (LIKED - DISLIKED)


def proved(share: float, margin: float, alpha: float, seed: int, feature_map: FeatureMap) -> Proof:
    gate = {"bootstrap": 200, "margin": margin}
    settings = quick(Path(), features=PLAIN, law={"particles": 4}, gate=gate, seed=seed)
    data = traffic(share, seed)
    work = Groundwork.of(data, settings, feature_map, world=0.0)
    running = Version(feature_map, work.ensemble(Uniform()), data.items, {})
    return prove(Made(work, sure_of_blue(work)), running, data.events.slice(0, 0), alpha, Stage("proof", None))  # type: ignore[arg-type]


def test_one_that_is_worse_by_the_margin_is_published_at_most_at_the_stated_rate(feature_map: FeatureMap) -> None:
    """At the very margin, where the rate is highest. The limit is passed by chance once in a thousand times."""
    share, alpha, seeds = 0.47, 0.1, 60
    proofs = [proved(share, -gain(share), alpha, seed, feature_map) for seed in range(seeds)]
    differences = np.array([proof.verdict.difference for proof in proofs])
    assert abs(differences.mean() - gain(share)) < 4 * differences.std() / np.sqrt(seeds)
    assert sum(proof.publish for proof in proofs) <= stats.binom.ppf(0.999, seeds, alpha)
    # and a point estimate alone would pass that limit:
    assert sum(proof.verdict.difference > 0 for proof in proofs) > stats.binom.ppf(0.999, seeds, alpha)


def test_one_that_is_better_is_published(feature_map: FeatureMap) -> None:
    proofs = [proved(0.85, 0.01, 0.05, seed, feature_map) for seed in range(10)]
    assert all(proof.publish for proof in proofs)
    assert np.mean([proof.verdict.difference for proof in proofs]) == pytest.approx(gain(0.85), abs=0.05)
