"""The smoothed law that PPO trains, without Ray: against the real law, by hand, and within its bounds."""

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from actors.bandits import law, learn
from actors.bandits.blending import item_weights
from cluster.config import PpoSettings, RewardKind, Settings
from cluster.errors import EvidenceError
from cluster.records import EVENTS, Dataset
from tests.features_samples import table
from tests.misled import CANDIDATES, planted
from tune.blend_env import Answers, BlendEnv, Contexts
from tune.blending import signal
from tune.blending.gradient import Gradient, Loss, Rows
from tune.blending.policy import BlendPolicy, Form
from tune.blending.situations import Situations, situations

KIND = RewardKind()


def form(items: int = 4, **changes: Any) -> Form:
    return Form(**{"members": ("uniform", "one", "two"), "scored": (1, 2), "predefined": (0,), "floor": 0.02,
                   "reduced": 2, "neighbours": 1, "items": items, **changes})  # fmt: skip


def contexts(decisions: int, items: int = 4, seed: int = 0) -> Contexts:
    """The last item of every other decision is not there."""
    rng = np.random.default_rng(seed)
    shape = decisions, items, 3
    mask_BK = np.ones((decisions, items), np.bool_)
    mask_BK[::2, -1] = False
    floor_BK = np.where(mask_BK, 0.01 / mask_BK.sum(1, keepdims=True), 0.0)
    return Contexts(
        observed_BKN=rng.normal(size=(decisions, items, form().inputs)),
        logits_BKM=rng.normal(size=shape),
        mean_BKM=rng.uniform(size=shape) * [0, 1, 1],
        spread_BKM=rng.uniform(0.01, 0.1, shape) * [0, 1, 1],
        floor_BK=floor_BK,
        mask_BK=mask_BK,
        reward_BK=rng.uniform(size=(decisions, items)) * mask_BK,
    )


