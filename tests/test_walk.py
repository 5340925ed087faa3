"""The walk along the log, against a plain loop that says what its docstring says."""

from dataclasses import replace

import numpy as np
import pytest

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble
from cluster.config import Settings
from cluster.records import Dataset
from tests import bandit_cases
from tests.compose_cases import changed
from tests.features_samples import labelled, shop
from tune.estimators import evaluate
from tune.groundwork import Groundwork
from tune.offpolicy import balance
from tune.walk import MINIMUM, PUBLISH_EVERY, Trail, walk

SEED = 3


def logged(dataset: Dataset) -> Dataset:
    """With true propensities: the samples draw their actions uniformly."""
    wide = len(dataset.items)
    shares = [1 / len(listed or range(wide)) for listed in dataset.events["candidates"].to_pylist()]
    return changed(dataset, propensity=shares)


def prepared(dataset: Dataset, events: int = 90) -> tuple[Ensemble, Trail]:
    """Predefined members and a generated one, and a trail with and without users."""
    work = Groundwork.of(dataset, Settings.model_validate({"law": {"particles": 8}, "bandits": {"history": 4}}))
    arms, dimension = work.feature_map.arms, work.feature_map.dimension
    rng = np.random.default_rng(1)
    member = bandit_cases.mixture(rng, 3, arms, dimension)
    wide = work.feature_map.batch(dataset.events.slice(0, 1)).context_BX.shape[1]
    member = replace(member, encoder_HX=rng.normal(size=(2, wide)))
    trail = Trail.of(work.feature_map, dataset.events.slice(400, events), work.settings.reward, 0)
    return work.ensemble(*work.predefined.members(), member), trail


@pytest.fixture(scope="module", params=[shop, labelled], ids=["joint", "arms"])
def case(request: pytest.FixtureRequest) -> tuple[Ensemble, Trail]:
    return prepared(logged(request.param()))


def by_hand(ensemble: Ensemble, trail: Trail) -> tuple[np.ndarray, np.ndarray]:
    """Doubly robust score of every member and of the blend in every event, one at a time."""
    log, q = trail.log, trail.q_NK
    state = learn.start(ensemble)
    value, blend = np.zeros((len(log), len(ensemble.names))), np.zeros(len(log))
    for n in range(len(log)):
        if n % PUBLISH_EVERY == 0:
            published = learn.publish(state)
        user, a = trail.users_N[n], int(log.action_N[n])
        features = trail.batch.row(n)
        found = law.probabilities(published, features, state.histories.get(user or "nobody"), (SEED << 32) + n)
        for row, (score, pi_K) in enumerate(zip([*value[n], 0.0], [*found.member_MK, found.pi_K], strict=True)):
            for k in range(len(features)):
                score += pi_K[k] * q[n, k]
            if log.propensity_N is not None:
                score += pi_K[a] / log.propensity_N[n] * (log.reward_N[n] - q[n, a])
            if row < len(ensemble.names):
                value[n, row] = score
            else:
                blend[n] = score
        state = learn.step(
            state,
            learn.Outcome(
                user,
                features.phi_KD[a],
                int(features.arm_K[a]),
                int(features.item_K[a]),
                float(log.reward_N[n]),
                1.0 if log.propensity_N is None else float(log.propensity_N[n]),
                found.member_MK[:, a],
                int(features.kin.provider_K[a]) if features.kin else -1,
                int(features.kin.cluster_K[a]) if features.kin else -1,
                found.member_means_MK[:, a] if features.kin else None,
            ),
        )
    return value, blend


def test_scores_are_doubly_robust_under_the_law_of_the_moment(case: tuple[Ensemble, Trail]) -> None:
    ensemble, trail = case
    walked = walk(ensemble, trail, SEED)
    value, blend = by_hand(ensemble, trail)
    np.testing.assert_allclose(walked.value_NM, value, atol=1e-12)
    np.testing.assert_allclose(walked.blend_N, blend, atol=1e-12)
    assert walked.names == ensemble.names
    assert walked.mean() == pytest.approx(dict(zip(walked.names, value.mean(0), strict=True)))
    assert walked.left_out == 0


def test_uniform_is_worth_what_the_estimator_says_of_it(case: tuple[Ensemble, Trail]) -> None:
    ensemble, trail = case
    mask = trail.log.mask_NK
    flat = mask / mask.sum(1, keepdims=True)
    assert walk(ensemble, trail, SEED).mean()["uniform"] == pytest.approx(
        evaluate("dr", trail.log, flat, trail.q_NK).value
    )


def test_differences_pair_by_event_and_sum_by_user(case: tuple[Ensemble, Trail]) -> None:
    ensemble, trail = case
    walked = walk(ensemble, trail, SEED)
    for name, ours in (("generated", walked.value_NM[:, -1]), ("ensemble", walked.blend_N)):
        paired = walked.paired(name, "linear")
        sums: dict[int, list[float]] = {}
        for user, one, two in zip(trail.log.user_N.tolist(), ours, walked.value_NM[:, 2], strict=True):
            sums.setdefault(user, []).append(one - two)
        np.testing.assert_allclose(paired.sums_U, [sum(sums[u]) for u in range(len(sums))], atol=1e-12)
        assert paired.counts_U.tolist() == [len(sums[u]) for u in range(len(sums))]
        assert not paired.model_based
    np.testing.assert_array_equal(walked.paired("linear", "linear").sums_U, 0)


