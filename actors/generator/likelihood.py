"""The mixture marginal likelihood of users' reward sequences, and what it needs of each user.

With θ = m_s + e, e ~ N(0, S + VE_s²Vᵀ) for code s, the rewards of user u are r ~ N(Φm_s, B + W E_s² Wᵀ) where
B = ΦSΦᵀ + σ²I does not depend on the code and W = ΦV has R columns. So B is factorised once per user and each
code costs an R x R matrix (Woodbury; Petersen & Pedersen 2012, §3.2.2), and

    L_u = -log (1/S) Σ_s N(r_u; Φ_u m_s, Φ_uΣ_sΦ_uᵀ + σ²I).

The mean of the log-likelihoods instead of the log of the mean would leave all codes alike.

Shapes: U tasks of a batch, N rows padded, D features, R rank, S codes.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from actors.bandits.mixture import reward_scale
from actors.features.features import Floats, Ints
from actors.generator.priors import Priors
from actors.generator.tasks import Tasks


@dataclass(frozen=True)
class Batch:
    """Padded rows of U tasks (zeros beyond a task's end, where `mask_UN` is 0).

    white_UND: φ in the coordinates in which S₀ is diagonal for the row's fold and arm; weight_UND: the
    eigenvalues there (data precision over prior precision). mean_UN: φᵀμ₀ of the fold. code_UQ: context embedding.
    """

    phi_UND: torch.Tensor
    white_UND: torch.Tensor
    weight_UND: torch.Tensor
    mean_UN: torch.Tensor
    reward_UN: torch.Tensor
    mask_UN: torch.Tensor
    arm_UN: torch.Tensor
    code_UQ: torch.Tensor


@dataclass(frozen=True)
class Whitened:
    """S₀ as a diagonal: with T = Λ₀^(-1/2) and its rotation, S(τ) = T diag(1/(1 + d/τ²)) Tᵀ.

    turn_FADD (T), weight_FAD (d >= 0).
    """

    turn_FADD: Floats
    weight_FAD: Floats

    @classmethod
    def of(cls, priors: Priors) -> "Whitened":
        root_FDD = np.linalg.inv(np.linalg.cholesky(priors.prior_FDD)).swapaxes(-1, -2)
        inner_FADD = root_FDD.swapaxes(-1, -2)[:, None] @ priors.data_FADD @ root_FDD[:, None]
        weight_FAD, vectors_FADD = np.linalg.eigh((inner_FADD + inner_FADD.swapaxes(-1, -2)) / 2)
        return cls(root_FDD[:, None] @ vectors_FADD, np.maximum(weight_FAD, 0.0))

    def covariance(self, fold: int, tempering: float) -> Floats:
        """S(τ) of a fold, (A, D, D); `tempering` is τ²."""
        scale_AD = 1 / (1 + self.weight_FAD[fold] / tempering)
        turn_ADD = self.turn_FADD[fold]
        covariance_ADD: Floats = (turn_ADD * scale_AD[:, None]) @ turn_ADD.swapaxes(-1, -2)
        return covariance_ADD


class Rows:
    """Tasks made ready: whitened rows, prior means, batches.

    least_variance: of clicks (`actors.generator.clicks`); rows and rewards are then divided by `reward_scale` of their
    prior mean, so that σ² is a dispersion.
    """

    def __init__(
        self,
        tasks: Tasks,
        code_UQ: Floats,
        fold_U: Ints,
        priors: Priors,
        whitened: Whitened,
        least_variance: float | None = None,
    ):
        self.code_UQ, self.whitened = code_UQ, whitened
        arms = priors.mean_FAD.shape[1]
        self.arm_N = tasks.arm_N % arms
        fold_N = np.repeat(fold_U, tasks.sizes_U)
        self.mean_N = prior_means(tasks, fold_U, priors)
        self.white_ND = np.empty_like(tasks.phi_ND)
        self.place_N = fold_N * arms + self.arm_N
        self.weights = whitened.weight_FAD.reshape(-1, tasks.phi_ND.shape[1])
        for place in np.unique(self.place_N):
            rows, (fold, arm) = self.place_N == place, divmod(int(place), arms)
            self.white_ND[rows] = tasks.phi_ND[rows] @ whitened.turn_FADD[fold, arm]
        alike_N = np.ones_like(self.mean_N)
        self.scale_N = alike_N if least_variance is None else reward_scale(self.mean_N, least_variance)
        self.mean_N /= self.scale_N
        self.white_ND /= self.scale_N[:, None]
        self.tasks = replace(tasks, phi_ND=tasks.phi_ND / self.scale_N[:, None], reward_N=tasks.reward_N / self.scale_N)

    def batch(self, chosen_U: Ints) -> Batch:
        tasks = self.tasks
        sizes = tasks.sizes_U[chosen_U]
        rows_UN = tasks.start_U[chosen_U][:, None] + np.arange(sizes.max())
        mask_UN = np.arange(sizes.max()) < sizes[:, None]
        rows_UN = np.where(mask_UN, rows_UN, 0)

        def padded(values: Floats) -> torch.Tensor:
            mask = mask_UN if values.ndim == 1 else mask_UN[..., None]
            return torch.from_numpy(values[rows_UN] * mask)

        return Batch(
            padded(tasks.phi_ND),
            padded(self.white_ND),
            torch.from_numpy(self.weights[self.place_N[rows_UN]]),
            padded(self.mean_N),
            padded(tasks.reward_N),
            torch.from_numpy(mask_UN.astype(np.float64)),
            torch.from_numpy(self.arm_N[rows_UN]),
            torch.from_numpy(self.code_UQ[chosen_U]),
        )


def prior_means(tasks: Tasks, fold_U: Ints, priors: Priors) -> Floats:
    """φᵀμ₀ of each row, under the fit of its user's fold."""
    arm_N = tasks.arm_N % priors.mean_FAD.shape[1]
    fold_N, mean_N = np.repeat(fold_U, tasks.sizes_U), np.empty(len(arm_N))
    for fold, arm in {*zip(fold_N.tolist(), arm_N.tolist(), strict=True)}:
        rows = (fold_N == fold) & (arm_N == arm)
        mean_N[rows] = tasks.phi_ND[rows] @ priors.mean_FAD[fold, arm]
    return mean_N


def log_normals(
    error_UN: torch.Tensor,
    shift_USR: torch.Tensor,
    shifted_UNR: torch.Tensor,
    base_UNN: torch.Tensor,
    spread_UNR: torch.Tensor,
    scale_USR: torch.Tensor,
    mask_UN: torch.Tensor,
) -> torch.Tensor:
    """log N(error; X h_s, B + W diag(e^{g_s})² Wᵀ) for each code, (U, S).

    Args:
        error_UN: r - Φμ.
        shift_USR, shifted_UNR: h and X = ΦU.
        base_UNN: B with noise on the diagonal, identity rows where the mask is 0.
        spread_UNR, scale_USR: W = ΦV, and e^g.
        mask_UN: 1 on rows, 0 on padding, where all of the above are 0.
    """
    root_UNN = torch.linalg.cholesky(base_UNN)
    rank = shifted_UNR.shape[-1]
    joined = torch.cat([error_UN[..., None], shifted_UNR, spread_UNR], -1)
    solved = torch.linalg.solve_triangular(root_UNN, joined, upper=False)
    error, shifted_UNR, spread_UNR = solved[..., 0], solved[..., 1 : rank + 1], solved[..., rank + 1 :]
    left_USN = error[:, None] - torch.einsum("unr,usr->usn", shifted_UNR, shift_USR)
    inner_URR = spread_UNR.mT @ spread_UNR
    eye = torch.eye(inner_URR.shape[-1], dtype=inner_URR.dtype)
    capacity = eye + scale_USR[..., None] * inner_URR[:, None] * scale_USR[..., None, :]
    half_USR = scale_USR * torch.einsum("unr,usn->usr", spread_UNR, left_USN)
    factor = torch.linalg.cholesky(capacity)
    explained = torch.linalg.solve_triangular(factor, half_USR[..., None], upper=False).square().sum((-1, -2))
    fit_US = left_USN.square().sum(-1) - explained
    size_US = (
        2 * root_UNN.diagonal(dim1=-2, dim2=-1).log().sum(-1)[:, None]
        + 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        + math.log(2 * math.pi) * mask_UN.sum(-1)[:, None]
    )
    log_US: torch.Tensor = -0.5 * (fit_US + size_US)
    return log_US
