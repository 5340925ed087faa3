"""Lock step against the same bandits one at a time: a plain loop of posteriors, and the law that serves."""

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble, Prior
from actors.features.features import Floats
from benchmarks import _one_at_a_time
from cluster.config import LawSettings, WeightSettings
from cluster.errors import EvidenceError, ModelError
from tests import lockstep_cases
from tune.lockstep import simulate as lockstep
from tune.lockstep.beliefs import Setting
from tune.lockstep.course import Course, Drawn

SETTINGS = [
    Setting(),
    Setting(exploration_scale=0.0),
    Setting(exploration_scale=0.3, epsilon=0.2, noise=0.05),
    Setting(half_life=100.0, prior_strength=0.1),
    Setting(exploration_scale=2.0, epsilon=1.0, prior_strength=30.0),
    Setting(half_life=2_000.0, noise=1.5),
]


def whole(settings: list[Setting], course: Course, prior: Prior, **how: Any) -> tuple[Floats, Floats, Floats]:
    """Items, scores and rewards of all candidates, whatever the chunks."""
    parts = list(lockstep.simulate(settings, course, prior, **how))
    assert [c for part in parts for c in part.candidates] == list(range(len(settings)))
    return tuple(np.concatenate([getattr(p, name) for p in parts]) for name in ("item_CN", "score_CN", "reward_CN"))  # type: ignore[return-value]


@pytest.mark.parametrize("drawn", ["joint", "independent"])
@pytest.mark.parametrize("publish_every", [1, 7, 40])
@pytest.mark.parametrize("arms", [1, 4])
def test_choices_and_scores_are_those_of_one_at_a_time(arms: int, publish_every: int, drawn: Drawn) -> None:
    """600 events: two times the data are let fade. The issue asks for 1e-6; float64 gives far better."""
    rng = np.random.default_rng(arms)
    course, prior = lockstep_cases.course(rng, 600, 5, 6, arms), lockstep_cases.prior(rng, 6, arms)
    item, score, reward = whole(SETTINGS, course, prior, seed=3, drawn=drawn, publish_every=publish_every)
    for c, setting in enumerate(SETTINGS):
        alone = _one_at_a_time.play(setting, course, prior, 3, drawn, publish_every)
        np.testing.assert_array_equal(item[c], alone[0])
        np.testing.assert_allclose(score[c], alone[1], atol=1e-9)
        np.testing.assert_array_equal(reward[c], alone[2])
    assert len({tuple(row) for row in item.tolist()}) == len(SETTINGS), "the candidates differ"


@pytest.mark.parametrize("arms", [1, 4])
def test_choices_are_those_of_the_law_that_serves(arms: int) -> None:
    """An ensemble of one member with one particle, through law.decide and learn.step."""
    rng = np.random.default_rng(10 + arms)
    course, prior = lockstep_cases.course(rng, 400, 5, 6, arms), lockstep_cases.prior(rng, 6, arms)
    setting = Setting(exploration_scale=0.8, epsilon=0.1, half_life=150.0)
    item, _, _ = whole([setting], course, prior, seed=5)
    settings = LawSettings(particles=1, exploration_scale=0.8, epsilon=0.1)
    member = replace(prior, half_life=150.0)
    state = learn.start(Ensemble((member,), np.array([0.5]), settings, WeightSettings(), 6, "f"))
    for n in range(len(course)):
        features = course.batch.row(n)
        slot = law.decide(learn.publish(state), features, None, (5 << 32) + n).slots[0]
        assert slot.index == item[0, n]
        state = learn.step(
            state,
            learn.Outcome(
                user=None,
                phi_D=features.phi_KD[slot.index],
                arm=int(features.arm_K[slot.index]),
                item=0,
                reward=float(course.reward_NK[n, slot.index]),
                propensity=slot.propensity,
                member_propensities_M=slot.member_propensities_M,
            ),
        )