def test_later_rewards_leave_earlier_scores_alone(case: tuple[Ensemble, Trail]) -> None:
    ensemble, trail = case
    n = 41
    reward_N = trail.log.reward_N.copy()
    reward_N[n:] = 1 - reward_N[n:]
    other = replace(trail, log=replace(trail.log, reward_N=reward_N))
    one, two = walk(ensemble, trail, SEED), walk(ensemble, other, SEED)
    np.testing.assert_array_equal(one.value_NM[:n], two.value_NM[:n])
    np.testing.assert_array_equal(one.blend_N[:n], two.blend_N[:n])
    assert not np.array_equal(one.value_NM[n + 1 :], two.value_NM[n + 1 :])


def test_a_spent_budget_leaves_events_out_and_says_so(case: tuple[Ensemble, Trail]) -> None:
    ensemble, trail = case
    whole = walk(ensemble, trail, SEED)
    hurried = walk(ensemble, trail, SEED, left_s=lambda: 0.0)
    assert (len(hurried.log), hurried.left_out) == (MINIMUM, len(trail.log) - MINIMUM)
    np.testing.assert_array_equal(hurried.value_NM, whole.value_NM[:MINIMUM])
    paired = hurried.paired("generated", "linear")
    assert paired.counts_U.sum() == MINIMUM
    first = trail.first(20)
    assert (len(first.log), len(first.batch), len(first.users_N), first.left_out) == (20, 20, 20, 70)
    np.testing.assert_array_equal(walk(ensemble, first, SEED).value_NM, whole.value_NM[:20])
    steps: list[tuple[int, int]] = []
    walk(ensemble, trail, SEED, progress=lambda *step: steps.append(step))
    assert steps == [(32, 90), (64, 90)]


def test_without_propensities_scores_are_the_reward_models_with_its_error_weighed() -> None:
    """Beside the plain loop: what the model misses times the weight that stands for π/p."""
    ensemble, trail = prepared(shop())
    assert trail.log.propensity_N is None
    walked = walk(ensemble, trail, SEED)
    value, blend = by_hand(ensemble, trail)
    rows, log = np.arange(len(trail.log)), trail.log
    miss_N = log.reward_N - trail.q_NK[rows, log.action_N]
    share_NMK = (log.mask_NK / log.mask_NK.sum(1, keepdims=True))[:, None]
    weight_N = balance.ratios(log, trail.batch, share_NMK, SEED)[:, 0]
    np.testing.assert_allclose(walked.value_NM[:, 0], value[:, 0] + weight_N * miss_N, atol=1e-12)
    assert np.abs(walked.blend_N - blend).max() > 1e-3
    assert (np.abs(walked.value_NM - value).max(0) > 1e-3).all()
    paired = walked.paired("generated", "linear")
    assert paired.model_based
    one_N = walked.value_NM[:, -1] - walked.value_NM[:, 2]
    np.testing.assert_allclose(paired.sums_U, np.bincount(log.user_N, one_N), atol=1e-12)


def test_events_of_no_user_have_no_history() -> None:
    """Every other event has a user, every fourth a session; the generated member learns from nothing else."""
    dataset = logged(shop())
    users = [f"u{n % 6}" if n % 2 else None for n in range(600)]
    sessions = [f"s{n % 5}" if n % 4 == 0 else None for n in range(600)]
    ensemble, trail = prepared(changed(dataset, user_id=users, session_id=sessions))
    for n, user in enumerate(trail.users_N, start=400):
        named = (f"u:c/{users[n]}" if users[n] else None, f"s:c/{sessions[n]}" if sessions[n] else None)
        assert user == (named[0] or named[1])
    alone = ensemble.only("generated")
    nobody = np.array([user is None for user in trail.users_N])
    fresh = replace(trail, users_N=(None,) * len(trail.users_N))
    one, two = walk(alone, trail, SEED), walk(alone, fresh, SEED)
    np.testing.assert_array_equal(one.value_NM[nobody], two.value_NM[nobody])
    assert not np.array_equal(one.value_NM[~nobody], two.value_NM[~nobody])


def test_a_trail_keeps_what_fits_in_memory() -> None:
    """Parameters per item share one row of features, however many items there are."""
    for dataset, kind in ((shop(), "joint"), (shop(), "arms")):
        work = Groundwork.of(dataset, Settings.model_validate({"features": {"kind": kind}}))
        rows = 30 if kind == "joint" else 1
        budget = 8 * (rows * work.feature_map.dimension + 4 * 30) * 100
        trail = Trail.of(work.feature_map, dataset.events.slice(0, 150), work.settings.reward, 0, budget)
        assert (len(trail.log), trail.left_out) == (100, 50)
        stored = trail.batch.phi_BKD[:, :1] if trail.batch.repeats else trail.batch.phi_BKD
        assert trail.batch.repeats == (kind == "arms")
        assert stored.size * 8 <= budget
