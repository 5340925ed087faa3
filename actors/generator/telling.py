"""What contexts tell of users' tastes before any training by gradients: the start of U and h, in closed form.

With K directions T in which users differ, a user's task is θ = aμ₀ + T B'f(c) + e, where f(c) is 1, the code q, and a
layer of random tanh, and e has the pooled prior's covariance. That is a linear model in B: with A = X'G⁻¹X and
b = X'G⁻¹(r − Φaμ₀) of each user, X = ΦT, the posterior mean under B ~ N(0, λ⁻¹I) solves (Σ ff' ⊗ A + λI) B = Σ f ⊗ b,
and λ and the parts of f that are used have the greatest evidence (empirical Bayes; Bishop 2006, §3.5). Where contexts
tell nothing, λ grows without bound and nothing is left of B. μ₀ is the cross-fitted one, so a user's own rows are in
no residual.

Shapes: U tasks, N rows, Q code dimensions, W hidden width, F = 1 + Q + W features of a context, K directions, A arms,
D features, R rank.
"""

from dataclasses import dataclass

import numpy as np
import torch

from actors.features.features import Floats, Ints
from actors.generator.batching import batches
from actors.generator.head import Head
from actors.generator.likelihood import Rows

PRECISIONS = np.logspace(0, 6, 25)
LEAST_EVIDENCE = 3.0
"""Nats by which the evidence must rise; e³ is a strong one (Kass & Raftery 1995)."""


@dataclass(frozen=True)
class Telling:
    """weight_FK (B), and the nats by which it raises the evidence of the users it was fitted on."""

    weight_FK: Floats
    evidence: float


def tell(head: Head, rows: Rows, basis_ADK: Floats) -> Telling | None:
    """The best B: of contexts where they tell more than a constant does, which only mends μ₀ for users who are counted
    alike however many rows they have; None where neither tells enough.

    Args:
        head: with the pooled prior's own parameters fitted.
        basis_ADK: T.
    """
    features_UF = features(head, rows.code_UQ)
    gram_UKK, pull_UK = _normal(head, rows, basis_ADK)
    constant, first = np.arange(1), 1 + rows.code_UQ.shape[1]
    parts = [np.arange(first), np.append(0, np.arange(first, features_UF.shape[1])), np.arange(features_UF.shape[1])]
    alike, *found = (_best(features_UF, part, gram_UKK, pull_UK) for part in (constant, *parts))
    best = max(found, key=lambda each: each.evidence)
    if best.evidence > max(alike.evidence, 0.0) + LEAST_EVIDENCE:
        return best
    return alike if alike.evidence > LEAST_EVIDENCE else None


def features(head: Head, code_UQ: Floats) -> Floats:
    """f of each context: 1, q, tanh; every code z has the same."""
    with torch.no_grad():
        first_WI = head.first.numpy()
    hidden_UW = np.tanh(code_UQ @ first_WI[:, : head.context].T + first_WI[:, head.context])
    return np.column_stack([np.ones(len(code_UQ)), code_UQ, hidden_UW])


def put(head: Head, rows: Rows, told: Telling, basis_ADK: Floats, rank: int) -> int:
    """Set U and h of the first `rank` directions at most to those of B's that say most; returns how many."""
    shift_UK = features(head, rows.code_UQ) @ told.weight_FK
    _, sizes, turn_KK = np.linalg.svd(shift_UK, full_matrices=False)
    rank = min(rank, int((sizes > 1e-6 * sizes[0]).sum()))
    scale_R = sizes[:rank] / np.sqrt(len(shift_UK))
    weight_FR = told.weight_FK @ turn_KK[:rank].T / scale_R
    codes = head.context
    with torch.no_grad():
        head.first[:, codes:] = head.first[:, codes : codes + 1].clone()
        head.shift_ADR[..., :rank] = torch.from_numpy(basis_ADK @ turn_KK[:rank].T * scale_R)
        head.direct[:rank, :codes] = torch.from_numpy(weight_FR[1 : 1 + codes].T.copy())
        head.direct[:rank, codes:] = torch.from_numpy(weight_FR[0])[:, None]
        head.last[:rank] = torch.from_numpy(weight_FR[1 + codes :].T.copy())
    return rank


def _normal(head: Head, rows: Rows, basis_ADK: Floats) -> tuple[Floats, Floats]:
    """A and b of each task."""
    count, directions = len(rows.tasks), basis_ADK.shape[-1]
    gram_UKK, pull_UK = np.zeros((count, directions, directions)), np.zeros((count, directions))
    basis = torch.from_numpy(basis_ADK)
    with torch.no_grad():
        for chosen_U in batches(rows, np.arange(count)):
            batch = rows.batch(chosen_U)
            error_UN = (batch.reward_UN - head.mean_scale * batch.mean_UN) * batch.mask_UN
            shifted_UNK = head.project(basis, batch)
            solved = torch.linalg.solve(head.base(batch), torch.cat([shifted_UNK, error_UN[..., None]], -1))
            products = (shifted_UNK.mT @ solved).numpy()
            gram_UKK[chosen_U], pull_UK[chosen_U] = products[..., :-1], products[..., -1]
    return gram_UKK, pull_UK


def _best(features_UF: Floats, part: Ints, gram_UKK: Floats, pull_UK: Floats) -> Telling:
    """B of these features at the precision with the greatest evidence; 0 elsewhere."""
    mine_UF, directions = features_UF[:, part], pull_UK.shape[1]
    size = len(part) * directions
    gram = np.einsum("uf,ug,ukl->fkgl", mine_UF, mine_UF, gram_UKK, optimize=True).reshape(size, size)
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    pull = vectors.T @ (mine_UF.T @ pull_UK).reshape(size)
    evidence = [0.5 * float((pull**2 / (values + p)).sum() - np.log1p(values / p).sum()) for p in PRECISIONS]
    best = int(np.argmax(evidence))
    weight_FK = np.zeros((features_UF.shape[1], directions))
    weight_FK[part] = (vectors @ (pull / (values + PRECISIONS[best]))).reshape(len(part), directions)
    return Telling(weight_FK, evidence[best])