@pytest.mark.parametrize("arms", [1, 3])
def test_chunks_and_pages_change_nothing(arms: int) -> None:
    rng = np.random.default_rng(20 + arms)
    course, prior = lockstep_cases.course(rng, 300, 4, 5, arms), lockstep_cases.prior(rng, 5, arms)
    one_each = whole(SETTINGS, course, prior, budget_bytes=1, publish_every=3)
    together = whole(SETTINGS, course, prior, publish_every=3)
    for small, large in zip(one_each, together, strict=True):
        np.testing.assert_allclose(small, large, atol=1e-12)
    assert len(list(lockstep.simulate(SETTINGS, course, prior, budget_bytes=1))) == len(SETTINGS)
    again = whole(SETTINGS, course, prior, publish_every=3)
    np.testing.assert_array_equal(again[1], together[1])
    assert (whole(SETTINGS, course, prior, seed=1)[0] != together[0]).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("arms", [1, 4])
def test_a_gpu_chooses_as_the_cpu_does(arms: int) -> None:
    rng = np.random.default_rng(arms)
    course, prior = lockstep_cases.course(rng, 600, 5, 6, arms), lockstep_cases.prior(rng, 6, arms)
    here, there = (whole(SETTINGS, course, prior, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_array_equal(here[0], there[0])
    np.testing.assert_allclose(here[1], there[1], atol=1e-9)


MEMORY = """
import numpy as np
from benchmarks._memory import peak_bytes
from tests import lockstep_cases
from tune.lockstep import simulate as lockstep
from tune.lockstep.beliefs import Setting

settings = [Setting(half_life=100.0)] * 4_000
for arms in (1, 8):
    rng = np.random.default_rng(0)
    course, prior = lockstep_cases.course(rng, 256, 8, 24, arms), lockstep_cases.prior(rng, 24, arms)
    for drawn, every in (("joint", 4), ("joint", 32), ("independent", 32)):
        def first_chunk(count, budget_bytes):
            how = {"drawn": drawn, "publish_every": every, "budget_bytes": budget_bytes}
            next(lockstep.simulate(settings[:count], course, prior, **how))
        first_chunk(2, 1)
        print(peak_bytes(lambda: first_chunk(4_000, BUDGET)) / BUDGET)
"""


def test_memory_stays_within_the_budget() -> None:
    """Growth of a fresh process over the first of many chunks, that of forgetting included: at most the budget, and
    of that at least 40 %, for both kinds of parameters and of draws."""
    program, environment = MEMORY.replace("BUDGET", str(32 * 2**20)), os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    shares = [float(line) for line in done.stdout.splitlines()]
    assert len(shares) == 6
    assert max(shares) < 1
    assert min(shares) > 0.4


def test_what_does_not_fit_is_refused() -> None:
    rng = np.random.default_rng(0)
    course, prior = lockstep_cases.course(rng, 5, 3, 4), lockstep_cases.prior(rng, 4)

    def refused(course: Course, prior: Prior) -> None:
        next(lockstep.simulate(SETTINGS, course, prior))

    with pytest.raises(ModelError, match="5 features does not fit the course's 4"):
        refused(course, lockstep_cases.prior(rng, 5))
    with pytest.raises(ModelError, match="'popularity' does not see features"):
        refused(course, Prior("popularity", np.ones((4, 1, 1)), np.ones((4, 1)), 0.2, "items"))
    with pytest.raises(ModelError, match="1 parameter rows does not fit arm"):
        refused(lockstep_cases.course(rng, 5, 3, 4, 4), prior)
    with pytest.raises(ModelError, match="one row of features per event"):
        refused(course, lockstep_cases.prior(rng, 4, 2))
    with pytest.raises(ModelError, match="not positive definite"):
        refused(course, replace(prior, precision_ADD=-prior.precision_ADD))
    for name, value in (("epsilon", 1.5), ("noise", 0.0), ("half_life", -1.0), ("prior_strength", np.nan)):
        with pytest.raises(EvidenceError, match=f"{name} = "):
            Setting(**{name: value})
