"""How users differ from the pooled prior: where the head's training starts from.

Shapes: U tasks, N rows, A arms, D features, K directions.
"""

from dataclasses import dataclass

import numpy as np
import torch

from actors.features.features import Floats, Ints
from actors.generator.batching import batches
from actors.generator.head import Head
from actors.generator.likelihood import Rows

MEASURED = 1_000
"""Users whose differences show the directions."""


@dataclass(frozen=True)
class Differences:
    """The main directions in which users' own posterior means differ, as large as they do, and where users stand.

    basis_ADK; place_UK: of unit variance.
    """

    basis_ADK: Floats
    place_UK: Floats

    @classmethod
    def of(cls, head: Head, fit: Rows, rng: np.random.Generator) -> "Differences":
        """Twice as many directions as the head has ranks, of at most `MEASURED` users."""
        delta_UAD = _own_means(head, fit, np.sort(rng.permutation(len(fit.tasks))[:MEASURED]).astype(np.int64))
        arms, dimension = delta_UAD.shape[1:]
        flat = (delta_UAD - delta_UAD.mean(0)).reshape(len(delta_UAD), -1)
        size = np.sqrt(_second_moment(fit, arms, dimension)).ravel()
        left, values, right = np.linalg.svd(flat * size, full_matrices=False)
        count = min(2 * head.rank, int((values > 1e-9 * max(values[0], 1e-12)).sum()))
        scale = values[:count] / np.sqrt(len(flat))
        basis = np.divide(right[:count], size, out=np.zeros_like(right[:count]), where=size > 1e-9) * scale[:, None]
        return cls(basis.T.reshape(arms, dimension, count), left[:, :count] * np.sqrt(len(flat)))


def _own_means(head: Head, rows: Rows, chosen_U: Ints) -> Floats:
    """Shift of each task's own posterior mean from the pooled prior, (U, A, D): Σ Φᵀ G⁻¹ (r - Φμ)."""
    arms, dimension = head.log_extra_AD.shape
    shifts = np.zeros((len(chosen_U), arms, dimension))
    place = {u: i for i, u in enumerate(chosen_U)}
    prior_ADD = head.base_covariance(rows)
    with torch.no_grad():
        for b in batches(rows, chosen_U):
            batch = rows.batch(b)
            error = ((batch.reward_UN - head.mean_scale * batch.mean_UN) * batch.mask_UN)[..., None]
            weight_UN = torch.linalg.solve(head.base(batch), error)[..., 0].numpy()
            pulls = weight_UN[..., None] * batch.phi_UND.numpy()
            for u, pull_ND, arm_N in zip(b, pulls, batch.arm_UN.numpy(), strict=True):
                np.add.at(shifts[place[u]], arm_N, pull_ND)
    result: Floats = np.einsum("ade,uae->uad", prior_ADD, shifts)
    return result


def _second_moment(rows: Rows, arms: int, dimension: int) -> Floats:
    moment_AD = np.zeros((arms, dimension))
    for arm in range(arms):
        mine = rows.arm_N == arm
        moment_AD[arm] = (rows.tasks.phi_ND[mine] ** 2).sum(0) / len(rows.arm_N)
    return moment_AD
