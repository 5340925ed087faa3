"""The posteriors of many candidates, as tensors, all of them changed together by rank-one updates.

A posterior is N(μ, LLᵀ) with L upper triangular, as in actors.bandits.posterior. An outcome (φ, r) adds φφᵀ/σ² to
the precision. With v = Lᵀφ and s_j = σ² + Σ_{i<=j} v_i², the columns of the new factor are (Carlson 1973)

    L'_j = L_j √(s_{j−1}/s_j) − (Σ_{i<j} L_i v_i) v_j / √(s_{j−1} s_j)

which is the factor that a factorisation from nothing gives, hence the same draws, in D² steps instead of D³. Forgetting
and many outcomes at once, which are not of rank one, factor anew.

Shapes: C candidates, A arms, D features, B events scored together, K items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from actors.bandits.ensemble import Prior
from actors.bandits.posterior import gaussian
from cluster.errors import EvidenceError

FLOAT = torch.float64


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One candidate: how a linear bandit on the shared features explores, doubts and forgets.

    exploration_scale: α, the factor on posterior deviations; 0 chooses greedily. epsilon: share of uniform choices.
    prior_strength: what the prior's precision is multiplied by. noise: σ², variance of a scaled reward, None for the
    prior's own. half_life: outcomes after which data count half, None for never.
    """

    exploration_scale: float = 1.0
    epsilon: float = 0.0
    prior_strength: float = 1.0
    noise: float | None = None
    half_life: float | None = None

    def __post_init__(self) -> None:
        checks = {
            "exploration_scale": self.exploration_scale >= 0,
            "epsilon": 0 <= self.epsilon <= 1,
            "prior_strength": self.prior_strength > 0,
            "noise": self.noise is None or self.noise > 0,
            "half_life": self.half_life is None or self.half_life > 0,
        }
        for name, holds in checks.items():
            if not holds:
                raise EvidenceError(f"{name} = {getattr(self, name)} of a candidate is out of its range; see its docs")


