from dataclasses import replace

import numpy as np
import pytest

from cluster.config import DataSettings, RewardKind, Settings
from cluster.errors import EvidenceError
from cluster.importers.imported import Options
from cluster.importers.marketplace import read_marketplace
from tests import lockstep_cases
from tune.groundwork import Groundwork
from tune.lockstep import simulate as lockstep
from tune.lockstep.beliefs import Setting
from tune.lockstep.course import Chance, Course
from tune.worlds import build


def test_a_world_as_a_course() -> None:
    """Every item's reward is the world's own answer, scaled; and who learns from it earns more than who chooses at
    random, by more than four standard errors of their paired difference."""
    data = DataSettings(marketplace_users=200, marketplace_items=30, marketplace_events=3_000)
    settings = Settings.model_validate({"data": data, "features": {"max_dimension": 24}})
    dataset = read_marketplace([], Options(), data, seed=1).dataset
    work, world = Groundwork.of(dataset, settings), build(dataset, settings)
    steps: list[tuple[int, int]] = []
    kind = RewardKind(low=-1.0, high=3.0)
    course = Course.of(world, work.feature_map, kind, lambda *step: steps.append(step))
    assert steps[-1] == (600, 600)
    for n in (0, 17, 599):
        items = world.events["candidates"][n].as_py()
        found = [world.reward(n, item) for item in items]
        np.testing.assert_allclose(4 * course.reward_NK[n, : len(items)] - 1, found)
    member = next(m for m in work.predefined.members() if m.name == "linear")
    played = next(lockstep.simulate([Setting(exploration_scale=0.3), Setting(epsilon=1.0)], course, member))
    difference = played.reward_CN[0] - played.reward_CN[1]
    assert difference.mean() > 4 * difference.std() / np.sqrt(600)


def test_draws_depend_on_seed_and_event_alone() -> None:
    course = lockstep_cases.course(np.random.default_rng(0), 20, 3, 4)
    for parameters in (True, False):
        (whole,) = Chance(course, [range(20)], 7, parameters)
        _, second = Chance(course, [range(11), range(11, 20)], 7, parameters)
        np.testing.assert_array_equal(second.normal_BX, whole.normal_BX[11:])
        np.testing.assert_array_equal(second.tie_BK, whole.tie_BK[11:])
        np.testing.assert_array_equal(second.uniform_B, whole.uniform_B[11:])
        (other,) = Chance(course, [range(20)], 8, parameters)
        assert (other.normal_BX != whole.normal_BX).all()
        assert whole.normal_BX.shape == (20, 4 if parameters else 3)


def test_a_course_that_cannot_be_run_is_refused() -> None:
    course = lockstep_cases.course(np.random.default_rng(0), 6, 3, 4)
    reward, phi, mask = course.reward_NK.copy(), course.batch.phi_BKD.copy(), course.batch.mask_BK.copy()
    with pytest.raises(EvidenceError, match="do not fit situations"):
        Course(course.batch, reward[:, :2])
    reward[4, 0], phi[5, 1, 2], mask[3] = np.nan, np.inf, False
    with pytest.raises(EvidenceError, match="event 4: a reward is not finite"):
        Course(course.batch, reward)
    with pytest.raises(EvidenceError, match="event 5: a feature is not finite"):
        Course(replace(course.batch, phi_BKD=phi), course.reward_NK)
    with pytest.raises(EvidenceError, match="event 3 offers no item"):
        Course(replace(course.batch, mask_BK=mask), course.reward_NK)
    reward[4, 0] = 0.0
    reward[0, 2] = np.nan  # padding
    assert len(Course(course.batch, reward)) == 6
