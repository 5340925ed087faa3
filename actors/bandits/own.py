"""The priors that the decoder makes of one context, and what a history says to them.

They share L and differ in h_s and e^{g_s} alone, R numbers each, so a history is taken in once for all contexts
(`Known`): with G₀ = k + σ²I = L₀L₀ᵀ and everything multiplied by L₀⁻¹ (a = r − Φμ, X = ΦU, W = ΦV), prior s has
the residual a − X h_s and the covariance I + W_s W_sᵀ, W_s = W diag(e^{g_s}), whose inverse is an R x R matrix's
(Woodbury; Petersen & Pedersen 2012, §3.2.2).

Shapes: S priors, A arms, D features, R rank, N history rows.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from actors.bandits.conditioned import Evidence, Rows, base_kernel, based
from actors.bandits.decoder import Decoder
from actors.bandits.history import History
from actors.features.features import Floats, Ints


@dataclass(frozen=True)
class Points:
    """Rows in what all contexts share: base_ND (q), mean_N (Φμ), shift_NR (ΦU), spread_NR (ΦV)."""

    base_ND: Floats
    arm_N: Ints
    mean_N: Floats
    shift_NR: Floats
    spread_NR: Floats

    @classmethod
    def of(cls, decoder: Decoder, factor_ADD: Floats, phi_ND: Floats, arm_N: Ints) -> "Points":
        return cls(based(factor_ADD, phi_ND, arm_N), arm_N, *decoder.project(phi_ND, arm_N))

    def under(self, shift_SR: Floats, scale_SR: Floats) -> Rows:
        """With h_s and e^{g_s}."""
        rank_SNR = self.spread_NR * scale_SR[:, None]
        return Rows(self.mean_N + shift_SR @ self.shift_NR.T, self.base_ND, rank_SNR, self.arm_N)


@dataclass(frozen=True)
class Known:
    """A history's rows, and multiplied by L₀⁻¹ (half_NN): left_N (a), shift_NR (X), spread_NR (W).

    size: log |G₀| + N log 2π.
    """

    rows: Points
    half_NN: Floats
    left_N: Floats
    shift_NR: Floats
    spread_NR: Floats
    size: float

    @classmethod
    def of(cls, decoder: Decoder, factor_ADD: Floats, noise: float, history: History) -> "Known":
        """Take in a history, whose rows are scaled already."""
        rows = Points.of(decoder, factor_ADD, history.phi_ND, history.arm_N)
        root_NN = np.linalg.cholesky(base_kernel(rows, rows) + noise * np.eye(len(history)))
        half_NN = np.linalg.inv(root_NN)
        size = 2 * np.log(np.diagonal(root_NN)).sum() + len(history) * np.log(2 * np.pi)
        left_N = half_NN @ (history.reward_N - rows.mean_N)
        return cls(rows, half_NN, left_N, half_NN @ rows.shift_NR, half_NN @ rows.spread_NR, float(size))

    @cached_property
    def inner_RR(self) -> Floats:
        return self.spread_NR.T @ self.spread_NR

    @cached_property
    def inverse_NN(self) -> Floats:
        """G₀⁻¹."""
        return self.half_NN.T @ self.half_NN

    @cached_property
    def back_NR(self) -> Floats:
        """G₀⁻¹ΦV."""
        return self.half_NN.T @ self.spread_NR


class Member(Protocol):
    """What all priors of a member share."""

    @property
    def factor_ADD(self) -> Floats: ...

    @property
    def noise(self) -> float: ...

    def known(self, history: History) -> Known: ...


class Own:
    """The S priors of a context with this code, equally likely (logits_S) before a history speaks."""

    def __init__(self, member: Member, decoder: Decoder, code_Q: Floats):
        self._member, self._decoder = member, decoder
        self.shift_SR, self.scale_SR = decoder.outputs(code_Q)
        self.logits_S = np.zeros(len(self.shift_SR))

    @property
    def factor_ADD(self) -> Floats:
        return self._member.factor_ADD

    @property
    def noise(self) -> float:
        return self._member.noise

    def project(self, phi_ND: Floats, arm_N: Ints) -> Rows:
        """Prior means and kernel coordinates of rows."""
        return Points.of(self._decoder, self.factor_ADD, phi_ND, arm_N).under(self.shift_SR, self.scale_SR)

    def evidence(self, history: History) -> Evidence:
        """As a mixture's, without a factorisation of N x N matrices for each prior."""
        past = self._member.known(history)
        left_SN = past.left_N - self.shift_SR @ past.shift_NR.T
        spread_SNR = past.spread_NR * self.scale_SR[:, None]
        inner_SRR = past.inner_RR * (self.scale_SR[:, :, None] * self.scale_SR[:, None])
        inner_SRR += np.eye(inner_SRR.shape[-1])
        pull_SR1 = np.matmul(spread_SNR.swapaxes(1, 2), left_SN[..., None])
        solved_SR1 = np.linalg.solve(inner_SRR, pull_SR1)
        fit_S = (left_SN**2).sum(1) - (pull_SR1 * solved_SR1).sum((1, 2))
        size_S = past.size + np.linalg.slogdet(inner_SRR)[1]
        back_SNR = past.back_NR * self.scale_SR[:, None]
        less_SNN = np.matmul(back_SNR, np.linalg.solve(inner_SRR, back_SNR.swapaxes(1, 2)))
        residual_SN = left_SN - np.matmul(spread_SNR, solved_SR1)[..., 0]
        rows = past.rows.under(self.shift_SR, self.scale_SR)
        return Evidence(rows, past.inverse_NN - less_SNN, residual_SN @ past.half_NN, -0.5 * (fit_S + size_S))