class Beliefs:
    """What C candidates think: mean_CAD, factor_CADD (L). Raises ModelError for a prior that is not proper."""

    def __init__(self, settings: Sequence[Setting], prior: Prior, device: str):
        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=FLOAT, device=device)

        start = gaussian(prior.precision_ADD, prior.shift_AD)
        self._strength_C = column([s.prior_strength for s in settings])
        self._noise_C1 = column([prior.noise if s.noise is None else s.noise for s in settings])[:, None]
        self._scale_C11 = column([s.exploration_scale for s in settings])[:, None, None]
        self._half_life_C1 = column([s.half_life or float("inf") for s in settings])[:, None]
        self._prior_ADD, self._prior_AD = (
            torch.as_tensor(array, dtype=FLOAT, device=device) for array in (prior.precision_ADD, prior.shift_AD)
        )
        count, (arms, d) = len(settings), start.mean_AD.shape
        mean_AD, factor_ADD = (
            torch.as_tensor(a, dtype=FLOAT, device=device) for a in (start.mean_AD, start.factor_ADD)
        )
        self.mean_CAD = mean_AD.repeat(count, 1, 1)
        self.factor_CADD = factor_ADD / self._strength_C.sqrt()[:, None, None, None]
        self._first_C = torch.arange(count, device=device) * arms
        self._taken_CDD, self._product_CDD = (torch.empty(count, d, d, dtype=FLOAT, device=device) for _ in range(2))
        self._sums_CDE = torch.zeros(count, d, d + 1, dtype=FLOAT, device=device)

    @staticmethod
    def bytes_each(arms: int, dimension: int) -> int:
        """Memory of one candidate: its posterior and room to work, that of forgetting included."""
        return 8 * (arms + 8) * (dimension + 1) * dimension

    def scores(self, phi_BKD: Tensor, arm_BK: Tensor, normal_BX: Tensor, parameters: bool) -> Tensor:
        """Drawn scores of the items of B events, (B, C, K).

        With `parameters` the D normals of an event are of θ, and its items share them; otherwise each item has a
        normal, s ~ N(μᵀφ, α²‖Lᵀφ‖²). An event's items may share their row of features, phi_B1D.
        """
        if parameters:
            theta_CDB = (self.factor_CADD[:, 0] @ normal_BX.T).mul_(self._scale_C11)
            theta_CDB.add_(self.mean_CAD[:, 0, :, None])
            return torch.matmul(theta_CDB.permute(2, 0, 1), phi_BKD.mT)
        count, arms, d = self.mean_CAD.shape
        phi_SD = phi_BKD.reshape(-1, d)
        mean_SCA = (phi_SD @ self.mean_CAD.view(-1, d).T).view(-1, count, arms)
        root_XSD = phi_SD @ self.factor_CADD.view(-1, d, d)
        spread_SCA = torch.linalg.vector_norm(root_XSD, dim=2).T.view(-1, count, arms)
        row_BK = torch.arange(len(phi_SD), device=phi_SD.device).view(phi_BKD.shape[:2])
        place = (row_BK, slice(None), arm_BK % arms)
        score_BKC: Tensor = (spread_SCA[place] * self._scale_C11[:, 0, 0]).mul_(normal_BX[..., None])
        return score_BKC.add_(mean_SCA[place]).mT

    def learn(self, phi_CD: Tensor, arm_C: Tensor, reward_C: Tensor) -> None:
        """Every candidate takes in an outcome of its own. Nothing is learned by an unknown item (arm −1)."""
        arms, d = self.mean_CAD.shape[1:]
        mean_XD, factor_XDD = self.mean_CAD.view(-1, d), self.factor_CADD.view(-1, d, d)
        place_C = self._first_C + arm_C % arms
        old_CDD, sums_CDE = factor_XDD, self._sums_CDE
        if arms > 1:
            old_CDD = torch.index_select(factor_XDD, 0, place_C, out=self._taken_CDD)
        phi_CD = phi_CD * (arm_C >= 0)[:, None]
        v_CD = torch.bmm(phi_CD[:, None], old_CDD)[:, 0]
        s_CE = torch.cat([self._noise_C1, v_CD.square()], 1).cumsum(1)
        before_CD, after_CD = s_CE[:, :-1], s_CE[:, 1:]
        torch.cumsum(torch.mul(old_CDD, v_CD[:, None], out=self._product_CDD), 2, out=sums_CDE[:, :, 1:])
        mean_CD = mean_XD.index_select(0, place_C)
        surprise_C = (reward_C - (mean_CD * phi_CD).sum(1)) / after_CD[:, -1]
        mean_XD.index_copy_(0, place_C, mean_CD.addcmul_(sums_CDE[:, :, -1], surprise_C[:, None]))
        share_CD = v_CD * (before_CD * after_CD).rsqrt()
        old_CDD.mul_((before_CD / after_CD).sqrt()[:, None]).addcmul_(sums_CDE[:, :, :-1], share_CD[:, None], value=-1)
        if arms > 1:
            factor_XDD.index_copy_(0, place_C, old_CDD)

    def learn_together(self, phi_BCD: Tensor, reward_BC: Tensor) -> None:
        """As `learn`, B times, of a single parameter row, by one factorisation: cheaper from about 12 outcomes on."""
        precision_CDD, shift_CD = self._natural(0)
        scaled_CDB = phi_BCD.permute(1, 2, 0) / self._noise_C1[..., None]
        precision_CDD.baddbmm_(scaled_CDB, phi_BCD.transpose(0, 1))
        shift_CD.add_((scaled_CDB @ reward_BC.T[..., None])[..., 0])
        self._factor(0, precision_CDD, shift_CD)

    def forget(self, outcomes: int) -> None:
        """Shrink toward the prior as `outcomes` outcomes do: the data count half after every half-life."""
        if bool(self._half_life_C1.isinf().all()):
            return
        keep_C1 = 0.5 ** (outcomes / self._half_life_C1)
        fresh_C1 = (1 - keep_C1) * self._strength_C[:, None]
        for arm in range(self.mean_CAD.shape[1]):
            precision_CDD, shift_CD = self._natural(arm)
            precision_CDD.mul_(keep_C1[..., None]).add_(fresh_C1[..., None] * self._prior_ADD[arm])
            self._factor(arm, precision_CDD, keep_C1 * shift_CD + fresh_C1 * self._prior_AD[arm])

    def _natural(self, arm: int) -> tuple[Tensor, Tensor]:
        """Λ and Λμ, (C, D, D) and (C, D)."""
        inverse_CDD = _inverse(self.factor_CADD[:, arm])
        precision_CDD = inverse_CDD.mT @ inverse_CDD
        return precision_CDD, (precision_CDD @ self.mean_CAD[:, arm, :, None])[..., 0]

    def _factor(self, arm: int, precision_CDD: Tensor, shift_CD: Tensor) -> None:
        factor_CDD = _inverse(torch.linalg.cholesky(precision_CDD).mT)
        self.factor_CADD[:, arm] = factor_CDD
        self.mean_CAD[:, arm] = (factor_CDD @ (factor_CDD.mT @ shift_CD[..., None]))[..., 0]


def _inverse(upper_CDD: Tensor) -> Tensor:
    unit_DD = torch.eye(upper_CDD.shape[-1], dtype=FLOAT, device=upper_CDD.device)
    inverse_CDD: Tensor = torch.linalg.solve_triangular(upper_CDD, unit_DD, upper=True)
    return inverse_CDD
