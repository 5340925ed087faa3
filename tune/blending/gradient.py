"""The gradient of PPO's loss for BlendPolicy, written out: what autograd gives, in less than half the time.

Autograd keeps and passes through some sixty small tensors for each of a batch's gradient steps, and reads its inputs in
strides. Here each step is a few matrix products into memory that is kept, with members and items in the outer axes.
`BlendLearner.compute_loss_for_module` says what the loss is; a test compares the two.

Shapes: B decisions of a minibatch, K items, R = B·K rows, N inputs, W width, M members, P particles.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from actors.bandits.residual import RESIDUAL_MOST
from actors.features.features import Floats, Ints
from tune.blend_env import SCALARS, Single
from tune.blending.policy import BlendPolicy

LEAST = 1e-12
"""π is no less in a logarithm, as in BlendPolicy."""


@dataclass(frozen=True)
class Rows:
    """Decisions with what was done in them, in the order of their use.

    observed_BKN, and pooled_BN, what the critic reads. law_3MBK: logits, means and spreads of members, the latter two
    in units of the temperature. own_3BK: floor, valid, log π₀. expected_B: reward of the plain blend. temperature_B.
    action_B, logp_B (under the old policy), advantage_B, reward_B: of the items taken.
    """

    observed_BKN: Single
    pooled_BN: Single
    law_3MBK: Single
    own_3BK: Single
    expected_B: Single
    temperature_B: Single
    action_B: Ints
    logp_B: Floats
    advantage_B: Floats
    reward_B: Floats

    @classmethod
    def of(
        cls, policy: BlendPolicy, seen_BO: Single, action_B: Ints, logp_B: Floats, advantage_B: Floats, reward_B: Floats
    ) -> "Rows":
        inputs, members = policy.form.inputs, len(policy.form.members)
        rows_BKF = seen_BO[:, :-SCALARS].reshape(len(seen_BO), policy.form.items, -1)
        law_3MBK = np.ascontiguousarray(rows_BKF[..., inputs : inputs + 3 * members].transpose(2, 0, 1))
        law_3MBK[members:] /= seen_BO[:, -SCALARS, None]
        observed_BKN, valid_BK = np.ascontiguousarray(rows_BKF[..., :inputs]), rows_BKF[..., -2]
        return cls(
            observed_BKN,
            np.matmul(valid_BK[:, None], observed_BKN)[:, 0] / valid_BK.sum(1, keepdims=True),
            law_3MBK,
            np.ascontiguousarray(rows_BKF[..., inputs + 3 * members :].transpose(2, 0, 1)),
            seen_BO[:, -1],
            seen_BO[:, -SCALARS],
            action_B,
            logp_B,
            advantage_B,
            reward_B,
        )

    def take(self, rows: Ints | slice) -> "Rows":
        return Rows(
            self.observed_BKN[rows],
            self.pooled_BN[rows],
            self.law_3MBK[:, rows],
            self.own_3BK[:, rows],
            self.expected_B[rows],
            self.temperature_B[rows],
            self.action_B[rows],
            self.logp_B[rows],
            self.advantage_B[rows],
            self.reward_B[rows],
        )


@dataclass(frozen=True)
class Loss:
    """clip: of ratios. critic, foretell: weights of the squared errors of the critic, and of what the blend foretells
    of the item taken. entropy: of the entropy. The bounds, and the penalty of a nat beyond them, are those of
    `tune.blending.learner`."""

    clip: float
    critic: float
    foretell: float
    entropy: float
    kl_most: float
    entropy_least: float
    penalty: float


class Gradient:
    """Writes the gradient of the loss to the parameters' `grad`, minibatch by minibatch."""

    def __init__(self, policy: BlendPolicy) -> None:
        self._policy = policy
        noise_KP = policy.noise_KP.numpy()
        self._noise_K1P, self._sums_KP2 = noise_KP[:, None], np.stack([np.ones_like(noise_KP), noise_KP], axis=-1)
        self._floor_M11 = policy.floor_M.numpy()[:, None, None]
        self._scored = np.flatnonzero(policy.scored_M.numpy())
        self._kept: dict[str, Single] = {}

    def __call__(self, rows: Rows, loss: Loss) -> None:
        policy = self._policy
        flat_RN = rows.observed_BKN.reshape(-1, rows.observed_BKN.shape[-1])
        first_RW = self._hidden("first", flat_RN, policy.first)
        second_RW = self._hidden("second", first_RW, policy.second)
        out_MR = _weight(policy.last) @ second_RW.T + _bias(policy.last)[:, None]
        back_MR = self._law(rows, out_MR.reshape(-1, *rows.observed_BKN.shape[:2]), loss).reshape(out_MR.shape)
        _grad(policy.last, back_MR @ second_RW, back_MR.sum(1))
        back_RW = self._room("back", second_RW.shape)
        np.matmul(back_MR.T, _weight(policy.last), out=back_RW)
        self._close(back_RW, second_RW)
        _grad(policy.second, back_RW.T @ first_RW, _sums(back_RW))
        more_RW = self._room("more", first_RW.shape)
        np.matmul(back_RW, _weight(policy.second), out=more_RW)
        self._close(more_RW, first_RW)
        _grad(policy.first, more_RW.T @ flat_RN, _sums(more_RW))
        self._critic(rows, loss.critic)

    def _law(self, rows: Rows, out_MBK: Single, loss: Loss) -> Single:
        """From the network's outputs to the loss, and back: its gradient by the outputs (M, B, K)."""
        members = len(out_MBK)
        logits_MBK, mean_MBK, spread_MBK = np.split(rows.law_3MBK, 3)
        bent_MBK = np.tanh(out_MBK / RESIDUAL_MOST)
        weight_MBK = logits_MBK + RESIDUAL_MOST * bent_MBK
        weight_MBK -= weight_MBK.max(0)
        np.exp(weight_MBK, out=weight_MBK)
        weight_MBK /= weight_MBK.sum(0)
        part_SBK = np.maximum(weight_MBK, self._floor_M11)[self._scored]
        total_BK = part_SBK.sum(0)
        part_SBK /= total_BK
        mean_SBK, spread_SBK = mean_MBK[self._scored], spread_MBK[self._scored]
        mean_BK, spread_BK = (part_SBK * mean_SBK).sum(0), (part_SBK * spread_SBK).sum(0)
        mean_BK += (rows.own_3BK[1] - 1) * np.float32(1e9)
        score_KBP = self._room("score", (len(self._noise_K1P), len(mean_BK), self._noise_K1P.shape[-1]))
        np.multiply(np.ascontiguousarray(spread_BK.T)[..., None], self._noise_K1P, out=score_KBP)
        score_KBP += np.ascontiguousarray(mean_BK.T)[..., None]
        score_KBP -= score_KBP.max(0)
        np.exp(score_KBP, out=score_KBP)
        score_KBP *= 1 / score_KBP.sum(0)
        blended_B = (1 - rows.own_3BK[0].sum(1)) / score_KBP.shape[-1]
        chosen_KB = np.matmul(score_KBP, self._sums_KP2[..., :1])[..., 0]
        pi_BK = np.maximum(blended_B[:, None] * chosen_KB.T + rows.own_3BK[0], np.float32(LEAST))
        back_KB1 = (blended_B * np.ascontiguousarray(self._to_pi(rows, pi_BK, loss).T))[..., None]
        # Back through the particles' softmax: s·(d − Σ s d), where d is the same in every particle.
        back_KBP = score_KBP * back_KB1
        score_KBP *= back_KBP.sum(0)
        back_KBP -= score_KBP
        to_mean_BK, to_spread_BK = np.matmul(back_KBP, self._sums_KP2).transpose(2, 1, 0)
        every, temperature_B = np.arange(len(pi_BK)), rows.temperature_B
        miss_B = mean_BK[every, rows.action_B] * temperature_B - rows.reward_B
        to_mean_BK[every, rows.action_B] += np.float32(2 * loss.foretell / len(pi_BK)) * miss_B * temperature_B
        back_SBK = to_mean_BK * mean_SBK + to_spread_BK * spread_SBK
        back_SBK -= (part_SBK * back_SBK).sum(0)
        back_SBK /= total_BK
        back_MBK = np.zeros((members, *pi_BK.shape), np.float32)
        back_MBK[self._scored] = back_SBK
        back_MBK *= weight_MBK >= self._floor_M11
        back_MBK -= (weight_MBK * back_MBK).sum(0)
        back_MBK *= weight_MBK
        back_MBK *= 1 - bent_MBK * bent_MBK
        return back_MBK

    def _to_pi(self, rows: Rows, pi_BK: Single, loss: Loss) -> Single:
        """The gradient of the loss by π (B, K)."""
        count = len(pi_BK)
        every, log_BK, plain_BK = np.arange(count), np.log(pi_BK), rows.own_3BK[2]
        ratio_B = np.exp(log_BK[every, rows.action_B] - rows.logp_B)
        moves_B = np.where(rows.advantage_B > 0, ratio_B <= 1 + loss.clip, ratio_B >= 1 - loss.clip)
        entropy, kl = -(pi_BK * log_BK).sum() / count, (pi_BK * (log_BK - plain_BK)).sum() / count
        least = -loss.entropy_least * (np.exp(plain_BK) * plain_BK).sum() / count
        more_entropy = loss.entropy + loss.penalty * (least > entropy)
        back_BK = np.zeros_like(pi_BK)
        if more_entropy:
            back_BK += np.float32(more_entropy / count) * (log_BK + 1)
        if kl > loss.kl_most:
            back_BK += np.float32(loss.penalty / count) * (log_BK - plain_BK + 1)
        back_BK[every, rows.action_B] -= moves_B * rows.advantage_B * ratio_B / (count * pi_BK[every, rows.action_B])
        back_BK *= pi_BK > LEAST
        return back_BK

    def _critic(self, rows: Rows, scale: float) -> None:
        first, second, last = (self._policy.critic[place] for place in (0, 2, 4))
        pooled_BN = rows.pooled_BN
        first_BW = np.maximum(pooled_BN @ _weight(first).T + _bias(first), 0)
        second_BW = np.maximum(first_BW @ _weight(second).T + _bias(second), 0)
        value_B = rows.expected_B + (second_BW @ _weight(last).T + _bias(last))[:, 0]
        back_B1 = (2 * scale / len(value_B) * (value_B - rows.reward_B))[:, None].astype(np.float32)
        _grad(last, back_B1.T @ second_BW, back_B1.sum(0))
        back_BW = (back_B1 @ _weight(last)) * (second_BW > 0)
        _grad(second, back_BW.T @ first_BW, back_BW.sum(0))
        back_BW = (back_BW @ _weight(second)) * (first_BW > 0)
        _grad(first, back_BW.T @ pooled_BN, back_BW.sum(0))

    def _hidden(self, name: str, inputs_RI: Single, layer: nn.Linear) -> Single:
        """max(Wx + b, 0)."""
        found_RW = self._room(name, (len(inputs_RI), layer.out_features))
        np.matmul(inputs_RI, _weight(layer).T, out=found_RW)
        found_RW += _bias(layer)
        torch.relu_(torch.from_numpy(found_RW))  # six times as fast as NumPy's
        return found_RW

    @staticmethod
    def _close(back_RW: Single, hidden_RW: Single) -> None:
        """Zero the gradient where the layer was closed."""
        back, hidden = torch.from_numpy(back_RW), torch.from_numpy(hidden_RW)
        torch.ops.aten.threshold_backward.grad_input(back, hidden, 0, grad_input=back)

    def _room(self, name: str, shape: tuple[int, ...]) -> Single:
        """Memory that is kept from step to step."""
        if name not in self._kept or self._kept[name].shape != shape:
            self._kept[name] = np.empty(shape, np.float32)
        return self._kept[name]


def _sums(back_RW: Single) -> Single:
    """Of columns; a product is four times as fast as NumPy's sum."""
    return np.asarray(np.ones(len(back_RW), np.float32) @ back_RW)


def _weight(layer: nn.Module) -> Single:
    assert isinstance(layer, nn.Linear)
    return np.asarray(layer.weight.detach().numpy())


def _bias(layer: nn.Module) -> Single:
    assert isinstance(layer, nn.Linear)
    return np.asarray(layer.bias.detach().numpy())


def _grad(layer: nn.Module, weight: Single, bias: Single) -> None:
    assert isinstance(layer, nn.Linear)
    layer.weight.grad, layer.bias.grad = torch.from_numpy(weight), torch.from_numpy(bias)
