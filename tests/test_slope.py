"""The choice of a clip: by hand, by its rule, and by what it does to the error."""

import numpy as np
import pytest

from tune.estimators import evaluate
from tune.log import Log
from tune.offpolicy.slope import CLIPS, TOLERANCE, choose, grid
from tune.offpolicy.terms import TUNED, weights


def test_grids_go_from_no_clipping_to_the_model() -> None:
    """Each value of dros has its clip as its greatest weight, at ρ = √λ: λρ/(ρ² + λ) = √λ/2."""
    for method in TUNED:
        found = grid(method)
        assert found[0] == np.inf
        assert list(found) == sorted(found, reverse=True)
    ratio = np.geomspace(1e-3, 1e6, 4_000)
    for clip, shrinkage in zip(CLIPS[1:], grid("dros")[1:], strict=False):
        assert weights("dros", ratio, shrinkage).max() == pytest.approx(clip, rel=1e-4)
    assert (weights("dros", ratio, 0.0) == 0).all()
    assert (weights("switch_dr", ratio, 0.0) == 0).all()


def test_the_choice_by_hand() -> None:
    """Four users. b − a moves by (1, 1, −1, −1) a user: standard error √(4/(4·3)) = 0.577, times √2 = 0.816. A
    candidate 0.8 away agrees, one 0.83 away does not."""
    a, b = np.zeros(4), np.array([1.0, 1.0, -1.0, -1.0])
    assert TOLERANCE * np.sqrt(1 / 3) == pytest.approx(0.8165, abs=1e-4)
    assert choose(np.stack([a, b]), np.array([0.0, 0.80])) == 1
    assert choose(np.stack([a, b]), np.array([0.0, 0.83])) == 0
    # the third agrees with the first, but not with the second, which it equals but for a constant
    assert choose(np.stack([a, b, b]), np.array([0.0, 0.5, 0.4])) == 1
    assert choose(np.stack([a, b, a]), np.array([0.0, 0.5, 0.0])) == 2


def drawn(rng: np.random.Generator, users: int, loud: float) -> tuple[Log, np.ndarray]:
    """One action in 50 is rare, of weight 25; its reward, `loud`, is 0.3 elsewhere. Truth: (0.3 + loud)/2."""
    rare = rng.random(users) < 0.02
    reward = (rng.random(users) < np.where(rare, loud, 0.3)).astype(float)
    propensity = np.where(rare, 0.02, 0.98)
    log = Log(rare.astype(np.int64), reward, propensity, np.arange(users), np.ones((users, 2), bool))
    return log, np.full((users, 2), 0.5)


def test_clipping_pays_where_data_are_few_and_stops_where_they_are_many() -> None:
    """Where the rare action earns nothing more, the chosen clip has less error than none, over 200 logs; with 20,000
    users and a rare action that earns thrice as much, the bias is seen and ips stays as it is."""
    rng = np.random.default_rng(0)
    square = {"ips": 0.0, "clipped_ips": 0.0}
    for _ in range(200):
        log, policy = drawn(rng, 100, 0.1)
        for method in square:
            square[method] += (evaluate(method, log, policy, resamples=2).value - 0.2) ** 2  # type: ignore[arg-type]
    assert square["clipped_ips"] < square["ips"]
    log, policy = drawn(rng, 20_000, 0.9)
    found = evaluate("clipped_ips", log, policy, resamples=2)
    assert found.chosen
    assert found.parameter is not None
    assert found.parameter >= 25
    assert found.bias == pytest.approx(0.0)