def trained(policy: BlendPolicy, seed: int = 1) -> BlendPolicy:
    """With a last layer that is no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        policy.last.weight.copy_(torch.randn(policy.last.weight.shape, generator=generator))
    return policy


def seen_of(policy: BlendPolicy, known: Contexts) -> torch.Tensor:
    return torch.from_numpy(policy.see(known))


def test_it_is_the_smoothed_law_written_out() -> None:
    """Against loops in double precision, straight from the formula."""
    made, known = form(), contexts(6)
    policy = trained(BlendPolicy(made))
    policy.standardise(known.observed_BKN.reshape(-1, made.inputs))
    with torch.no_grad():
        found = policy(seen_of(policy, known))[0].exp().numpy()
    residual, noise_KP = policy.residual(), policy.noise_KP.numpy().astype(float)
    assert np.abs(residual.logits(known.observed_BKN)).max() > 0.3
    for b in range(6):
        there = np.flatnonzero(known.mask_BK[b])
        plain_spread = []
        for g in (0.0, 1.0):
            mean, spread = {}, {}
            for k in there:
                logit_M = known.logits_BKM[b, k] + g * residual.logits(known.observed_BKN[b, k][None])[0]
                weight_M = np.exp(logit_M) / np.exp(logit_M).sum()
                weight_M[0] = max(weight_M[0], 0.02)
                share = weight_M[1:] / weight_M[1:].sum()
                mean[k], spread[k] = share @ known.mean_BKM[b, k, 1:], share @ known.spread_BKM[b, k, 1:]
            if not g:
                plain_spread = [spread[k] for k in there]
        chosen = np.zeros(4)
        for p in range(made.particles):
            score = np.array([mean[k] + spread[k] * noise_KP[k, p] for k in there])
            odds = np.exp((score - score.max()) / (made.temperature * np.mean(plain_spread)))
            chosen[there] += odds / odds.sum() / made.particles
        expected = 0.99 * chosen + known.floor_BK[b]
        np.testing.assert_allclose(found[b][there], expected[there], atol=2e-5)
        assert found[b][~known.mask_BK[b]].max(initial=0) <= 1e-11


def test_untrained_it_is_the_plain_blend() -> None:
    policy = BlendPolicy(form())
    log_pi_BK, plain_BK = policy(seen_of(policy, contexts(5)))
    np.testing.assert_array_equal(log_pi_BK.detach().numpy(), plain_BK.numpy())


def test_the_critic_starts_at_what_the_plain_blend_expects() -> None:
    policy, known = BlendPolicy(form()), contexts(4)
    seen_BO = seen_of(policy, known)
    logits = known.logits_BKM
    weights_BKM = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    share_BKM = weights_BKM[..., 1:] / weights_BKM[..., 1:].sum(-1, keepdims=True)
    mean_BK = (share_BKM * known.mean_BKM[..., 1:]).sum(-1)
    pi_BK = np.exp(policy(seen_BO)[1].numpy()) * known.mask_BK
    with torch.no_grad():
        np.testing.assert_allclose(policy.value(seen_BO).numpy(), (pi_BK * mean_BK).sum(1), atol=1e-5)


def test_a_published_residual_goes_on_where_it_was() -> None:
    one, known = trained(BlendPolicy(form())), contexts(5)
    one.standardise(known.observed_BKN.reshape(-1, one.form.inputs))
    other = BlendPolicy(form(seed=7))
    other.take(one.residual())
    other.noise_KP.copy_(one.noise_KP)
    with torch.no_grad():
        np.testing.assert_array_equal(other(seen_of(other, known))[0], one(seen_of(one, known))[0])


@pytest.fixture(scope="module")
def walked() -> Situations:
    world = planted(misleads=True, events=400)
    version = world.version
    return situations(version.ensemble, version.feature_map, world.dataset.events, KIND, 0, 50, None, world.expected)


def test_situations_hold_what_the_law_blends(walked: Situations) -> None:
    """The weights that follow from logits_BKM are those of the real law, at the last publication before the event."""
    world = planted(misleads=True, events=400)
    version, known = world.version, walked.contexts
    batch, state, checked = version.feature_map.batch(world.dataset.events), learn.start(version.ensemble), 0
    published = learn.publish(state)
    for n in range(400):
        if n and n % 32 == 0:
            published = learn.publish(state)
            kin = batch.row(n).kin
            found = item_weights(published, [kin])
            assert found is not None
            odds_KM = np.exp(known.logits_BKM[n])
            weights_KM = np.maximum(odds_KM / odds_KM.sum(1, keepdims=True), published.weights.predefined_floor)
            np.testing.assert_allclose(found[0][0].T, weights_KM / weights_KM.sum(1, keepdims=True), atol=1e-9)
            checked += 1
        features, action = batch.row(n), int(walked.action_B[n])
        told = law.probabilities(published, features, state.histories.get(f"c/u{n}"), n)
        np.testing.assert_allclose(known.mean_BKM[n], told.member_means_MK.T)
        outcome = learn.Outcome.of(
            features,
            action,
            user=None,
            reward=float(walked.reward_B[n]),
            propensity=1 / CANDIDATES,
            member_propensities_M=told.member_MK[:, action],
            member_means_M=told.member_means_MK[:, action],
        )
        state = learn.step(state, outcome)
    assert checked == 12


def test_spreads_are_those_of_the_particles(walked: Situations) -> None:
    """The specialists say 0.05; 64 draws tell it to a tenth at six standard errors, mean over all to a hundredth."""
    spread = walked.contexts.spread_BKM
    assert not spread[..., 0].any()
    np.testing.assert_allclose(spread[..., 1:], 0.05, rtol=0.55)
    assert spread[..., 1:].mean() == pytest.approx(0.05, rel=0.02)


def test_wide_decisions_are_left_out_and_counted() -> None:
    world = planted(misleads=True, events=60)
    version = world.version
    known = version.ensemble, version.feature_map, world.dataset.events, KIND, 0
    assert situations(*known, CANDIDATES).left_out == 0
    with pytest.raises(EvidenceError, match="none of 60 events has at most 7 items"):
        situations(*known, CANDIDATES - 1)
    with pytest.raises(EvidenceError, match="nothing of its items' content"):
        situations(version.ensemble, replace(version.feature_map, relations=None), world.dataset.events, KIND, 0, 50)


@pytest.mark.filterwarnings("ignore:.*Box observation space.*infinity:UserWarning")
def test_env_is_one_of_gymnasiums(tmp_path: Any) -> None:
    policy, known = BlendPolicy(form()), contexts(16)
    Answers(policy.see(known), known.reward_BK).save(tmp_path)
    env = BlendEnv({"answers": str(tmp_path), "seed": 0})
    check_env(env, skip_render_check=True)
    seen, _ = env.reset(seed=1)
    row = int(np.flatnonzero((env.answers.seen_BO == seen).all(axis=1))[0])
    rewards = []
    for _ in range(2_000):
        env.reset()
        env._decision = row
        rewards.append(env.step(np.int64(2))[1])
    assert np.mean(rewards) == pytest.approx(known.reward_BK[row, 2], abs=0.06)  # five standard errors at most
    rng = np.random.default_rng(0)
    drawn = env.answers.draw(np.full(20_000, row), np.full(20_000, 2), rng)
    assert drawn.mean() == pytest.approx(known.reward_BK[row, 2], abs=0.02)  # five standard errors at most


def test_contexts_refuse_what_is_not_finite() -> None:
    known = contexts(3)
    with pytest.raises(EvidenceError, match="finite"):
        replace(known, reward_BK=np.full((3, 4), np.nan))
    with pytest.raises(EvidenceError, match="an item in one of them"):
        replace(known, mask_BK=np.zeros((3, 4), np.bool_))


def liked() -> Dataset:
    """Three decisions: one clicked and read for 30 s, one liked, one without anything."""
    rows = [("e0", "click", 1.0), ("e0", "time_s", 30.0), ("e1", "like", 1.0), ("e1", "click", 0.0), ("e2", None, None)]
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    events = table(
        EVENTS,
        len(rows),
        event_id=[row[0] for row in rows],
        timestamp=[at + dt.timedelta(seconds=n) for n in range(len(rows))],
        client_id=["c"] * len(rows),
        user_id=["u"] * len(rows),
        candidates=[["a", "b"]] * len(rows),
        item_id=["a"] * len(rows),
        reward=[row[2] for row in rows],
        reward_kind=[row[1] for row in rows],
    )
    empty = pa.table({})
    return Dataset("feedback", events, empty, empty, None, {})


SIGNAL = {
    "reward_kind": "click",
    "rewards": {"click": {}, "like": {}, "time_s": {"high": 120.0}},
    "ppo": {"signal": {"click": 1, "like": 2, "time_s": 1}},
}


def test_signal_by_hand() -> None:
    """(1·1 + 2·0 + 1·30/120)/4, (0 + 2·1 + 0)/4, 0."""
    found = signal.apply(liked(), Settings.model_validate(SIGNAL))
    assert found.events["reward"].to_pylist() == pytest.approx([0.3125, 0.5, 0.0])
    assert found.events["event_id"].to_pylist() == ["e0", "e1", "e2"]


def test_signal_names_kinds_that_are_there() -> None:
    undeclared = Settings.model_validate(SIGNAL | {"ppo": {"signal": {"share": 1}}})
    with pytest.raises(EvidenceError, match="'share', which is not declared"):
        signal.apply(liked(), undeclared)
    absent = Settings.model_validate(
        SIGNAL | {"rewards": {**SIGNAL["rewards"], "share": {}}, "ppo": {"signal": {"share": 1}}}  # type: ignore[dict-item]
    )
    with pytest.raises(EvidenceError, match="no rewards of kind 'share'"):
        signal.apply(liked(), absent)
    nothing = liked()
    assert signal.apply(nothing, Settings()) is nothing


def test_settings_keep_particles_in_pairs() -> None:
    with pytest.raises(ValueError, match="multiple"):
        PpoSettings(particles=7)


@pytest.mark.parametrize("bounds", [(1e9, 0.0), (0.0, 3.0)], ids=["within bounds", "beyond both"])
def test_the_gradient_written_out_is_autograds(bounds: tuple[float, float]) -> None:
    """Of the loss as `BlendLearner.compute_loss_for_module` has it, written once more; items that are not there too."""
    known, rng = contexts(64), np.random.default_rng(3)
    policy = trained(BlendPolicy(form()))
    with torch.no_grad():
        next(iter(policy.critic[4].parameters())).fill_(0.1)
    policy.standardise(known.observed_BKN.reshape(-1, policy.form.inputs))
    seen_BO = policy.see(known)
    action_B, advantage_B = rng.integers(3, size=64), rng.normal(size=64).astype(np.float32)
    target_B, seen = rng.random(64).astype(np.float32), torch.from_numpy(seen_BO)
    log_pi_BK, plain_BK = policy(seen)
    chosen_B = log_pi_BK.gather(1, torch.from_numpy(action_B)[:, None])[:, 0]
    logp_B = (chosen_B.detach().numpy() + 0.3 * rng.normal(size=64)).astype(np.float32)
    ratio_B, above_B = (chosen_B - torch.from_numpy(logp_B)).exp(), torch.from_numpy(advantage_B)
    pi_BK, (kl_most, entropy_least) = log_pi_BK.exp(), bounds
    entropy, kl = -(pi_BK * log_pi_BK).sum(1).mean(), (pi_BK * (log_pi_BK - plain_BK)).sum(1).mean()
    least = -entropy_least * (plain_BK.exp() * plain_BK).sum(1).mean()
    error_B = policy.value(seen) - torch.from_numpy(target_B)
    loss = -torch.min(ratio_B * above_B, ratio_B.clamp(0.8, 1.2) * above_B).mean() + 0.5 * error_B.square().mean()
    miss_B = policy.foretold(seen).gather(1, torch.from_numpy(action_B)[:, None])[:, 0] - torch.from_numpy(target_B)
    loss = (
        loss
        + 0.7 * miss_B.square().mean()
        - 0.01 * entropy
        + 5 * (torch.relu(kl - kl_most) + torch.relu(least - entropy))
    )
    loss.backward()  # type: ignore[no-untyped-call]
    expected = {name: value.grad.clone() for name, value in policy.named_parameters() if value.grad is not None}
    policy.zero_grad()
    rows = Rows.of(policy, seen_BO, action_B, logp_B, advantage_B, target_B)
    Gradient(policy)(rows, Loss(0.2, 0.5, 0.7, 0.01, kl_most, entropy_least, 5.0))
    assert len(expected) == 12
    for name, value in policy.named_parameters():
        assert value.grad is not None
        size = float(expected[name].abs().max())
        assert size > 0, name
        np.testing.assert_allclose(value.grad / size, expected[name] / size, atol=1e-5, err_msg=name)
